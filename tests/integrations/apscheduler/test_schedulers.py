"""Jobs run on the leader, under its term, and end before the next leader begins."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest
from apscheduler.executors.base import BaseExecutor
from apscheduler.executors.pool import ProcessPoolExecutor, ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

import coord
from coord import LossReason
from coord.integrations.apscheduler import (
    LeaderAsyncIOScheduler,
    LeaderBlockingScheduler,
    lead_scheduler,
)
from coord.testing import ElectionKit
from tests.integrations.apscheduler.conftest import Ends, Make
from tests.support.waits import eventually, soon

ROLE = "scheduler"


class Work:
    """A job that lasts until it may end."""

    def __init__(self) -> None:
        self.terms: list[coord.Term | None] = []
        self.may_end = threading.Event()
        self.ended = 0

    def __call__(self) -> None:
        self.terms.append(coord.current_term())
        assert self.may_end.wait(30)
        self.ended += 1


def test_jobs_run_on_the_leader_only_and_under_its_term(kit: ElectionKit, make: Make) -> None:
    kit.occupy(ROLE)
    scheduler, terms = make(), []
    ends = Ends(scheduler)
    scheduler.start()
    scheduler.add_job(lambda: terms.append(coord.current_term()), id="now", misfire_grace_time=None)
    assert not scheduler.leadership.wait(0.1)
    assert scheduler.get_jobs()
    scheduler.remove_job("now")

    kit.win(ROLE)
    scheduler.add_job(lambda: terms.append(coord.current_term()), id="now")
    eventually(lambda: ends.of("now") == ["executed"])
    assert [term.token for term in terms] == [scheduler.leadership.term.token]


def test_queued_jobs_do_not_start_after_a_loss(kit: ElectionKit, make: Make) -> None:
    scheduler = make(executors={"default": ThreadPoolExecutor(1)})
    work, ends = [Work(), Work(), Work()], Ends(scheduler)
    scheduler.start()
    assert scheduler.leadership.wait(30)
    for number, first in enumerate(work):
        scheduler.add_job(first, id=str(number), misfire_grace_time=None)
    eventually(lambda: work[0].terms and not scheduler.get_jobs())  # all three were submitted
    kit.lose(ROLE)
    for item in work:
        item.may_end.set()
    eventually(lambda: len(ends.events) == 3)
    assert [ends.of(str(number)) for number in range(3)] == [["executed"], ["missed"], ["missed"]]
    assert [item.ended for item in work] == [1, 0, 0]


def test_a_handover_waits_for_a_plain_job(kit: ElectionKit, make: Make) -> None:
    scheduler, work = make(), Work()
    scheduler.start()
    assert scheduler.leadership.wait(30)
    scheduler.add_job(work, id="long")
    eventually(lambda: work.terms)
    other = kit.coordinator.leadership(ROLE)
    other.start()
    stepping = threading.Thread(target=scheduler.leadership.step_down, daemon=True)
    stepping.start()
    eventually(lambda: not scheduler.leadership.is_leader)
    assert not other.wait(0.1)
    assert stepping.is_alive()
    work.may_end.set()
    assert other.wait(30)
    assert work.ended == 1
    stepping.join(30)
    other.stop()


def test_a_coroutine_job_is_cancelled_at_the_loss(
    kit: ElectionKit, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Any] = []

    async def forever() -> None:
        calls.append(coord.current_term())
        try:
            await asyncio.Event().wait()
        finally:
            calls.append("ended")

    async def main() -> Ends:
        scheduler = LeaderAsyncIOScheduler(timezone="UTC")
        ends = Ends(scheduler)
        scheduler.start()
        assert await asyncio.to_thread(scheduler.leadership.wait, 30)
        scheduler.add_job(forever, id="coroutine")
        scheduler.add_job(lambda: calls.append(coord.current_term()), id="plain")
        await soon(lambda: len(calls) == 2)
        await asyncio.to_thread(kit.lose, ROLE)
        await soon(lambda: ends.of("coroutine"))
        scheduler.shutdown()
        await soon(lambda: not scheduler.running)
        return ends

    ends = asyncio.run(main())
    assert calls[0] is calls[1] is not None
    assert calls[2] == "ended"
    assert ends.of("coroutine") == ["error"]
    (event,) = (event for event in ends.events if event.job_id == "coroutine")
    assert isinstance(event.exception, coord.LeadershipLost)


def test_at_most_watches_each_run_and_not_the_time_between(kit: ElectionKit, make: Make) -> None:
    scheduler, work = make(at_most=5), Work()
    scheduler.start()
    assert scheduler.leadership.wait(30)
    kit.advance(20)
    assert scheduler.leadership.is_leader
    scheduler.add_job(work)
    eventually(lambda: work.terms)
    term = scheduler.leadership.term
    kit.advance(6)
    assert not scheduler.leadership.is_leader
    assert term.reason is LossReason.NO_PROGRESS
    work.may_end.set()


def test_an_executor_of_other_processes_is_refused(kit: ElectionKit, make: Make) -> None:
    with pytest.raises(coord.BadArgument, match="invalid executor 'ProcessPoolExecutor': must run"):
        make(executors={"default": {"type": "processpool", "max_workers": 1}})
    with pytest.raises(coord.BadArgument, match="ThreadPoolExecutor"):
        make().add_executor("processpool", "other", max_workers=1)
    plain = BackgroundScheduler(executors={"p": ProcessPoolExecutor(1)}, timezone="UTC")
    with pytest.raises(coord.BadArgument, match="ThreadPoolExecutor"):
        lead_scheduler(plain)
    assert type(plain) is BackgroundScheduler
    assert type(plain._executors["p"]) is ProcessPoolExecutor


def test_pause_and_resume_belong_to_the_user(kit: ElectionKit, make: Make) -> None:
    scheduler, ran = make(), threading.Event()
    scheduler.start(paused=True)
    assert scheduler.leadership.wait(30)
    scheduler.add_job(ran.set, misfire_grace_time=None)
    assert not ran.wait(0.1)
    kit.lose(ROLE)
    scheduler.resume()  # it does not lead
    assert not ran.wait(0.1)
    scheduler.pause()
    kit.win(ROLE)
    scheduler.add_job(ran.set, misfire_grace_time=None)
    assert not ran.wait(0.1)
    scheduler.resume()
    assert ran.wait(30)


def test_shutdown_waits_and_gives_the_role_back_first(kit: ElectionKit, make: Make) -> None:
    scheduler, work = make(), Work()
    scheduler.start()
    assert scheduler.leadership.wait(30)
    scheduler.add_job(work)
    eventually(lambda: work.terms)
    ending = threading.Thread(target=scheduler.shutdown, daemon=True)
    ending.start()
    eventually(lambda: not scheduler.leadership.is_leader)
    assert scheduler.running
    work.may_end.set()
    ending.join(30)
    assert not scheduler.running
    assert kit.coordinator.leader(ROLE) is None


def test_a_blocking_scheduler_leads_while_it_blocks(kit: ElectionKit) -> None:
    scheduler, terms = LeaderBlockingScheduler(timezone="UTC", role="b", missed="all"), []

    def job() -> None:
        terms.append(coord.current_term())
        threading.Thread(target=scheduler.shutdown, daemon=True).start()

    scheduler.add_job(job, misfire_grace_time=None)
    running = threading.Thread(target=scheduler.start, daemon=True)
    running.start()
    running.join(30)
    assert not running.is_alive()
    assert [term.role for term in terms] == ["b"]


def test_a_scheduler_of_somebody_else(kit: ElectionKit) -> None:
    scheduler, terms = BackgroundScheduler(timezone="UTC"), []
    scheduler.start()
    try:
        kit.occupy("r")
        lead = lead_scheduler(scheduler, "r", ttl=5)
        assert lead is scheduler.leadership
        assert lead.timing.ttl == 5
        scheduler.add_job(
            lambda: terms.append(coord.current_term()), "interval", seconds=0.05, id="j"
        )
        assert not lead.wait(0.2)
        assert not terms
        kit.win("r")
        eventually(lambda: terms)
        assert terms[0].role == "r"
        with pytest.raises(coord.BadArgument, match="no LeaderScheduler yet"):
            lead_scheduler(scheduler, "r")
    finally:
        scheduler.shutdown()


def test_a_scheduler_that_was_paused_by_its_user_stays_paused(kit: ElectionKit) -> None:
    scheduler, ran = BackgroundScheduler(timezone="UTC"), threading.Event()
    scheduler.start(paused=True)
    try:
        lead = lead_scheduler(scheduler)
        assert lead.wait(30)
        scheduler.add_job(ran.set, misfire_grace_time=None)
        assert not ran.wait(0.1)
        scheduler.resume()
        assert ran.wait(30)
    finally:
        scheduler.shutdown()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("role", ""),
        ("ttl", -1),
        ("missed", "twice"),
        ("look_every", 0),
        ("at_most", 0),
        ("coordinator", "sqlite:///x"),
    ],
)
def test_invalid_settings(argument: str, value: object, kit: ElectionKit, make: Make) -> None:
    with pytest.raises(coord.BadArgument, match=f"invalid {argument}"):
        make(**{argument: value})
    plain = BackgroundScheduler(timezone="UTC")
    with pytest.raises(coord.BadArgument, match=f"invalid {argument}"):
        lead_scheduler(plain, **{argument: value})
    assert type(plain) is BackgroundScheduler
    with pytest.raises(coord.BadArgument, match="invalid scheduler 'x'"):
        lead_scheduler("x")


class Losing(BaseExecutor):
    """An executor under which the role is lost."""

    def __init__(self, kit: ElectionKit) -> None:
        super().__init__()
        self.kit = kit
        self.jobs: list[Any] = []

    def _do_submit_job(self, job: Any, run_times: Any) -> None:
        self.jobs.append(job)
        self.kit.lose(ROLE)


def test_a_pass_that_loses_the_role_writes_nothing_more(
    kit: ElectionKit, make: Make, shared: Any
) -> None:
    executor = Losing(kit)
    scheduler = make(jobstores={"default": shared()}, executors={"default": executor})
    scheduler.start(paused=True)
    assert scheduler.leadership.wait(30)
    job = scheduler.add_job(print, "interval", seconds=0.05, id="j", misfire_grace_time=None)
    before = scheduler.get_job("j").next_run_time
    assert before == job.next_run_time
    scheduler.resume()
    eventually(lambda: executor.jobs)
    kit.coordinator.leadership("other").acquire(timeout=30)
    eventually(lambda: not scheduler.leadership.is_leader)
    assert scheduler.get_job("j").next_run_time == before
    assert executor.jobs[0].misfire_grace_time < 0  # a worker counts it as missed


def test_a_job_store_that_fails_ends_nothing(
    kit: ElectionKit, make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler, runs = make(jobstore_retry_interval=0.05), []
    scheduler.start()
    assert scheduler.leadership.wait(30)
    store = scheduler._jobstores["default"].inner
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):

        def fail(job: Any) -> None:
            raise OSError("disk full")

        patch.setattr(store, "update_job", fail)
        scheduler.add_job(lambda: runs.append(1), "interval", seconds=0.05)
        eventually(lambda: "scheduler.pass_failed role='scheduler'" in caplog.text)
        assert "disk full" in caplog.text
    ran = len(runs)
    eventually(lambda: len(runs) > ran + 1)
    assert scheduler.leadership.is_leader
