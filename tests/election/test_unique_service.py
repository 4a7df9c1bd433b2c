"""`unique_service` and the lookups, on every store."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

import coord
from coord import AsyncCoordinator, Coordinator, Lease, StoreUnavailable
from coord.stores.memory.store import MemoryStore
from coord.testing import Fault, FaultyStore
from coord.testing.faulty_store import Name
from tests.support.store_time import RealTime

Two = tuple[Coordinator, Coordinator]


def test_claim_keep_lookup(two: Two) -> None:
    a, b = two
    candidate = {"ttl": 5, "id": "a:1", "node": "a", "port": 1, "tags": ["x", {"y": None}]}
    before = {**candidate}
    claimed = a.unique_service("sync", candidate)
    assert candidate == before
    assert claimed is not None
    assert {
        key: claimed[key] for key in ("node", "port", "tags", "role", "ttl", "token", "mine")
    } == {
        "node": "a",
        "port": 1,
        "tags": ["x", {"y": None}],
        "role": "sync",
        "ttl": 5,
        "token": 1,
        "mine": True,
    }
    assert abs((datetime.now(timezone.utc) - claimed["last_heartbeat"]).total_seconds()) < 60
    record = b.unique_service("sync", {"ttl": 5, "node": "b"})
    assert record is not None
    assert (record["node"], record["token"], record["mine"]) == ("a", 1, False)
    kept = a.unique_service("sync", {**candidate, "port": 2})
    assert kept is not None
    assert (kept["token"], kept["port"], kept["mine"]) == (1, 2, True)
    looked = b.unique_service("sync")
    assert looked is not None
    assert looked["port"] == 2
    assert b.unique_service("nobody") is None


def test_two_that_are_configured_alike_are_rivals(two: Two) -> None:
    alike = {"ttl": 5, "id": "same", "host": "h", "pid": 1}
    first, second = (c.unique_service("r", alike) for c in two)
    assert first is not None
    assert second is not None
    assert (first["mine"], second["mine"]) == (True, False)
    assert first["holder"] == second["holder"]


def test_the_role_passes_on_when_its_holder_falls_silent(store_time: RealTime, two: Two) -> None:
    assert two[0].unique_service("r", {"ttl": 2, "node": "a"})
    began = store_time.now()

    def elected() -> dict[str, Any] | None:
        record = two[1].unique_service("r", {"ttl": 2, "node": "b"})
        return record if record and record["mine"] else None

    record = store_time.until(elected)
    assert record["token"] == 2
    assert store_time.now() - began > 1.9
    late = two[0].unique_service("r", {"ttl": 2, "node": "a"})
    assert late is not None
    assert (late["mine"], late["node"]) == (False, "b")


def test_it_shares_leases_and_tokens_with_leadership(two: Two) -> None:
    with two[0].leadership("r", ttl=3, info={"node": "loop"}) as lead:
        assert lead.wait(5)
        record = two[1].unique_service("r", {"ttl": 3, "node": "call"})
        assert record is not None
        assert (record["node"], record["token"], record["mine"]) == ("loop", 1, False)
    record = two[1].unique_service("r", {"ttl": 3, "node": "call"})
    assert record is not None
    assert (record["token"], record["mine"]) == (2, True)
    two[1].close()  # gives it back
    assert two[0].leader("r") is None


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        ({}, "at least ttl"),
        ({"ttl": 0}, r"candidate\['ttl'\]"),
        ({"ttl": "5"}, r"candidate\['ttl'\]"),
        ({"ttl": True}, r"candidate\['ttl'\]"),
        ({"ttl": 5, "when": datetime(2026, 1, 1)}, "JSON"),
        ("me", "candidate"),
    ],
)
def test_bad_candidates(candidate: Any, message: str) -> None:
    with pytest.raises(coord.BadArgument, match=message):
        Coordinator("memory://").unique_service("r", candidate)


def test_leader_and_leaders(two: Two) -> None:
    assert two[0].leader("r") is None
    leads = [
        two[0].leadership(role, ttl=5, info={"n": n}) for n, role in enumerate(["b", "a", "c"])
    ]
    for lead in leads:
        assert lead.acquire(timeout=5)
    held = two[1].leader("a")
    assert held is not None
    assert (held.role, held.token, held.info["n"]) == ("a", 1, 1)
    assert held.holder == leads[1].term.holder
    assert 3 < held.remaining <= 5
    assert [lease.role for lease in two[1].leaders()] == ["a", "b", "c"]


def test_watch_leader_reports_changes_and_nobody(store_time: RealTime, two: Two) -> None:
    reports: list[int | None] = []

    def watch() -> None:
        for lease in two[1].watch_leader("r"):
            reports.append(None if lease is None else lease.token)
            if len(reports) == 6:
                return

    def expect(*tokens: int | None) -> None:
        store_time.until(lambda: tuple(reports) == tokens, reports)

    ended = store_time.start(watch)
    expect(None)

    lead = two[0].leadership("r", ttl=1)
    with lead:
        assert lead.wait(5)
        expect(None, 1)
        store_time.sleep(1.2)  # renewals are no news
        expect(None, 1)
        lead.stop()
        expect(None, 1, None)
    assert two[0].unique_service("r", {"id": "a", "ttl": 0.5})
    expect(None, 1, None, 2)
    expect(None, 1, None, 2, None)  # it ran out, and nobody wrote anything
    assert two[0].unique_service("r", {"id": "a", "ttl": 5})
    ended()


def test_watch_leader_async(url: str) -> None:
    async def main() -> None:
        async with AsyncCoordinator(url) as c, c.leadership("r", ttl=3) as lead:
            assert await lead.wait(5)
            changes = c.watch_leader("r")
            first = await _next(changes)
            assert isinstance(first, Lease)
            assert first.token == 1
            await lead.stop()
            assert await _next(changes) is None
            await changes.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())


async def _next(changes: Any) -> Any:
    return await asyncio.wait_for(changes.__anext__(), 5)


def test_names_of_the_issue_async(url: str) -> None:
    async def main() -> None:
        async with coord.AsyncCoordinator(url) as c:
            async with c.leadership("scheduler", ttl=3) as lead:
                assert await lead.wait(5)
                assert (await c.leader("scheduler")) is not None
            assert await lead_once(c.leadership("scheduler", ttl=3).run) == 2
            record = await c.unique_service("scheduler", candidate={"ttl": 15, "node": "a"})
            assert record is not None
            assert record["token"] == 3

    async def job() -> int:
        term = coord.current_term()
        assert term is not None
        return term.token

    async def lead_once(run: Callable[..., Any]) -> Any:
        return await run(job)

    asyncio.run(main())


def test_the_leader_of_a_watched_role_is_known_without_asking(
    store_time: RealTime, url: str
) -> None:
    async def main() -> None:
        async with (
            store_time.async_coordinator(url) as c,
            store_time.async_coordinator(url) as other,
            other.leadership("r", ttl=2) as lead,
        ):
            assert await lead.wait(5)
            reads = 0
            read = c.store.read

            async def counted(*args: Any) -> Any:
                nonlocal reads
                reads += 1
                return await read(*args)

            c.store.read = counted  # type: ignore[method-assign]
            changes = c.watch_leader("r")
            assert (await _next(changes)).token == 1
            await asyncio.sleep(0.2)  # the memory store's feed itself begins with a read
            before = reads
            for _ in range(50):  # longer than the ttl: renewals arrive, and nobody asks
                held = await c.leader("r")
                assert held is not None
                assert (held.token, held.holder) == (1, lead.term.holder)
                assert 0 < held.remaining <= 2
                await asyncio.sleep(0.05)
            # Redis does not publish renewals: once a ttl a lookup sees whether there was one.
            assert reads <= before + 5 * url.startswith("redis")
            before = reads
            await lead.stop()
            assert await _next(changes) is None
            assert await c.leader("r") is None
            assert reads == before
            await changes.aclose()  # type: ignore[attr-defined]
            assert await c.leader("r") is None
            assert reads == before + 1

    store_time.run(main)


@pytest.mark.parametrize("operation", ["claim", "renew", "read"])
def test_a_call_that_was_cancelled_is_followed_by_others(
    store_time: RealTime, operation: Name
) -> None:
    """As by `asyncio.wait_for` around it. Its outcome is unknown, so a claim is looked after (rule
    8)."""

    async def main() -> None:
        store = FaultyStore(MemoryStore(now=store_time.total))
        c = store_time.async_coordinator(store=store)
        candidate = {"ttl": 6, "node": "a"}
        if operation == "renew":
            assert await c.unique_service("r", candidate)
        if operation == "read":  # the look that follows a claim without an answer
            store.fail("claim", Fault.UNKNOWN_DONE)
            with pytest.raises(StoreUnavailable):
                await c.unique_service("r", candidate)
        store.fail(operation, Fault.HANG)
        call = asyncio.ensure_future(c.unique_service("r", candidate))
        await store_time.soon(lambda: operation in store.calls[-1:])
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with contextlib.suppress(
            StoreUnavailable
        ):  # renewals wait for the one that hangs, for an attempt's time
            await c.unique_service("r", candidate)
        later = await c.unique_service("r", candidate)
        assert later is not None
        assert later["mine"]
        await c.close()
        assert (await store.read(["r"], 5))[0].vacant

    store_time.run(main)


@pytest.mark.parametrize("answered", [True, False])
def test_what_a_call_without_an_answer_may_have_won_is_given_back_at_the_end(
    answered: bool,
) -> None:
    async def main() -> None:
        store = FaultyStore(MemoryStore())
        c = AsyncCoordinator(store=store)
        if answered:  # it was lost
            store.fail("claim", Fault.UNKNOWN_DONE)
            with pytest.raises(StoreUnavailable):
                await c.unique_service("r", {"ttl": 60})
        else:  # the caller has not waited for it
            store.slow("claim", after=0.05)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(c.unique_service("r", {"ttl": 60}), 0.01)
        assert not (await store.inner.read(["r"], 5))[0].vacant
        await c.close()
        assert (await store.inner.read(["r"], 5))[0].vacant

    asyncio.run(main())


@pytest.mark.parametrize("name", ["claim", "release", "read"])
def test_the_end_waits_for_a_store_that_is_down_no_longer_than_an_attempt(name: Name) -> None:
    async def main() -> None:
        store = FaultyStore(MemoryStore())
        c = AsyncCoordinator(store=store)
        if name == "release":
            assert await c.unique_service("r", {"ttl": 1})
        else:
            store.fail("claim", Fault.UNKNOWN_DONE if name == "read" else Fault.NOT_DONE)
            with pytest.raises(StoreUnavailable):
                await c.unique_service("r", {"ttl": 1})
        store.calls.clear()
        store.down(Fault.HANG)
        await asyncio.wait_for(c.close(), 30)
        assert [call for call in store.calls if call != "watch"] == (
            [] if name == "claim" else [name]
        )

    asyncio.run(main())


def test_what_was_given_last_is_not_taken_for_what_is_given_now(url: str) -> None:
    """It is checked only once where it is the same; whatever differs in anything is another."""

    async def main() -> None:
        async with AsyncCoordinator(url) as c:

            async def answer(candidate: dict[str, Any]) -> dict[str, Any]:
                record = await c.unique_service("r", candidate)
                assert record is not None
                assert record["mine"]
                return record

            fields: dict[str, Any] = {"id": "a", "ttl": 30, "up": 1, "tags": ["x"]}
            assert (await answer(fields))["tags"] == ["x"]
            fields["tags"].append("y")  # the very object that was given before
            assert (await answer(fields))["tags"] == ["x", "y"]
            assert (await answer({"id": "a", "ttl": 30, "up": 1}))["up"] == 1
            assert (await answer({"id": "a", "ttl": 30, "up": 1}))["up"] == 1
            assert (await answer({"id": "a", "ttl": 40, "up": 1}))["ttl"] == 40
            for bad in (
                {"id": "a", "up": 1},
                {"id": "a", "ttl": -1, "up": 1},
                {"id": "a", "ttl": 40, "up": object()},
                ["ttl"],
            ):
                with pytest.raises(coord.BadArgument):
                    await c.unique_service("r", bad)  # type: ignore[arg-type]
                kept = await answer({"id": "a", "ttl": 40, "up": 1})
                assert (kept["ttl"], kept["up"], "tags" in kept) == (40, 1, False)
            assert (await answer({"id": "a", "ttl": 40, "up": 2}))["up"] == 2

    asyncio.run(main())


def test_true_is_stored_where_one_was_and_the_other_way_round(url: str) -> None:
    """They are equal in Python, and differ for every reader of the row."""

    async def main() -> None:
        async with AsyncCoordinator(url) as c, AsyncCoordinator(url) as other:
            for value in (1, True, False, 0, [{"x": 0}], [{"x": False}]):
                await c.unique_service("r", {"id": "a", "ttl": 40, "up": value})
                record = await other.unique_service("r")
                assert json.dumps(record and record["up"]) == json.dumps(value)
            for fields in ({"up": 1, "new": True}, {"new": 1, "up": True}):  # in another order
                await c.unique_service("r", {"id": "a", "ttl": 40, **fields})
                record = await other.unique_service("r")
                assert json.dumps(record and record["up"]) == json.dumps(fields["up"])
            assert await c.release("r")
            lead = c.leadership("r", ttl=40, info={"up": [1]})
            assert await lead.acquire(timeout=10)
            for value in ([True], [1]):
                await lead.update({"up": value})
                row = await other.leader("r")
                assert json.dumps(row and row.info["up"]) == json.dumps(value)

    asyncio.run(main())
