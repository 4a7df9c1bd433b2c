"""Contract tests of service records. A store that keeps none passes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import datetime, timedelta, timezone
from typing import Any

from coord.core.records import Record
from coord.errors import BadArgument
from coord.runtime.timers import within
from coord.stores.protocol import HasRecords, Records
from coord.testing.contract.harness import ContractHarness, StoreDriver, expect, same

WITHIN = 10.0
"""Seconds until the feed must yield a hint."""

Body = Callable[[StoreDriver, Records, Records], Awaitable[None]]


class RecordContract(ContractHarness):
    table = "services"
    """The table of the records."""

    def test_a_record_is_stored_and_returned(self) -> None:
        async def body(at: StoreDriver, first: Records, second: Records) -> None:
            before = datetime.now(timezone.utc)
            record = _record(at.role, nested={"a": [1, None, 0.5]}, text="ü🦑'\"\\")
            stored = await first.register(record, _nonce(), self.timeout)
            assert stored is not None
            same({name: stored[name] for name in record}, record, "the fields of the service")
            expect(
                abs(stored["last_heartbeat"] - before) < timedelta(hours=1),
                f"last_heartbeat is a time with a zone: {stored['last_heartbeat']!r}",
            )
            same(stored["first_heartbeat"], stored["last_heartbeat"], "both, at first")
            (healthy,) = await second.healthy(at.role, self.timeout)
            same(healthy, stored, "the record as another store reads it")
            (healthy,) = await second.healthy(None, self.timeout, key=record["id"])
            same(healthy, stored, "the record by its id")

        self._keep(body)

    def test_registering_again_keeps_the_first_heartbeat_only(self) -> None:
        async def body(at: StoreDriver, records: Records, other: Records) -> None:
            record = _record(at.role, old=True)
            first = await records.register(record, _nonce(), self.timeout)
            assert first is not None
            await asyncio.sleep(0.01)
            changed = {**_record(at.role, load=0.5), "id": record["id"]}
            second = await other.register(changed, _nonce(), self.timeout)
            assert second is not None
            same(second["first_heartbeat"], first["first_heartbeat"], "first_heartbeat")
            expect(second["last_heartbeat"] > first["last_heartbeat"], "last_heartbeat is newer")
            expect("old" not in second, "a field that is not given any longer is gone")

        self._keep(body)

    def test_a_refresh_creates_nothing(self) -> None:
        async def body(at: StoreDriver, first: Records, second: Records) -> None:
            record = _record(at.role)
            same(await first.refresh(record, self.timeout), None, "a refresh of an absent record")
            same(await second.healthy(at.role, self.timeout), [], "the records of the role")
            await first.register(record, _nonce(), self.timeout)
            stored = await second.refresh({**record, "load": 7}, self.timeout)
            assert stored is not None
            same(stored["load"], 7, "the load after a refresh")

        self._keep(body)

    def test_a_late_duplicate_of_a_registration_revives_nothing(self) -> None:
        async def body(at: StoreDriver, first: Records, second: Records) -> None:
            record, nonce = _record(at.role), _nonce()
            await first.register(record, nonce, self.timeout)
            same(await second.remove(record["id"], nonce, self.timeout), True, "it existed")
            same(await second.remove(record["id"], nonce, self.timeout), False, "it is gone")
            same(await first.register(record, nonce, self.timeout), None, "the late duplicate")
            same(await first.refresh(record, self.timeout), None, "a late refresh")
            same(await first.healthy(at.role, self.timeout), [], "the records of the role")
            same(await first.list_all(at.role, self.timeout), [], "a tombstone is not listed")
            expect(
                await first.register(record, _nonce(), self.timeout) is not None,
                "a new registration of the same id",
            )

        self._keep(body)

    def test_lookups_find_healthy_records(self) -> None:
        async def body(at: StoreDriver, first: Records, second: Records) -> None:
            loads = (0.5, 0.25, 3)
            for load in loads:
                await first.register(_record(at.role, load=load), _nonce(), self.timeout)
            await first.register(_record(at.role, load=0, ttl=0.2), _nonce(), self.timeout)
            await asyncio.sleep(0.2 + self.slack)
            best = await second.least_loaded(at.role, self.timeout)
            assert best is not None
            same(best["load"], 0.25, "the lowest load of those that are healthy")
            healthy = await second.healthy(at.role, self.timeout)
            same(
                sorted(record["load"] for record in healthy),
                sorted(loads),
                "the healthy ones",
            )
            sampled = await second.sample(at.role, 2, self.timeout)
            same(len({record["id"] for record in sampled}), 2, "different records of a sample")
            same(len(await second.sample(at.role, 10, self.timeout)), 3, "a sample of all")
            everything = await second.list_all(at.role, self.timeout)
            same(
                sorted(entry.remaining > 0 for entry in everything),
                [False, True, True, True],
                "which of all are healthy",
            )
            same(await second.least_loaded(at.fresh_role(), self.timeout), None, "an empty role")

        self._keep(body)

    def test_purge_deletes_those_that_were_silent_for_long(self) -> None:
        async def body(at: StoreDriver, first: Records, second: Records) -> None:
            for ttl in (0.05, 0.3, 60.0):
                await first.register(_record(at.role, ttl=ttl), _nonce(), self.timeout)
            await asyncio.sleep(0.35 + self.slack)
            expect(await second.purge(3, self.timeout) >= 1, "purge counts what it deletes")
            ttls = [entry.record["ttl"] for entry in await first.list_all(at.role, self.timeout)]
            same(sorted(ttls), [0.3, 60.0], "the ttls of those that are left")

        self._keep(body)

    def test_a_published_leader(self) -> None:
        async def body(at: StoreDriver, first: Records, second: Records) -> None:
            role = at.role
            leader = {"role": role, "ttl": 30.0, "token": 5, "holder": "a"}
            expect(await first.publish(leader, 20.0, self.timeout), "a leader is published")
            (healthy,) = await second.healthy(role, self.timeout)
            same((healthy["id"], healthy["token"]), (role, 5), "its id is the role")
            older = {**leader, "token": 4, "holder": "b"}
            expect(
                not await second.publish(older, 20.0, self.timeout),
                "a leader with an older token is refused",
            )
            expect(
                not await second.withdraw(role, 4, self.timeout),
                "a withdrawal under an older token changes nothing",
            )
            newer = {**leader, "token": 6, "holder": "c"}
            expect(
                await second.publish(newer, 20.0, self.timeout),
                "a leader with a newer token replaces it",
            )
            (healthy,) = await first.healthy(role, self.timeout)
            same(healthy["holder"], "c", "the holder")
            expect(await first.withdraw(role, 6, self.timeout), "it is withdrawn")
            same(await second.healthy(role, self.timeout), [], "the records of the role")

        self._keep(body)

    def test_a_leader_does_not_replace_a_healthy_service(self) -> None:
        async def body(at: StoreDriver, first: Records, second: Records) -> None:
            service = {**_record(at.role), "id": at.role}
            await first.register(service, _nonce(), self.timeout)
            leader = {"role": at.role, "ttl": 30.0, "token": 5, "holder": "a"}
            expect(not await second.publish(leader, 20.0, self.timeout), "it is refused")
            expect(not await second.withdraw(at.role, 9, self.timeout), "nothing is withdrawn")
            (healthy,) = await first.healthy(at.role, self.timeout)
            expect("token" not in healthy, "the service is still there")

        self._keep(body)

    def test_hints_that_services_come_and_go(self) -> None:
        async def body(at: StoreDriver, first: Records, second: Records) -> None:
            record = _record(at.role)
            async with aclosing(second.watch(at.role)) as feed:  # type: ignore[type-var] # a generator

                async def hint_until(present: bool) -> None:
                    async def until() -> None:
                        async for _ in feed:
                            if bool(await second.healthy(at.role, self.timeout)) is present:
                                return

                    try:
                        await within(until(), WITHIN)
                    except asyncio.TimeoutError:
                        raise AssertionError(f"no hint within {WITHIN:g} s") from None

                await hint_until(False)
                await first.register(record, _nonce(), self.timeout)
                await hint_until(True)
                await first.remove(record["id"], _nonce(), self.timeout)
                await hint_until(False)

        self._keep(body)

    def _keep(self, body: Body) -> None:
        async def with_both(at: StoreDriver) -> None:
            other = await at.another()
            first, second = at.store, other.store
            if isinstance(first, HasRecords) and isinstance(second, HasRecords):
                try:
                    both = first.records(self.table), second.records(self.table)
                except BadArgument:
                    return  # a store that cannot keep records says so
                await body(at, *both)

        self.run(with_both)


def _nonce() -> str:
    return secrets.token_hex(8)


def _record(role: str, *, load: float = 1, ttl: float = 30.0, **more: Any) -> Record:
    return {
        "id": f"contract-{secrets.token_hex(8)}",
        "role": role,
        "load": load,
        "ttl": ttl,
        "host": "host.example",
        "pid": 1,
        **more,
    }
