"""Candidates that wait are listed, at a query a ttl; and nothing that happens to the list happens
to a leadership."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import pytest

import coord
from coord import AsyncCoordinator, BadArgument, Candidate, StoreRefused, StoreUnavailable
from coord.core.announcements import Announcement, by_priority
from coord.election import jitter
from coord.election.announcements import CandidateAnnouncer
from coord.runtime.clock import total_seconds
from coord.stores.memory.announcements import MemoryAnnouncements
from coord.stores.memory.store import MemoryStore
from coord.testing.clocks import Machine, run
from tests.support.store_time import RealTime

_names = itertools.count()
"""Each test has a role of its own: the database is shared."""


class Spied(MemoryAnnouncements):
    """Counts its queries, and fails as told.

    Args:
        now: The clock by which announcements expire.
    """

    def __init__(self, now: Callable[[], float] = total_seconds) -> None:
        super().__init__(now)
        self.posts: list[tuple[float, list[Announcement]]] = []
        self.withdrawals: list[set[str]] = []
        self.fault: Exception | None = None

    async def post(self, notices: Any, timeout: float) -> dict[str, int]:
        self.posts.append((loop_time(), list(notices)))
        if self.fault is not None:
            raise self.fault
        return await super().post(notices, timeout)

    async def withdraw(self, keys: Any, timeout: float) -> None:
        self.withdrawals.append(set(keys))
        if self.fault is not None:
            raise self.fault
        await super().withdraw(keys, timeout)


class Store(MemoryStore):
    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.its = Spied(now)

    def announcements(self) -> Spied:
        return self.its


def on_one(body: Callable[[Store, AsyncCoordinator, AsyncCoordinator], Awaitable[None]]) -> Store:
    """Two coordinators, `leader` and `crowd`, on one store and on virtual time."""
    stores: list[Store] = []

    async def main(machine: Machine) -> None:
        store = Store(lambda: machine.now().total)
        stores.append(store)
        leader, crowd = (AsyncCoordinator(store=store, now=machine.now) for _ in range(2))
        try:
            await asyncio.wait_for(body(store, leader, crowd), 60)
        finally:
            await crowd.close()
            await leader.close()

    run(main)
    return stores[0]


async def until(what: Callable[[], Any], otherwise: str) -> None:
    """Wait on virtual time until `what` is true, at most for a minute."""
    for _ in range(6_000):
        if what():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(otherwise)


def loop_time() -> float:
    return asyncio.get_running_loop().time()


def test_who_waits_is_seen_by_another(store_time: RealTime, url: str) -> None:
    ttl, role = 5.0, f"importer-{next(_names)}"
    eventually = store_time.until
    with (
        store_time.coordinator(url) as first,
        store_time.coordinator(url) as second,
        store_time.coordinator(url) as watcher,
    ):
        leads = first.leadership(role, ttl=ttl)
        assert leads.candidate is None
        assert leads.acquire(timeout=10)
        before = time.time()
        old = second.leadership(role, ttl=ttl, info={"host": "b"})
        old.start()
        eventually(lambda: watcher.candidates(role), "one waits")
        urgent = second.leadership(role, ttl=ttl, priority=5, info={"host": "c"})
        urgent.start()
        eventually(lambda: len(watcher.candidates(role)) == 2, "both")
        candidates = watcher.candidates(role)
        assert [(row.id, row.priority, row.info) for row in candidates] == [
            (urgent.candidate, 5, {"host": "c", "pid": os.getpid()}),
            (old.candidate, 0, {"host": "b", "pid": os.getpid()}),
        ]
        assert all(row.role == role and abs(row.since - before) < 30 for row in candidates)
        assert leads.candidate not in {
            candidate.id for candidate in watcher.candidates()
        }  # it is in the lease
        leads.stop()
        assert leads.candidate is None
        elected = eventually(
            lambda: next((item for item in (old, urgent) if item.is_leader), None), "a takeover"
        )
        other = old if elected is urgent else urgent
        eventually(
            lambda: seen_by(watcher, role) == [other.candidate],
            "who was elected is not listed any more",
        )
        other.stop()
        eventually(lambda: seen_by(watcher, role) == [], "nor is who stopped")


def seen_by(watcher: coord.Coordinator, role: str) -> list[str]:
    return [candidate.id for candidate in watcher.candidates(role)]


def test_a_coordinator_that_closes_withdraws_its_announcements(
    store_time: RealTime, url: str
) -> None:
    role = f"closing-{next(_names)}"
    with store_time.coordinator(url) as first, store_time.coordinator(url) as watcher:
        assert first.leadership(role, ttl=5).acquire(timeout=10)
        with store_time.coordinator(url) as second:
            second.leadership(role, ttl=5).start()
            store_time.until(lambda: watcher.candidates(role), "one waits")
        assert watcher.candidates(role) == []


def test_it_stays_listed_and_runs_out_with_its_process() -> None:
    async def body(store: Store, leader: AsyncCoordinator, crowd: AsyncCoordinator) -> None:
        assert await leader.leadership("r", ttl=60).acquire(timeout=10)
        waits = crowd.leadership("r", ttl=0.3)
        await waits.start()
        await until(lambda: len(store.its.posts) >= 5, "refreshed")
        ids = [
            [candidate.id for candidate in await leader.candidates("r")]
            for _ in range(5)
            if not await asyncio.sleep(0.1)
        ]
        assert [waits.candidate] in ids
        crowd.session._announcer._task.cancel()  # type: ignore[union-attr] # as if the process had been killed
        await asyncio.sleep(1.2)
        assert await leader.candidates() == []

    on_one(body)


def test_a_thousand_standbys_cost_a_query_a_ttl() -> None:
    ttl = 1.0

    async def body(store: Store, leader: AsyncCoordinator, crowd: AsyncCoordinator) -> None:
        assert await leader.leadership("r", ttl=60).acquire(timeout=10)
        for part in range(10):  # not all at one moment
            await asyncio.gather(*(crowd.leadership("r", ttl=ttl).start() for _ in range(100)))
            await asyncio.sleep(0.03 * part)
        await until(
            lambda: len({item.key for _, posted in store.its.posts for item in posted}) == 1_000,
            "listed",
        )
        await until(lambda: len(store.its.posts[-1][1]) == 1_000, "all go together")
        begun, many = loop_time(), len(store.its.posts)
        await until(lambda: len(store.its.posts) >= many + 3, "three rounds")
        assert loop_time() - begun > ttl - 0.1  # half a ttl apart at least, where rounds come late
        assert [len(posted) for _, posted in store.its.posts[many:]] == [1_000] * 3
        assert store.its.withdrawals == []
        assert len(await leader.candidates("r")) == 1_000
        assert not any(item.urgent for _, posted in store.its.posts for item in posted)

    store = on_one(body)
    assert sum(len(keys) for keys in store.its.withdrawals) == 1_000
    assert len(store.its.withdrawals) < 20


def test_held_roles_cost_nothing() -> None:
    async def body(store: Store, leader: AsyncCoordinator, crowd: AsyncCoordinator) -> None:
        leads = [leader.leadership(f"r{n}", ttl=60) for n in range(500)]
        await asyncio.gather(*(lead.acquire(timeout=10) for lead in leads))
        await asyncio.sleep(1.5)

    store = on_one(body)
    assert store.its.posts == store.its.withdrawals == []


def test_who_comes_and_goes_at_once_is_never_posted() -> None:
    async def body(store: Store, leader: AsyncCoordinator, crowd: AsyncCoordinator) -> None:
        assert await leader.leadership("r", ttl=30.0).acquire(timeout=10)
        for _ in range(20):
            assert await crowd.leadership("r", ttl=30.0).acquire(blocking=False) is None
        await asyncio.sleep(1.2)
        waits = crowd.leadership("r", ttl=1.0)
        await waits.start()
        await until(lambda: store.its.posts, "the next is listed all the same")

    store = on_one(body)
    assert {item.ttl for _, posted in store.its.posts for item in posted} == {3.0}


def test_the_first_post_does_not_wait_for_a_ttl() -> None:
    async def body(store: Store, leader: AsyncCoordinator, crowd: AsyncCoordinator) -> None:
        assert await leader.leadership("r", ttl=600.0).acquire(timeout=10)
        await crowd.leadership("r", ttl=600.0, priority=1).start()
        begun = loop_time()
        await until(lambda: store.its.posts, "posted")
        assert 0.9 < store.its.posts[0][0] - begun < 1.6
        (posted,) = store.its.posts[0][1]
        assert (posted.urgent, posted.kind, posted.role) == (True, "candidate", "r")
        await crowd.leadership("r", ttl=1.0).start()  # the next round would be minutes away
        await until(lambda: len(store.its.posts) >= 2, "nor for another's")

    on_one(body)


def test_one_goes_and_another_comes_at_the_same_moment() -> None:
    async def main(machine: Machine) -> None:
        board, counts = Spied(lambda: machine.now().total), list[int]()
        a, b = Candidate("r", "a"), Candidate("r", "b")
        waiting = CandidateAnnouncer(lambda: board)
        end = waiting.add(a, 5.0, counts.append)
        await asyncio.sleep(0.05)
        end()
        waiting.add(b, 1.0, counts.append)
        await until(lambda: board.posts, "posted")
        again = waiting.add(a, 1.0, counts.append)
        await until(lambda: len(board.posts) >= 2, "posted, too")
        again()
        waiting.add(a, 1.0, counts.append)  # elected, and lost at once: not to be withdrawn
        await asyncio.sleep(0.5)
        assert board.withdrawals == []
        assert {item.key for item in board._unexpired()} == {a.key, b.key}
        assert set(counts) == {1, 2}  # how many wait, told to all of them
        await waiting.close()
        assert board.withdrawals == [{a.key, b.key}]

    run(main)


@pytest.mark.parametrize(
    "fault",
    [StoreUnavailable("the board is down"), StoreRefused("no board"), RuntimeError("a defect")],
)
def test_announcements_that_fail_cost_no_leadership(
    fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(store: Store, leader: AsyncCoordinator, crowd: AsyncCoordinator) -> None:
        store.its.fault = fault
        leads = leader.leadership("r", ttl=60)
        assert await leads.acquire(timeout=10)
        waits = crowd.leadership("r", ttl=0.5)
        await waits.start()
        await until(lambda: len(store.its.posts) >= 4, "tried again")
        assert leads.is_leader
        await leads.stop()
        assert await waits.wait(10)
        store.its.fault = None
        late = crowd.leadership("r", ttl=0.5)
        await late.start()
        await until(lambda: store.its._unexpired(), "listed when the board is back")
        assert {candidate.id for candidate in await leader.candidates("r")} <= {
            late.candidate,
            waits.candidate,
        }

    with caplog.at_level(logging.WARNING, "coord"):
        on_one(body)
    output = [record.message.split()[0] for record in caplog.records]
    assert [event for event in output if event.startswith("announcements.")] == [
        "announcements.not_stored"
    ]


def test_announcements_that_hang_delay_no_leadership() -> None:
    class Hung(Spied):
        async def post(self, notices: Any, timeout: float) -> None:
            self.posts.append((timeout, list(notices)))
            await asyncio.sleep(timeout)
            raise StoreUnavailable("no answer")

    async def body(store: Store, leader: AsyncCoordinator, crowd: AsyncCoordinator) -> None:
        store.its = Hung()
        leads = leader.leadership("r", ttl=60.0)
        assert await leads.acquire(timeout=10)
        waits = crowd.leadership("r", ttl=60.0)
        await waits.start()
        await until(lambda: store.its.posts, "posted, with no answer")
        await leads.stop()
        assert await waits.wait(4)
        begun = loop_time()
        await waits.stop()
        assert loop_time() - begun < 2
        assert store.its.posts[0][0] <= 5

    on_one(body)


class Boardless(MemoryStore):
    def announcements(self) -> NoReturn:
        raise BadArgument("store", self, "a store with announcements")


def test_a_store_without_announcements() -> None:
    async def main(machine: Machine) -> None:
        store = Boardless(now=lambda: machine.now().total)
        async with (
            AsyncCoordinator(store=store, now=machine.now) as leader,
            AsyncCoordinator(store=store, now=machine.now) as crowd,
        ):
            leads, waits = leader.leadership("r", ttl=5), crowd.leadership("r", ttl=5)
            assert await leads.acquire(timeout=10)
            await waits.start()
            await asyncio.sleep(0.7)
            await leads.stop()
            assert await waits.wait(10)
            with pytest.raises(BadArgument, match="announcements"):
                await crowd.candidates()

    run(main)


@pytest.mark.parametrize("bad", [1001, -1001, 0.5, "1", None, True])
def test_invalid_priorities(bad: object) -> None:
    with coord.Coordinator("memory://") as c:
        with pytest.raises(BadArgument, match=r"invalid priority .*from -1000 to 1000"):
            c.leadership("r", priority=bad)
        assert c.leadership("r", priority=-1000).inner.options.priority == -1000
        with pytest.raises(BadArgument, match="role"):
            c.candidates("")


def test_order_and_what_no_candidate_wrote() -> None:
    candidates = [Candidate("r", name, {"n": 1}, priority, since) for name, priority, since in
             [("c", 0, 2.0), ("b", 0, 1.0), ("a", 5, 9.0), ("d", -1, 0.0)]]  # fmt: skip
    notices = [item.announcement(60.0) for item in candidates]
    bad: list[dict[str, Any]] = [
        {},
        {"candidate": 7, "info": {}, "priority": 0, "since": 0.0},
        {"candidate": "x", "info": [], "priority": 0, "since": 0.0},
        {"candidate": "x", "info": {}, "priority": "high", "since": 0.0},
        {"candidate": "x", "info": {}, "priority": True, "since": 0.0},
        {"candidate": "x", "info": {}, "priority": 0, "since": None},
    ]
    notices += [Announcement(f"bad{n}", "r", "candidate", body, 60.0) for n, body in enumerate(bad)]
    notices.append(Announcement("asked", "r", "request", notices[0].body, 60.0))
    assert [item.id for item in by_priority(notices)] == ["a", "b", "c", "d"]
    assert by_priority(notices)[0] == candidates[2]
    assert [notice.urgent for notice in notices[:4]] == [False, False, True, False]


@pytest.mark.parametrize("ttl", [0.1, 7.3, 30.0, 2_678_400.0])
def test_when_candidates_of_one_ttl_are_posted_again(ttl: float) -> None:
    waiting = CandidateAnnouncer(MemoryAnnouncements)
    moments = [waiting._next_round(ttl, 1_000.0 + n * ttl / 100) for n in range(300)]
    assert all(0.49 < (moment - 1_000.0) / ttl - n / 100 < 1.51 for n, moment in enumerate(moments))
    assert len({round(moment / ttl, 6) for moment in moments}) <= 4  # in a ttl all go at one moment


@pytest.mark.parametrize("number", [1, 2, 5, 30, 60, 100, 200])
def test_of_many_that_wait_few_ask_before_they_can_have_heard(number: int) -> None:
    """What the draw is for: a first one soon, and few within the time that the word of it takes."""
    word, chance = 0.006, random.Random(number)
    for at, soon_enough in ((jitter.takeover_delay, 0.1), (jitter.release_delay, 0.06)):
        first, request = [], []
        for _ in range(200):
            delays = sorted(at(30.0, chance.random(), number) for _ in range(number))
            assert delays[-1] <= 0.3
            first.append(delays[0])
            request.append(sum(item <= delays[0] + word for item in delays))
        assert sum(first) / 200 < soon_enough
        if at is jitter.release_delay:
            assert sorted(first)[120] == 0.0  # in most handovers somebody claims at once
        assert sum(request) / 200 <= (3 if at is jitter.takeover_delay else 5)


@pytest.mark.parametrize("processes", [1, 2, 4, 8, 20])
def test_of_processes_with_many_candidates_few_claim_at_once(processes: int) -> None:
    """One candidate of each goes first, so that more of them may do so than of single ones."""
    chance, at_once = random.Random(processes), []
    for _ in range(500):
        drawn = (
            jitter.release_delay(30.0, chance.random(), 200, 200 // processes)
            for _ in range(processes)
        )
        at_once.append(sum(delay == 0.0 for delay in drawn))
    assert sum(number == 0 for number in at_once) < 500 * 0.3
    assert 1 <= sum(at_once) / 500 <= 2.2


def test_who_is_alone_lets_nobody_go_first() -> None:
    assert jitter.takeover_delay(30.0, 0.9, 1) == jitter.release_delay(30.0, 0.9, 1) == 0.0
    assert jitter.release_delay(30.0, 0.9, None) == 0.0
    assert 0 < jitter.takeover_delay(30.0, 0.9, None) < 0.1
    assert jitter.takeover_delay(0.1, 1.0, 200) <= 0.011
