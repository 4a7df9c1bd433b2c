"""Jobs in memory: notes of the role say which runs have begun."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import STATE_RUNNING

import coord
from coord.integrations.apscheduler import LeaderAsyncIOScheduler, lead_scheduler
from coord.testing import ElectionKit, Fault
from tests.integrations.apscheduler.conftest import Ends, Make
from tests.support.waits import eventually, soon

ROLE = "scheduler"
KEY = "job default/j"


def ago(**units: int) -> datetime:
    return datetime.now(timezone.utc) - timedelta(**units)


def note(kit: ElectionKit, notes: dict[str, Any]) -> None:
    """Write notes as an earlier leader did."""
    lead = kit.coordinator.leadership(ROLE)
    term = lead.acquire(timeout=30)
    assert term is not None
    term.note(notes)
    lead.stop()


def work() -> None:
    """A job."""


@pytest.mark.parametrize(
    ("missed", "minutes", "runs"),
    [("skip", 24, 0), ("once", 24, 1), ("once", 5, 0), ("all", 24, 2), ("all", 5, 0)],
)
@pytest.mark.parametrize("early", [True, False])
def test_the_next_leader_goes_on_where_the_last_one_ended(
    missed: str, minutes: int, runs: int, early: bool, kit: ElectionKit, make: Make
) -> None:
    last = ago(minutes=minutes)
    note(kit, {KEY: last.timestamp()})
    scheduler = make(missed=missed)
    ends = Ends(scheduler)

    def add() -> None:
        scheduler.add_job(
            work, "interval", minutes=10, id="j", misfire_grace_time=None, coalesce=False
        )

    if early:
        add()
    scheduler.start()
    assert scheduler.leadership.wait(30)
    eventually(lambda: scheduler.state == STATE_RUNNING)
    if not early:  # after the election
        add()
    eventually(lambda: len(ends.of("j")) == runs)
    job = eventually(lambda: (current := scheduler.get_job("j")).next_run_time > ago() and current)
    assert ends.of("j") == ["executed"] * runs
    if missed != "skip":
        assert job.next_run_time == last + timedelta(
            minutes=10 * (runs if missed == "all" else 2 * runs) + 10
        )
        noted = kit.coordinator.notes(ROLE)[KEY]
        assert noted == (job.next_run_time - timedelta(minutes=10)).timestamp()


def test_a_job_that_runs_once_runs_on_one_leader(kit: ElectionKit, make: Make) -> None:
    date = ago(minutes=3)

    def elect(run_date: datetime, runs: int) -> Ends:
        scheduler = make(missed="once")
        ends = Ends(scheduler)
        scheduler.add_job(work, "date", run_date=run_date, id="j")
        scheduler.start()
        eventually(lambda: scheduler.state == STATE_RUNNING and not scheduler.get_jobs())
        eventually(lambda: len(ends.of("j")) >= runs)
        scheduler.shutdown()
        return ends

    first = elect(date, 1)
    assert first.of("j") == ["executed"]
    assert elect(date, 0).of("j") == []
    assert elect(ago(minutes=2), 1).of("j") == ["executed"]  # another date


def test_what_is_noted_runs_although_the_role_is_handed_over(kit: ElectionKit, make: Make) -> None:
    scheduler, ran = make(missed="once"), []
    ends = Ends(scheduler)
    scheduler.start()
    eventually(lambda: scheduler.state == STATE_RUNNING)
    kit.store.slow("renew", after=0.3)
    calls = len(kit.store.calls)
    scheduler.add_job(lambda: ran.append(1), "date", id="j")
    eventually(lambda: "renew" in kit.store.calls[calls:])  # the note is being written
    scheduler.leadership.step_down()
    assert ran == [1]
    eventually(lambda: ends.of("j") == ["executed"])
    assert "job default/j" in kit.coordinator.notes(ROLE)


def test_a_coroutine_job_is_noted(kit: ElectionKit) -> None:
    terms = []

    async def job() -> None:
        term = coord.require_term()
        terms.append(await term.notes_async())

    async def main() -> None:
        scheduler = LeaderAsyncIOScheduler(timezone="UTC", missed="once")
        scheduler.start()
        assert await asyncio.to_thread(scheduler.leadership.wait, 30)
        scheduler.add_job(job, "interval", minutes=1, id="j", next_run_time=ago(seconds=0))
        await soon(lambda: terms)
        scheduler.shutdown()
        await soon(lambda: not scheduler.running)

    asyncio.run(main())
    assert list(terms[0]) == [KEY]


def test_what_is_not_noted_does_not_run(kit: ElectionKit, make: Make) -> None:
    scheduler, ran = make(missed="once"), []
    ends = Ends(scheduler)
    scheduler.start()
    assert scheduler.leadership.wait(30)
    eventually(lambda: scheduler.state == STATE_RUNNING)
    kit.store.fail("renew", Fault.NOT_DONE, times=None)
    scheduler.add_job(lambda: ran.append(1), "date", id="j")
    eventually(lambda: not scheduler.get_jobs())
    assert ends.of("j") == []
    kit.lose(ROLE, coord.LossReason.EXPIRED)
    eventually(lambda: ends.of("j") == ["error"])
    assert ran == []


def test_an_id_that_other_processes_do_not_know_is_refused(kit: ElectionKit, make: Make) -> None:
    scheduler = make(missed="once")
    scheduler.start()
    with pytest.raises(coord.BadArgument, match=r"invalid id .* must be a name .*'work'"):
        scheduler.add_job(work, "interval", minutes=1)
    scheduler.add_job(work)  # it runs once, in this process
    skipping = make()
    skipping.start()
    skipping.add_job(work, "interval", minutes=1)
    plain = BackgroundScheduler(timezone="UTC")
    plain.start(paused=True)
    try:
        plain.add_job(work, "interval", minutes=1)
        with pytest.raises(coord.BadArgument, match="invalid id"):
            lead_scheduler(plain, missed="all")
        assert type(plain) is BackgroundScheduler
    finally:
        plain.shutdown()


def test_old_notes_make_room(kit: ElectionKit, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coord.core.kept.MAX_NOTES_BYTES", 400)
    note(kit, {"mine": "x" * 50, **{f"job default/{number}": 1e9 + number for number in range(10)}})
    scheduler = make(missed="once")
    ends = Ends(scheduler)
    name = "long" * 40
    scheduler.add_job(work, "date", id=name)
    scheduler.start()
    eventually(lambda: ends.of(name) == ["executed"])
    notes = kit.coordinator.notes(ROLE)
    assert notes.pop("mine")
    hashed = notes.keys() - {f"job default/{number}" for number in range(5, 10)}
    assert len(notes) == 6
    assert len(hashed) == 1


def test_what_a_leader_remembers_of_jobs_that_are_gone_is_bounded(
    kit: ElectionKit, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coord.core.kept.MAX_NOTES_BYTES", 400)
    scheduler = make(missed="once")
    ends = Ends(scheduler)
    scheduler.start()
    names = [f"one-time {number}" for number in range(40)]
    for name in names:
        scheduler.add_job(work, "date", id=name)
        eventually(lambda: ends.of(name) == ["executed"])  # noqa: B023 # it is called at once
    assert scheduler.get_jobs() == []
    notes, remembered = kit.coordinator.notes(ROLE), scheduler._missed_runs._last_runs
    assert remembered == notes
    assert 2 <= len(notes) <= 12
    assert f"job default/{names[-1]}" in notes


def test_a_note_that_is_no_time_keeps_nobody_from_leading(
    kit: ElectionKit, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    note(kit, {KEY: "noon", "job default/k": 1e300, "other": "text"})
    scheduler = make(missed="once")
    scheduler.add_job(work, "interval", minutes=10, id="j")
    scheduler.start()
    assert scheduler.leadership.wait(30)
    eventually(lambda: scheduler.state == STATE_RUNNING)
    ignored = [line for line in caplog.messages if "scheduler.note_ignored" in line]
    assert len(ignored) == 2
