"""`at_most` and `term.progress()`: a job that shows no progress loses the role, by the clock, and
others take over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

import coord
from coord import AsyncCoordinator, Coordinator, LossReason, Term, leader_only
from coord.core.operations import Renew, Result
from coord.core.timing import Instant
from coord.election.term import RunningJob, run_async_under_term
from coord.runtime import clock
from coord.runtime.threads import Latch
from coord.stores.memory.store import MemoryStore
from coord.testing import ElectionKit
from tests.support.store_time import RealTime

Two = tuple[Coordinator, Coordinator]


def term_here() -> Term:
    term = coord.current_term()
    assert term is not None
    return term


class Hanging:
    """A job that hangs in a plain function, until `go_on` is set, in a thread of its own."""

    def __init__(self) -> None:
        self.go_on, self.began = Latch(), Latch()
        self.terms: list[Term] = []

    def __call__(self) -> str:
        self.terms.append(term_here())
        self.began.set()
        self.go_on.wait(30)
        return "ended"


def test_a_plain_function_that_hangs_loses_the_role_and_another_takes_over(
    store_time: RealTime, two: Two, caplog: pytest.LogCaptureFixture
) -> None:
    hanging = Hanging()
    job = leader_only("job", coordinator=two[0], ttl=2, at_most=0.4, otherwise="wait")(hanging)
    results: list[Any] = []
    with caplog.at_level(logging.WARNING, "coord"):
        ended = store_time.start(lambda: results.append(job()))
        assert hanging.began.wait(5)
        term = hanging.terms[0]
        began = store_time.now()
        assert term.lost.wait(5)
        took = store_time.now() - began
        store_time.until(
            lambda: any("reason='no_progress'" in r.getMessage() for r in caplog.records),
            "not logged",
        )
    assert 0.3 < took < 1.9  # far from the ttl's end
    assert term.reason is LossReason.NO_PROGRESS
    assert not term.held
    with pytest.raises(coord.LeadershipLost, match="no_progress"):
        term.check()
    with pytest.raises(coord.LeadershipLost, match="no_progress"):
        term.progress()
    lease = two[1].leader("job")
    assert lease is not None  # not released: the job still runs
    assert lease.token == term.token
    rival = two[1].leadership("job", ttl=2)
    with rival:
        assert rival.wait(6)
        assert rival.term.token > term.token
        again = leader_only("job", coordinator=two[0], ttl=2)(hanging)
        assert again() is None  # skipped: somebody else leads, and the first call has not returned
    assert hanging.terms == [term]
    hanging.go_on.set()
    ended()
    assert results == ["ended"]


def test_this_process_does_not_claim_again_before_the_job_has_ended(
    store_time: RealTime, coordinator: Coordinator
) -> None:
    hanging = Hanging()
    job = leader_only("job", coordinator=coordinator, ttl=0.6, at_most=0.2, otherwise="wait")(
        hanging
    )
    ended = store_time.start(job)
    assert hanging.began.wait(5)
    assert hanging.terms[0].lost.wait(5)
    lead = coordinator.shared_leadership("job", 0.6)
    assert not lead.wait(1.5)  # longer than the lease and the rest
    hanging.go_on.set()
    ended()
    assert lead.wait(5)
    assert lead.term.token > hanging.terms[0].token


@pytest.mark.parametrize("otherwise", ["skip", "raise", "wait"])
def test_nor_does_another_call_when_each_call_claims(
    store_time: RealTime, coordinator: Coordinator, otherwise: Any
) -> None:
    hanging = Hanging()
    ended = store_time.start(
        leader_only(
            "job", coordinator=coordinator, ttl=0.4, at_most=0.1, otherwise="wait", scope="call"
        )(hanging)
    )
    assert hanging.began.wait(5)
    assert hanging.terms[0].lost.wait(5)
    store_time.sleep(0.5)  # the lease has run out
    timeout = 0.3 if otherwise == "wait" else None
    quick = leader_only(
        "job", coordinator=coordinator, ttl=0.4, scope="call", otherwise=otherwise, timeout=timeout
    )(term_here)
    if otherwise == "skip":
        assert quick() is None
    else:
        with pytest.raises(coord.NotLeader if otherwise == "raise" else coord.AcquireTimeout):
            quick()
    hanging.go_on.set()
    ended()
    again = leader_only(
        "job", coordinator=coordinator, ttl=5, scope="call", otherwise="wait", timeout=5
    )(term_here)()
    assert again.token > hanging.terms[0].token


def test_progress_keeps_the_role_and_the_end_of_the_call_ends_the_count(
    store_time: RealTime, coordinator: Coordinator
) -> None:
    @leader_only("job", coordinator=coordinator, ttl=3, at_most=0.8, otherwise="wait")
    def steady() -> Term:
        for _ in range(8):
            store_time.sleep(0.15)
            term_here().progress()
        return term_here()

    term = steady()
    assert term.held
    store_time.sleep(1.0)  # between calls nothing is counted
    assert term.held
    assert steady() is term


def test_progress_of_one_call_does_not_speak_for_another(
    store_time: RealTime, coordinator: Coordinator
) -> None:
    hanging = Hanging()
    ended = store_time.start(
        leader_only("job", coordinator=coordinator, ttl=3, at_most=0.4, otherwise="wait")(hanging)
    )
    assert hanging.began.wait(5)

    @leader_only("job", coordinator=coordinator, ttl=3, at_most=5, otherwise="wait")
    def lively() -> None:
        until = store_time.now() + 3
        while store_time.now() < until:
            term_here().progress()
            store_time.sleep(0.02)

    with pytest.raises(coord.LeadershipLost, match="no_progress"):
        lively()
    hanging.go_on.set()
    ended()


def test_a_thread_of_the_job_speaks_for_it_with_the_term_in_hand(
    store_time: RealTime, coordinator: Coordinator
) -> None:
    @leader_only("job", coordinator=coordinator, ttl=3, at_most=0.8, otherwise="wait")
    def by_threads() -> bool:
        term = term_here()

        def part() -> None:
            for _ in range(8):
                store_time.sleep(0.15)
                term.progress()

        store_time.start(part)()
        return term.held

    assert by_threads()


def test_run_and_leadership_take_it_too(store_time: RealTime, two: Two) -> None:
    reports: list[LossReason] = []
    hanging = Hanging()
    lead = two[0].leadership(
        "job", ttl=1, at_most=0.3, on_lost=lambda term, why: reports.append(why)
    )
    ended = store_time.start(lambda: lead.run(hanging))
    assert hanging.began.wait(5)
    assert hanging.terms[0].lost.wait(5)
    assert hanging.terms[0].reason is LossReason.NO_PROGRESS
    with two[1].leadership("job", ttl=1) as rival:
        assert rival.wait(5)
    hanging.go_on.set()
    ended()
    assert reports == [LossReason.NO_PROGRESS]

    with two[0].leadership(
        "other", ttl=3, at_most=0.8
    ) as held:  # the work is in the block: the count runs there
        assert held.wait(5)
        term = held.term
        for _ in range(8):
            store_time.sleep(0.15)
            term.progress()
        assert held.is_leader
        assert term.lost.wait(2)
        assert term.reason is LossReason.NO_PROGRESS


def test_a_coroutine_that_stands_still_is_cancelled(coordinator: Coordinator) -> None:
    @leader_only("job", coordinator=coordinator, ttl=3, at_most=0.3, otherwise="wait")
    async def stuck() -> None:
        await asyncio.sleep(30)

    with pytest.raises(coord.LeadershipLost, match="no_progress"):
        asyncio.run(stuck())


def test_it_is_by_the_clock_however_late_the_loop_is(store_time: RealTime) -> None:
    """The job blocks the very loop that would watch it: belief ends in time, and the reason is the
    right one."""

    async def main() -> None:
        reports: list[LossReason] = []
        async with store_time.async_coordinator(store=MemoryStore(now=store_time.total)) as c:
            lead = c.leadership(
                "r", ttl=1, at_most=0.3, on_lost=lambda term, why: reports.append(why)
            )
            observations: list[tuple[bool, bool]] = []

            def job() -> None:
                term = term_here()
                store_time.block(0.2)
                early = term.held
                store_time.block(0.2)
                observations.append((early, term.held))
                with pytest.raises(coord.LeadershipLost, match="no_progress"):
                    term.progress()  # too late: it does not bring the term back
                store_time.block(1)  # the lease's own deadline passes as well

            await lead.run(job)
            assert observations == [(True, False)]
            assert reports == [LossReason.NO_PROGRESS]

    store_time.run(main)


class Counting(MemoryStore):
    def __init__(self, now: Callable[[], float] = clock.total_seconds) -> None:
        super().__init__(now)
        self.renewals: list[float] = []

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        self.renewals.append(self._now())
        return await super().renew(renewals, timeout)


def test_a_late_loop_does_not_renew_first_and_look_afterwards(store_time: RealTime) -> None:
    async def main() -> None:
        store = Counting(store_time.total)
        async with store_time.async_coordinator(store=store) as c:
            lead = c.leadership("r", ttl=3, renew_every=0.3, at_most=0.5)
            await lead.start()
            assert await lead.wait(2)
            term = lead.term
            store_time.block(0.8)  # both the renewal and the look are overdue now
            before = len(store.renewals)
            await asyncio.wait_for(_lost(term), 2)
            await asyncio.sleep(0.5)
            assert term.reason is LossReason.NO_PROGRESS
            assert len(store.renewals) == before

    store_time.run(main)


def test_no_renewal_is_sent_for_a_job_that_stands_still_though_no_timer_has_said_so() -> None:
    ahead = 0.0

    async def main() -> None:
        nonlocal ahead
        store = Counting()
        async with AsyncCoordinator(store=store, now=lambda: clock.system_now().after(ahead)) as c:
            lead = c.leadership("r", ttl=6, renew_every=0.3, at_most=3)
            await lead.start()
            assert await lead.wait(2)
            term = lead.term
            ahead, before = 3.1, len(store.renewals)  # the timers do not know
            assert not term.held
            await asyncio.wait_for(_lost(term), 2)
            assert (term.reason, len(store.renewals)) == (LossReason.NO_PROGRESS, before)

    asyncio.run(main())


def test_it_is_reported_soon_although_the_next_renewal_is_far_away(
    store_time: RealTime, coordinator: Coordinator
) -> None:
    hanging = Hanging()
    ended = store_time.start(
        leader_only("job", coordinator=coordinator, ttl=60, at_most=0.2, otherwise="wait")(hanging)
    )
    assert hanging.began.wait(5)
    assert hanging.terms[0].lost.wait(3)
    hanging.go_on.set()
    ended()


async def _lost(term: Term) -> None:
    await term.lost


def test_a_job_that_moved_too_late_has_lost_though_nobody_looked() -> None:
    at = Instant(0.0, 0.0)
    term = Term("r", "me", 1, 100.0, lambda: at)
    job = RunningJob(term, 5.0)
    job.begin()
    at = at.after(4.9)
    assert term.held
    term.progress()
    at = at.after(4.9)
    assert term.held
    at = at.after(0.2)
    job.end()
    assert not term.held
    assert term.reason is LossReason.NO_PROGRESS
    assert not term._extend(200.0)


def test_a_sleeping_machine_is_no_hung_job() -> None:
    at = Instant(0.0, 0.0)
    term = Term("r", "me", 1, 100.0, lambda: at)
    job = RunningJob(term, 5.0)
    job.begin()
    at = Instant(1.0, 60.0)
    assert term.held
    assert term._extend(100.5)
    at = Instant(2.0, 101.0)
    assert term.reason is LossReason.EXPIRED


def test_whichever_ran_out_first_is_the_reason() -> None:
    at = Instant(0.0, 0.0)
    term = Term("r", "me", 1, 10.0, lambda: at)
    job = RunningJob(term, 12.0)
    job.begin()
    at = at.after(20.0)
    term._end(LossReason.STORE_UNREACHABLE)
    assert term.reason is LossReason.STORE_UNREACHABLE


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_term_that_no_candidate_knows_is_over_in_a_forked_child() -> None:
    term = Term("r", "me", 1, 100.0, lambda: Instant(0.0, 0.0))
    assert term.held
    pid = os.fork()
    if pid == 0:
        os._exit(0 if not term.held and term.reason is LossReason.FORKED else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert term.held


def test_many_watched_roles_cost_a_timer_each_and_no_traffic() -> None:
    store = Counting()
    coordinator = Coordinator(store=store)
    leads = [coordinator.leadership(f"r{n}", ttl=30, at_most=20) for n in range(500)]
    for lead in leads:
        lead.start()
    assert all(lead.wait(5) for lead in leads)
    began = time.process_time()
    terms = [lead.term for lead in leads]
    for _ in range(10):
        for term in terms:
            term.progress()
    assert time.process_time() - began < 1.0  # 5,000 calls; they wake nobody
    assert store.renewals == []
    coordinator.close()


@pytest.mark.parametrize("at_most", [0, -1, True, float("nan"), float("inf"), "5"])
def test_a_bad_at_most_is_refused_at_once(coordinator: Coordinator, at_most: Any) -> None:
    with pytest.raises(coord.BadArgument, match="at_most"):
        leader_only("job", at_most=at_most)
    with pytest.raises(coord.BadArgument, match="at_most"):
        coordinator.leadership("job", at_most=at_most)


def test_a_test_of_a_users_own_can_let_the_time_pass() -> None:
    coord_election = ElectionKit()

    @leader_only("job", ttl=30, at_most=600)
    def job() -> None:
        coord_election.advance(599, step=5)
        term_here().progress()
        coord_election.advance(599, step=5)
        assert term_here().held
        coord_election.advance(2)
        with pytest.raises(coord.LeadershipLost, match="no_progress"):
            term_here().progress()

    with coord_election.as_default():
        job()


@pytest.mark.parametrize("cancels", [1, 2])
def test_a_cancelled_job_is_counted_until_it_has_ended(cancels: int) -> None:
    async def job() -> None:
        running.append(1)
        try:
            for _ in range(4):
                with contextlib.suppress(asyncio.CancelledError):  # it cleans up
                    await asyncio.sleep(0)
        finally:
            running.pop()

    async def interrupted_after(turns: int) -> None:
        term, idle = Term("r", "me", 1, deadline=float("inf")), []
        call = asyncio.ensure_future(run_async_under_term(term, None, job))
        for _ in range(turns):
            await asyncio.sleep(0)
        for _ in range(cancels):
            call.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(call, return_exceptions=True)
        term._on_idle(lambda: idle.append(list(running)))
        for _ in range(20):
            await asyncio.sleep(0)
        assert idle == [[]], f"after {turns} turns"

    running: list[int] = []

    async def main() -> None:
        for turns in range(15):
            await interrupted_after(turns)

    asyncio.run(main())
