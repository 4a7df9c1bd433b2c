"""What leaderships do when the store, the machine or the process misbehaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

import pytest

import coord
from coord import AsyncCoordinator, LossReason
from coord.core.lease import Lease
from coord.core.operations import Claim, Failure, Release, Renew, Result
from coord.core.timing import Instant
from coord.election.term import Term
from coord.errors import StoreRefused
from coord.runtime import clock
from coord.stores.memory.store import MemoryStore
from tests.support.store_time import RealTime


class Moody(MemoryStore):
    """A memory store that does to each call what `mood` says."""

    mood = "well"
    calls: list[str]

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.calls = []
        self.batches: list[int] = []

    async def _suffer(self, what: str) -> Failure | None:
        self.calls.append(what)
        if self.mood == "raises":
            raise RuntimeError("a defect in a stranger's store")
        if self.mood == "hangs":
            await asyncio.sleep(3600)
        if self.mood == "down":
            return Failure(unknown=False, detail="down")
        if self.mood == "refuses":
            return Failure(unknown=False, detail="no rights", refusal=StoreRefused)
        return None

    async def claim(self, claim: Claim, timeout: float) -> Result:
        return await self._suffer("claim") or await super().claim(claim, timeout)

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        self.batches.append(len(renewals))
        trouble = await self._suffer("renew")
        return [trouble] * len(renewals) if trouble else await super().renew(renewals, timeout)

    async def release(self, release: Release, timeout: float) -> Result:
        return await self._suffer("release") or await super().release(release, timeout)

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        if await self._suffer("read"):
            raise coord.StoreUnavailable("down")
        return await super().read(roles, timeout)

    async def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        if self.mood != "well":
            raise coord.StoreUnavailable("down")
        async for lease in super().watch(roles):
            yield lease


class Sealed(StoreRefused):
    """A refusal that a store of a user defines, with other arguments than a message."""

    def __init__(self, place: str, *, opens_at: float) -> None:
        super().__init__(f"{place} is sealed until {opens_at:g}")


def test_a_refusal_of_its_own_that_a_store_returns_is_what_callers_get() -> None:
    class Vault(MemoryStore):
        async def claim(self, claim: Claim, timeout: float) -> Result:
            return Failure.of_refusal(Sealed("the vault", opens_at=9))

    async def main() -> None:
        async with AsyncCoordinator(store=Vault()) as c:
            with pytest.raises(Sealed, match=r"^the vault is sealed until 9$"):
                await c.leadership("r").acquire(timeout=10)
            with pytest.raises(Sealed, match=r"^the vault is sealed until 9$"):
                await c.unique_service("r", {"ttl": 5})

    asyncio.run(main())


@pytest.mark.parametrize("mood", ["down", "raises", "hangs", "refuses"])
def test_a_leader_that_cannot_renew_stops_believing_before_its_lease_runs_out(
    store_time: RealTime, mood: str
) -> None:
    store = Moody(store_time.total)
    coordinator = store_time.coordinator(store=store)
    lost: list[tuple[LossReason, float]] = []
    lead = coordinator.leadership(
        "r", ttl=1, on_lost=lambda term, why: lost.append((why, store_time.now()))
    )
    with lead:
        assert lead.wait(2)
        term = lead.term
        store.mood = mood
        began = store_time.now()
        store_time.until(lambda: not lead.is_leader)
        # The ttl without its margin, counted from before the last renewal.
        assert store_time.now() - began < 0.77
        assert term.lost.wait(1)
        assert term.reason is LossReason.STORE_UNREACHABLE
        store.mood = "well"
        assert lead.wait(5)  # the loop survived it, and stands again
        assert lead.term.token > term.token
    assert [why for why, _ in lost] == [LossReason.STORE_UNREACHABLE, LossReason.RELEASED]
    coordinator.close()


def test_a_store_that_is_down_at_the_start_is_waited_for(store_time: RealTime) -> None:
    store = Moody(store_time.total)
    store.mood = "down"
    coordinator = store_time.coordinator(store=store)
    coordinator.session.timeout = 0.3
    with coordinator.leadership("r", ttl=1) as lead:
        assert not lead.wait(0.3)
        with pytest.raises(coord.AcquireTimeout, match="down"):
            lead.acquire(timeout=0.1)
        with pytest.raises(coord.StoreUnavailable):
            coordinator.leader("r")
        store.mood = "well"
        assert lead.wait(5)
    coordinator.close()


def test_a_store_that_refuses_is_reported_by_acquire_and_forgiven_by_the_loop(
    store_time: RealTime,
) -> None:
    store = Moody(store_time.total)
    store.mood = "refuses"
    coordinator = store_time.coordinator(store=store)
    lead = coordinator.leadership("r", ttl=0.5)
    with pytest.raises(coord.StoreRefused, match="no rights"):
        lead.acquire()
    assert not lead.started
    with lead:
        assert not lead.wait(0.1)
        store.mood = "well"
        assert lead.wait(5)
    coordinator.close()


def test_a_failing_store_is_not_called_in_a_tight_loop(store_time: RealTime) -> None:
    store = Moody(store_time.total)
    store.mood = "down"
    coordinator = store_time.coordinator(store=store)
    with coordinator.leadership("r", ttl=3):
        store_time.sleep(1.0)
    assert 2 <= store.calls.count("claim") < 60
    coordinator.close()


def test_renewals_of_many_roles_travel_together(store_time: RealTime) -> None:
    store = Moody(store_time.total)
    coordinator = store_time.coordinator(store=store)
    leads = [coordinator.leadership(f"r{n}", ttl=1.2) for n in range(200)]
    for lead in leads:
        lead.start()
    assert all(lead.wait(5) for lead in leads)
    store_time.sleep(1.5)
    assert all(lead.is_leader for lead in leads)
    assert sum(store.batches) >= 200
    assert max(store.batches) > 1
    coordinator.close()


def test_a_suspended_machine_wakes_up_knowing_that_it_lost() -> None:
    slept = 0.0

    def now() -> Instant:
        awake, total = clock.system_now()
        return Instant(awake, total + slept)

    async def main() -> None:
        nonlocal slept
        lost: list[LossReason] = []
        async with AsyncCoordinator(store=MemoryStore(), now=now) as c:
            lead = c.leadership("r", ttl=30, on_lost=lambda term, why: lost.append(why))
            await lead.start()
            assert await lead.wait(2)
            term = lead.term
            slept = 3600.0
            assert not lead.is_leader  # at once, with nothing having run
            began = time.monotonic()
            await asyncio.wait_for(_lost(term), 3)
            assert time.monotonic() - began < 2  # though its timers had 10 s to go
            assert term.reason is LossReason.SUSPENDED
            assert await lead.wait(2)
            assert lead.term.token == 2
        assert lost == [LossReason.SUSPENDED, LossReason.RELEASED]

    asyncio.run(main())


async def _lost(term: Term) -> None:
    await term.lost


def test_a_term_that_somebody_saw_end_never_comes_back() -> None:
    at = 0.0
    term = Term("r", "me", 1, 10.0, lambda: Instant(at, at))
    assert term.held
    at = 10.0
    assert not term.held
    at = 9.0
    assert not term._extend(20.0)
    assert not term.held
    assert term.remaining == 0.0
    with pytest.raises(coord.LeadershipLost):
        term.check()


def test_is_leader_stays_right_while_the_loop_is_blocked(store_time: RealTime) -> None:
    async def main() -> None:
        store = MemoryStore(now=store_time.total)
        async with store_time.async_coordinator(store=store) as c:
            lead = c.leadership("r", ttl=0.4)
            async with lead:
                assert await lead.wait(2)
                store_time.block(0.5)  # nothing can renew, nothing can fire
                assert not lead.is_leader
                with pytest.raises(coord.NotLeader):
                    _ = lead.term
                assert await lead.wait(2)
                assert lead.term.token == 2

    store_time.run(main)


def test_a_cancelled_loop_gives_back_what_it_holds() -> None:
    store: Any = MemoryStore()
    reports: list[str] = []

    async def main() -> coord.Term:
        c = AsyncCoordinator(store=store)
        tell = {
            "on_elected": lambda _: reports.append("elected"),
            "on_lost": lambda *_: reports.append("lost"),
        }
        lead = c.leadership("r", ttl=30, **tell)
        await lead.start()
        assert await lead.wait(2)
        await asyncio.sleep(0.05)
        return lead.term

    term = asyncio.run(main())  # ends without stop or close: asyncio.run cancels the tasks
    assert not term.held
    assert reports == ["elected"]  # nothing can call any more: docs/guarantees.md says so

    async def after() -> None:
        async with AsyncCoordinator(store=store) as c:
            assert await c.leader("r") is None

    asyncio.run(after())
