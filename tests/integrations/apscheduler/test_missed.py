"""What becomes of fire times that passed before this process was elected, and of jobs in a store
that several processes share."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import STATE_RUNNING
from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from coord.integrations.apscheduler import LeaderBackgroundScheduler
from coord.integrations.apscheduler.missed import next_after
from coord.testing import ElectionKit
from tests.integrations.apscheduler.conftest import Ends, Make
from tests.support.waits import eventually

ROLE = "scheduler"
NOW = datetime.now(timezone.utc)
Stores = Callable[[], Any]


def work() -> None:
    """A job that a job store can name."""


def store_job(store: Any, job_id: str, due: datetime, **options: Any) -> None:
    """Store a job that fires every ten minutes, as a scheduler of the last leader left it."""
    plain = BackgroundScheduler(jobstores={"default": store}, timezone="UTC")
    plain.start(paused=True)
    options = options or {"trigger": "interval", "minutes": 10}
    plain.add_job(work, id=job_id, next_run_time=due, **options)
    plain.remove_jobstore("default")  # a scheduler that is shut down looks for due jobs once more
    plain.shutdown()


@pytest.mark.parametrize(
    ("missed", "grace", "coalesce", "ran", "were_missed"),
    [
        ("skip", None, False, 0, 0),
        ("once", 1, False, 1, 0),
        ("once", None, True, 1, 0),
        ("all", None, False, 3, 0),
        ("all", None, True, 1, 0),
        ("all", 1, True, 0, 1),
        ("all", 900, False, 2, 1),
    ],
)
def test_the_policies_on_a_shared_store(
    missed: str,
    grace: int | None,
    coalesce: bool,
    ran: int,
    were_missed: int,
    kit: ElectionKit,
    make: Make,
    shared: Stores,
) -> None:
    now = datetime.now(timezone.utc)
    due = now - timedelta(minutes=24)
    settings: dict[str, Any] = {"misfire_grace_time": grace, "coalesce": coalesce}
    store_job(shared(), "j", due, trigger="interval", minutes=10, **settings)
    store_job(shared(), "over", due, trigger="date", run_date=due)
    scheduler = make(missed=missed, jobstores={"default": shared()})
    ends = Ends(scheduler)
    scheduler.start()
    assert scheduler.leadership.wait(30)
    eventually(lambda: scheduler.get_job("over") is None)
    job = eventually(lambda: (current := scheduler.get_job("j")).next_run_time > now and current)
    eventually(lambda: len(ends.of("j")) == ran + were_missed)
    assert ends.of("j") == ["missed"] * were_missed + ["executed"] * ran
    expected = {"skip": [], "once": ["executed"], "all": ["missed"]}[missed]
    eventually(lambda: ends.of("over") == expected)
    if missed != "skip":  # the rhythm of the last leader goes on
        assert abs(job.next_run_time - (due + timedelta(minutes=30))) < timedelta(seconds=1)


def test_once_runs_late_only_what_was_missed(kit: ElectionKit, make: Make, shared: Stores) -> None:
    store_job(shared(), "j", datetime.now(timezone.utc) + timedelta(minutes=5))
    scheduler = make(missed="once", jobstores={"default": shared()})
    scheduler.start()
    eventually(lambda: scheduler.state == STATE_RUNNING)
    later = datetime.now(timezone.utc) - timedelta(minutes=30)
    ends = Ends(scheduler)
    scheduler.modify_job("j", next_run_time=later, coalesce=False)  # not at an election
    eventually(lambda: len(ends.of("j")) == 4)
    assert ends.of("j") == ["missed"] * 3 + ["executed"]


@pytest.mark.parametrize(
    "trigger",
    [
        IntervalTrigger(seconds=7, start_date=NOW - timedelta(days=3), timezone="UTC"),
        CronTrigger(minute="*/5", timezone="UTC"),
        CalendarIntervalTrigger(
            days=2, start_date=(NOW - timedelta(days=9)).date(), timezone="UTC"
        ),
        OrTrigger([CronTrigger(hour=3, timezone="UTC"), CronTrigger(hour=4, timezone="UTC")]),
    ],
    ids=lambda trigger: type(trigger).__name__,
)
def test_the_next_fire_time_is_after_now(trigger: Any) -> None:
    class Job:
        pass

    job: Any = Job()
    job.trigger = trigger
    moment = next_after(job, NOW)
    assert moment is not None
    assert moment > NOW


def test_what_has_ended_has_no_next_fire_time() -> None:
    class Job:
        pass

    job: Any = Job()
    job.trigger = DateTrigger(NOW - timedelta(seconds=1))
    assert next_after(job, NOW) is None
    past = NOW - timedelta(days=1)
    job.trigger = IntervalTrigger(seconds=7, end_date=past, timezone="UTC")
    assert next_after(job, NOW) is None


def add(scheduler: LeaderBackgroundScheduler, **options: Any) -> None:
    options = {"trigger": "interval", "seconds": 3600, "args": (), **options}
    scheduler.add_job(options.pop("func", work), id="j", replace_existing=True, **options)


def stored(shared: Stores) -> Any:
    """The job as its store has it."""
    plain = BackgroundScheduler(jobstores={"default": shared()}, timezone="UTC")
    plain.start(paused=True)
    try:
        return plain.get_job("j")
    finally:
        plain.remove_jobstore("default")
        plain.shutdown()


def test_a_standby_that_starts_moves_no_fire_time(
    kit: ElectionKit, make: Make, shared: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.occupy(ROLE)
    first = make(jobstores={"default": shared()})
    add(first)
    first.start()
    before = stored(shared)
    time.sleep(0.01)  # the trigger of the second scheduler begins later

    second = make(jobstores={"default": shared()})
    add(second)
    store = next(iter(second._jobstores.values())).inner
    with monkeypatch.context() as patch:
        # Nothing is written, so nothing that a leader writes meanwhile can be overwritten.
        patch.setattr(store, "update_job", None)
        second.start()
    assert stored(shared).next_run_time == before.next_run_time
    assert second.get_job("j").pending is False

    third = make(jobstores={"default": shared()})
    add(third, name="renamed")
    third.start()
    now = stored(shared)
    assert (now.name, now.next_run_time) == ("renamed", before.next_run_time)
    assert now.trigger.start_date == before.trigger.start_date


@pytest.mark.parametrize(
    "changed",
    [
        {"seconds": 1800},
        {"next_run_time": NOW + timedelta(seconds=5)},
        {"trigger": CronTrigger(minute=5, timezone="UTC"), "seconds": None},
        {"start_date": datetime(2100, 1, 1, tzinfo=timezone.utc)},
    ],
)
def test_another_trigger_or_time_is_taken(
    changed: dict[str, Any], kit: ElectionKit, make: Make, shared: Stores
) -> None:
    kit.occupy(ROLE)
    first = make(jobstores={"default": shared()})
    add(first)
    first.start()
    before = stored(shared)
    second = make(jobstores={"default": shared()})
    second.start()
    options = {"trigger": "interval", "seconds": 3600, **changed}
    options = {name: value for name, value in options.items() if value is not None}
    second.add_job(work, id="j", replace_existing=True, **options)
    assert stored(shared).next_run_time != before.next_run_time


def test_jobs_that_others_add_are_seen(kit: ElectionKit, make: Make, shared: Stores) -> None:
    scheduler = make(jobstores={"default": shared()}, look_every=0.05)
    ends = Ends(scheduler)
    scheduler.start()
    assert scheduler.leadership.wait(30)
    store_job(
        shared(), "added", datetime.now(timezone.utc), misfire_grace_time=None, trigger="date"
    )
    eventually(lambda: ends.of("added") == ["executed"])
