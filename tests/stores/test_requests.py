"""With a store that can send at once (`stores.protocol.Prompt`), nothing of a handover waits for a
turn of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from coord import AsyncCoordinator, AsyncLeadership
from coord.core.lease import Lease
from coord.core.operations import Claim, Failure, Operation, Release, Result
from coord.election import jitter
from coord.stores.memory.store import MemoryStore
from coord.stores.protocol import Immediate
from coord.stores.requests import discard


class Quick(MemoryStore):
    """Does at once what it is asked. `able`: whether it can; `broken`: it raises instead."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[Operation] = []
        self.able, self.broken = True, False

    def begin(self, operation: Operation, timeout: float) -> Coroutine[Any, Any, Result] | None:
        if self.broken:
            raise RuntimeError("told to fail")
        if not self.able or not isinstance(operation, (Claim, Release)):
            return None
        self.begun.append(operation)
        done = super().claim if isinstance(operation, Claim) else super().release
        work = done(operation, timeout)  # type: ignore[operator]
        with pytest.raises(StopIteration) as answer:
            work.send(None)
        return self._later(answer.value.value)

    async def _later(self, result: Result) -> Result:
        await asyncio.sleep(0)
        return result


@asynccontextmanager
async def leader_and_follower(
    store: Quick, ttl: float
) -> AsyncIterator[tuple[AsyncLeadership, AsyncLeadership]]:
    async with AsyncCoordinator(store=store) as first, AsyncCoordinator(store=store) as second:
        old, new = first.leadership("r", ttl=ttl), second.leadership("r", ttl=ttl)
        await old.acquire()
        await new.first_outcome()
        await asyncio.sleep(0.1)  # it follows
        yield old, new


def test_it_is_known_by_what_it_can() -> None:
    assert isinstance(Quick(), Immediate)
    assert not isinstance(MemoryStore(), Immediate)


def test_a_lease_is_given_back_and_taken_in_the_turn_in_which_that_is_known() -> None:
    async def body() -> None:
        store = Quick()
        async with leader_and_follower(store, 5) as (old, new):
            store.begun.clear()
            leads, waits = old._elector, new._elector
            assert leads is not None
            assert waits is not None
            leads.stop()
            assert [type(item) for item in store.begun] == [Release]
            (row,) = await store.read(["r"], 1)
            waits._row_seen(row)
            assert [type(item) for item in store.begun] == [Release, Claim]
            assert await new.wait(1)
            await leads.task
            assert new.term.token == 2
            assert len(store.begun) == 2  # each once, whatever the feed tells later

    asyncio.run(body())


def test_with_each_term_another_candidate_may_be_the_first_to_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delays: list[int | None] = []

    def draw(ttl: float, waiting: int | None) -> tuple[float, float]:
        delays.append(waiting)
        return 0.0, 3600.0

    async def body() -> None:
        async with AsyncCoordinator(store=Quick()) as coordinator:
            lead = coordinator.leadership("r", ttl=5)
            await lead.acquire()
            other = coordinator.leadership("r", ttl=5)
            await other.first_outcome()
            await asyncio.sleep(0.1)  # it follows
            waits = other._elector
            assert waits is not None
            waits._draw_delays(200)
            delays.clear()
            for holder, token in (("x", 2), ("x", 2), (None, 2), ("y", 3)):
                waits._row_seen(Lease("r", holder, token, len(delays) + 1, 5.0, remaining=5.0))
            assert delays == [200, 200]

    monkeypatch.setattr(jitter, "draw", draw)
    asyncio.run(body())


def test_a_candidate_that_lets_others_go_first_sleeps_on() -> None:
    """The loop is free for the answer of the candidate that claims at once."""

    async def body() -> None:
        store = Quick()
        async with leader_and_follower(store, 60) as (old, new):
            waits = new._elector
            assert waits is not None
            waits._draw_delays(1)  # the count that its announcement returns in a second is no news
            waits.election.release_delay = 0.3
            sleeps = waits._wake
            assert sleeps is not None
            await old.stop()
            (row,) = await store.read(["r"], 1)
            waits._row_seen(row)
            assert waits._wake is sleeps
            assert not sleeps.done()
            assert await new.wait(10)

    asyncio.run(body())


def test_a_new_number_of_candidates_counts_for_the_lease_that_is_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise a candidate would claim at the later of two draws. With about the same number it
    keeps what it has drawn."""

    async def body() -> None:
        store = Quick()
        async with leader_and_follower(store, 60) as (old, new):
            waits = new._elector
            assert waits is not None
            monkeypatch.setattr(jitter, "draw", lambda ttl, waiting: (0.0, 3600.0))
            waits._counted(200)
            await old.stop()
            (row,) = await store.read(["r"], 1)
            waits._row_seen(row)
            monkeypatch.setattr(jitter, "draw", lambda ttl, waiting: (0.0, 0.0))
            waits._counted(210)
            await asyncio.sleep(0.05)
            assert waits.election.release_delay == 3600.0
            assert not new.is_leader
            waits._counted(3)
            assert await new.wait(10)

    asyncio.run(body())


@pytest.mark.parametrize("how", ["unable", "broken"])
def test_a_store_that_cannot_gets_requests_as_any_other(how: str) -> None:
    async def body() -> None:
        store = Quick()
        store.able, store.broken = how != "unable", how == "broken"
        async with AsyncCoordinator(store=store) as first, AsyncCoordinator(store=store) as second:
            old, new = first.leadership("r", ttl=5), second.leadership("r", ttl=5)
            await old.acquire()
            await new.first_outcome()
            await old.stop()
            assert await new.wait(2)
            assert store.begun == []

    asyncio.run(body())


def test_a_store_that_never_answers_times_out_as_any_other() -> None:
    class Silent(Quick):
        def begin(self, operation: Operation, timeout: float) -> Coroutine[Any, Any, Result] | None:
            self.begun.append(operation)
            return None if len(self.begun) > 1 else asyncio.sleep(3600, Failure(unknown=True))

    async def body() -> None:
        store = Silent()
        async with AsyncCoordinator(store=store) as coordinator:
            lead = coordinator.leadership("r", ttl=1)
            await lead.acquire()
            await asyncio.sleep(0.05)  # it waits for its next renewal
            assert lead._elector is not None
            lead._elector.stop()
            assert [type(item) for item in store.begun] == [Release]
            await asyncio.wait({lead._elector.task}, timeout=5)
            assert not lead.started
            assert coordinator.session._immediate.under_way == 0

    asyncio.run(body())


def test_a_loop_that_ends_gives_back_what_was_under_way() -> None:
    """The release is sent, and the task is cancelled before it comes to wait for the answer."""

    async def body() -> Lease:
        store = Quick()
        coordinator = AsyncCoordinator(store=store)
        lead = coordinator.leadership("r", ttl=5)
        await lead.acquire()
        await asyncio.sleep(0.05)
        assert lead._elector is not None
        lead._elector.stop()
        lead._elector.task.cancel()
        await asyncio.wait({lead._elector.task})
        assert coordinator.session._immediate.under_way == 0
        await coordinator.close()
        return (await store.read(["r"], 1))[0]

    assert asyncio.run(body()).vacant


def test_what_is_dropped_is_cancelled_where_it_waits() -> None:
    ended: list[str] = []

    async def waits() -> Result:
        try:
            await asyncio.sleep(10)
        finally:
            ended.append("ended")
        return Failure(unknown=True)

    async def body() -> None:
        discard(waits())
        discard(None)

    asyncio.run(body())
    assert ended == ["ended"]
