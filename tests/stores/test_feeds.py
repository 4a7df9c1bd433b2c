"""The one feed of a process: when it is opened again after a failure, and for which roles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any

import pytest

from coord.core.lease import Lease
from coord.runtime.retry import rng
from coord.stores.feeds import LONGEST_TURN, SETTLED, TURN, CandidateListener, SharedFeed
from coord.stores.memory.store import MemoryStore
from coord.testing.clocks import Machine
from coord.testing.clocks import run as virtual_time


class Feeds(MemoryStore):
    """A store whose feeds end as the test wants: each string says what one feed does.

    "broken": it fails at once; "row then broken": it yields a row and fails; "open": it stays open.
    """

    def __init__(self, machine: Machine, *kinds: str) -> None:
        super().__init__()
        self._machine, self._kinds = machine, list(kinds)
        self.opened: list[float] = []
        self.roles: list[set[str]] = []

    async def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        self.opened.append(self._machine.world.time)
        self.roles.append(set(roles or ()))
        kind = self._kinds.pop(0) if self._kinds else "open"
        if kind != "broken":
            for role in sorted(roles or ()):
                yield Lease(role)
        if kind == "open":
            await asyncio.Event().wait()
        raise ConnectionResetError("the feed was broken")

    @property
    def gaps(self) -> list[float]:
        return [
            round(after - before, 1)
            for before, after in zip(self.opened, self.opened[1:], strict=False)
        ]


@pytest.fixture(autouse=True)
def longest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each random wait is as long as it may be."""
    monkeypatch.setattr(rng, "uniform", lambda low, high: high)


async def run_feed(store: Feeds, feeds: int) -> tuple[list[Lease], int]:
    """Follow role "a" until the store has opened so many feeds. Returns the rows, and how often
    the store's failure was reported."""
    rows: list[Lease] = []
    failures: list[None] = []
    feed = SharedFeed(lambda: store, lambda: failures.append(None))
    feed.subscribe("a", rows.append)
    while len(store.opened) < feeds:  # noqa: ASYNC110 # on virtual time, which costs nothing
        await asyncio.sleep(0.01)
    await feed.close()
    return rows, len(failures)


def test_the_wait_before_a_new_feed_grows_from_failure_to_failure() -> None:
    async def main(machine: Machine) -> None:
        store = Feeds(machine, *["broken"] * 9)
        _, failures = await run_feed(store, 10)
        assert failures == 9
        assert store.gaps == [0.1, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]

    virtual_time(main)


def test_a_feed_that_has_yielded_a_row_starts_with_the_shortest_wait_again() -> None:
    async def main(machine: Machine) -> None:
        kinds = [*["broken"] * 6, "row then broken", *["broken"] * 3]
        store = Feeds(machine, *kinds)
        rows, _ = await run_feed(store, 10)
        assert rows == [Lease("a")]
        assert store.gaps == [0.1, 0.1, 0.2, 0.4, 0.8, 1.6, 0.1, 0.1, 0.2]

    virtual_time(main)


def test_a_feed_that_ends_without_an_error_is_a_failure_too() -> None:
    class Ending(Feeds):
        async def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
            self.opened.append(self._machine.world.time)
            for role in sorted(roles or ()):
                yield Lease(role)

    async def main(machine: Machine) -> None:
        store = Ending(machine)
        rows, failures = await run_feed(store, 3)
        assert len(rows) >= 2
        assert failures >= 2

    virtual_time(main)


def test_roles_share_a_feed_and_a_new_role_opens_one_for_all() -> None:
    async def main(machine: Machine) -> None:
        store = Feeds(machine)
        rows: dict[str, list[Any]] = {"a": [], "b": []}
        feed = SharedFeed(lambda: store, lambda: pytest.fail("no feed failed"))
        leave = feed.subscribe("a", rows["a"].append)
        await asyncio.sleep(0.1)
        feed.subscribe("b", rows["b"].append)
        await asyncio.sleep(0.1)
        assert store.roles == [{"a"}, {"a", "b"}]
        assert rows == {"a": [Lease("a"), Lease("a")], "b": [Lease("b")]}
        feed.subscribe("b", rows["b"].append)  # a second listener needs the present row, too
        await asyncio.sleep(0.1)
        assert len(store.opened) == 3
        leave()
        feed.subscribe("c", rows["a"].append)
        await asyncio.sleep(0.1)
        assert store.roles[-1] == {"b", "c"}
        await feed.close()

    virtual_time(main)


class Announced(MemoryStore):
    """A store whose feed shows what the test puts into `rows`."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: asyncio.Queue[Lease] = asyncio.Queue()

    async def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        while True:
            yield await self.rows.get()


HELD, VACANT = Lease("r", "a", 1, 3, 5.0, remaining=5.0), Lease("r", None, 1, 4, 5.0)
NEXT = Lease("r", "b", 2, 1, 5.0, remaining=5.0)


class Crowd:
    """Three candidates of one process for the role "r". Those in `unable` cannot claim it."""

    def __init__(self, *unable: int) -> None:
        self.store, self.unable = Announced(), unable
        self.feed = SharedFeed(lambda: self.store, lambda: pytest.fail("no feed failed"))
        self.heard: list[list[tuple[Lease, int]]] = [[], [], []]
        self.leave = [self.feed.subscribe_candidate("r", self.listener(n)) for n in range(3)]

    def listener(self, number: int) -> CandidateListener:
        def hear(lease: Lease, local: int) -> bool:
            self.heard[number].append((lease, local))
            return number not in self.unable

        return hear

    async def show(self, lease: Lease, seconds: float = 0.001) -> None:
        self.store.rows.put_nowait(lease)
        await asyncio.sleep(seconds)


def test_one_candidate_hears_of_a_vacant_role_and_the_others_of_its_leader() -> None:
    async def main(machine: Machine) -> None:
        crowd = Crowd()
        watched: list[Lease] = []
        crowd.feed.subscribe("r", watched.append)
        await crowd.show(HELD, 0.1)
        assert crowd.heard == [[(HELD, 1)]] * 3
        await crowd.show(VACANT, TURN / 2)
        await crowd.show(NEXT)
        assert crowd.heard == [[(HELD, 1), (VACANT, 3), (NEXT, 1)], [(HELD, 1)], [(HELD, 1)]]
        assert watched == [HELD, VACANT, NEXT]  # who only watches hears of everything at once
        await asyncio.sleep(SETTLED)
        assert crowd.heard[0] == [(HELD, 1), (VACANT, 3), (NEXT, 1)]
        assert crowd.heard[1:] == [[(HELD, 1), (NEXT, 1)]] * 2
        await crowd.feed.close()

    virtual_time(main)


def test_the_others_hear_of_a_role_that_stays_vacant() -> None:
    async def main(machine: Machine) -> None:
        crowd = Crowd()
        await crowd.show(VACANT, 0.01)
        assert crowd.heard == [[(VACANT, 3)], [], []]
        await asyncio.sleep(TURN)
        assert crowd.heard == [[(VACANT, 3)], [(VACANT, 1)], [(VACANT, 1)]]
        await crowd.feed.close()

    virtual_time(main)


def test_a_candidate_that_cannot_claim_lets_the_next_one_go_first() -> None:
    async def main(machine: Machine) -> None:
        crowd = Crowd(0)
        await crowd.show(VACANT, 0.01)
        assert crowd.heard == [[(VACANT, 3)], [(VACANT, 3)], []]
        crowd.leave[1]()
        await crowd.show(NEXT)
        assert crowd.heard[:2] == [[(VACANT, 3), (NEXT, 1)], [(VACANT, 3)]]
        crowd.leave[0]()
        crowd.leave[2]()
        await asyncio.sleep(1)
        assert crowd.heard[2] == []
        await crowd.feed.close()

    virtual_time(main)


@pytest.mark.parametrize("terms", [1, 100])
def test_the_others_hear_although_rows_come_without_a_pause(terms: int) -> None:
    """One leader that renews often, or one leader after the other."""

    async def main(machine: Machine) -> None:
        crowd = Crowd()
        began = machine.world.time
        for number in range(100):
            token = 1 + number % terms
            if number < terms:
                await crowd.show(Lease("r", None, token, 0, 5.0), TURN / 2)
            led = Lease("r", "b", token + 1, 1 + number, 5.0, remaining=5.0)
            await crowd.show(led, TURN / 2)
            if crowd.heard[1]:
                break
        bound = SETTLED + TURN if terms == 1 else LONGEST_TURN + 2 * TURN
        assert machine.world.time - began <= bound
        assert crowd.heard[1] == crowd.heard[2]
        assert {local for _, local in crowd.heard[1]} == {1}
        await crowd.feed.close()

    virtual_time(main)


def test_all_candidates_hear_at_once_of_a_row_that_may_name_them() -> None:
    """A role that is reserved for a candidate waits for it a second at most."""

    async def main(machine: Machine) -> None:
        crowd, reserved = Crowd(), Lease("r", "c", 2, 0, 5.0, remaining=1.0)
        await crowd.show(VACANT, 0.01)
        await crowd.show(reserved)
        assert [rows[-1] for rows in crowd.heard] == [(reserved, 1)] * 3
        await asyncio.sleep(1)
        assert [len(rows) for rows in crowd.heard] == [2, 1, 1]
        await crowd.feed.close()

    virtual_time(main)
