"""What a new leader does about the fire times that passed before it was elected.

A job store that all processes share knows which runs have begun. Job stores in memory do not: for
their jobs, the leader notes the last fire time that it ran, and the next leader reads these notes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from datetime import datetime, timezone

from apscheduler.job import Job
from apscheduler.triggers.date import DateTrigger

from coord.core.kept import note_key, time_of
from coord.election.term import Term
from coord.errors import BadArgument, StoreUnavailable
from coord.integrations.apscheduler.stores import LeaderJobStore
from coord.runtime import log

POLICIES = ("skip", "once", "all")
PREFIX = "job "
"""The begin of the keys of notes about jobs."""
GENERATED_ID = re.compile(r"[0-9a-f]{32}")
"""The id of a job that its user gave none: another process has another one."""
RETRY = 0.2
"""Seconds until another try to write a note that the store did not answer."""


class MissedRuns:
    """Brings the fire times of all jobs up to date when this process is elected.

    Args:
        policy: "skip", "once" or "all".

    Raises:
        BadArgument: There is no such policy.
    """

    def __init__(self, policy: str) -> None:
        if policy not in POLICIES:
            raise BadArgument("missed", policy, 'must be "skip", "once" or "all"')
        self._policy = policy
        self._late: set[tuple[str, str]] = set()
        self._new: set[tuple[str, str]] = set()
        self._last_runs: dict[str, float] = {}
        """What the notes say. Those of removed jobs stay until the notes have no more room: other
        processes may still have such a job, and the next leader would repeat its run."""

    def added_while_leading(self, alias: str, job_id: str) -> None:
        """Leave the fire times of a job alone: it was added after the election, of which the
        scheduler has not heard yet."""
        self._new.add((alias, job_id))

    def lost(self) -> None:
        """Forget what belongs to the term that has ended."""
        self._new.clear()
        self._late.clear()

    def take_late(self, alias: str, job_id: str) -> bool:
        """Return whether the next run of a job is one that was missed, and forget that."""
        late = (alias, job_id) in self._late
        self._late.discard((alias, job_id))
        return late

    def needs_notes(self, store: LeaderJobStore) -> bool:
        """Return whether only notes tell which runs of the jobs in a store have begun."""
        return store.in_memory and self._policy != "skip"

    def check_id(self, store: LeaderJobStore, job: Job) -> None:
        """Check that other processes know a job by the same id, if that matters.

        Raises:
            BadArgument: The job has no id of its own.
        """
        if isinstance(job.trigger, DateTrigger) or not self.needs_notes(store):
            return
        if GENERATED_ID.fullmatch(job.id):
            raise BadArgument(
                "id",
                job.id,
                f"must be a name that the job {job.name!r} has in every process, because "
                f'missed="{self._policy}" compares its runs; pass id="…" to add_job, or use '
                'missed="skip"',
            )

    def bring_up_to_date(
        self, term: Term, stores: Mapping[str, LeaderJobStore], now: datetime
    ) -> None:
        """Move the fire times that passed, as the policy says.

        It runs under the new term, while the scheduler does not look for due jobs.
        """
        if any(self.needs_notes(store) for store in stores.values()):
            self._last_runs = _last_runs(term)
        for alias, store in stores.items():
            for job in store.get_all_jobs():
                if (alias, job.id) not in self._new:
                    self.catch_up(alias, store, job, now)
        self._new.clear()

    def catch_up(self, alias: str, store: LeaderJobStore, job: Job, now: datetime) -> None:
        """Move the fire times of one job that passed, as the policy says. A paused job stays as it
        is."""
        if job.next_run_time is None:
            return
        last = self._last_runs.get(_key(alias, job.id)) if self.needs_notes(store) else None
        if last is not None:
            due = first_after(job, datetime.fromtimestamp(last, timezone.utc), now)
            move(store, job, due)
            if due is None:
                return
        if job.next_run_time > now:
            return
        if self._policy == "skip":
            move(store, job, next_after(job, now))
        elif self._policy == "once":
            self._late.add((alias, job.id))

    def is_noted(self, store: LeaderJobStore, job: Job) -> bool:
        """Return whether the leader notes the runs of a job."""
        return self.needs_notes(store) and not GENERATED_ID.fullmatch(job.id)

    def note(self, term: Term, alias: str, job_id: str, run_time: datetime) -> None:
        """Note that a run begins, and return when that is stored.

        While the store does not answer, it tries again: a run that is not noted must not begin.

        Raises:
            LeadershipLost: The term is over. The run must not begin.
        """
        change = self._change(alias, job_id, run_time)
        while True:
            try:
                return term.note(change)
            except StoreUnavailable:
                term.lost.wait(RETRY)
                term.check()
            except BadArgument:
                if not (oldest := self._forget_oldest(change)):
                    raise
                change = {**oldest, **change}

    async def note_async(self, term: Term, alias: str, job_id: str, run_time: datetime) -> None:
        """Do what `note` does, from a coroutine."""
        change = self._change(alias, job_id, run_time)
        while True:
            try:
                return await term.note_async(change)
            except StoreUnavailable:
                await asyncio.sleep(RETRY)
                term.check()
            except BadArgument:
                if not (oldest := self._forget_oldest(change)):
                    raise
                change = {**oldest, **change}

    def _change(self, alias: str, job_id: str, run_time: datetime) -> dict[str, float | None]:
        key, last = _key(alias, job_id), run_time.timestamp()
        self._last_runs[key] = last
        return {key: last}

    def _forget_oldest(self, change: Mapping[str, float | None]) -> dict[str, float | None]:
        """Return the change that deletes the older half of the notes: a role has room for about a
        thousand of them, and jobs that run once leave theirs behind."""
        others = sorted(self._last_runs.keys() - change.keys(), key=self._last_runs.__getitem__)
        oldest = others[: (len(others) + 1) // 2]
        for key in oldest:
            del self._last_runs[key]
        return dict.fromkeys(oldest)


def _last_runs(term: Term) -> dict[str, float]:
    """Return the last run of each job in the notes. What is no time was written by somebody else:
    it counts as no note, so that it keeps nobody from leading."""
    last_runs = {}
    for key, last in term.notes().items():
        if not key.startswith(PREFIX):
            continue
        if (moment := time_of(last)) is not None:
            last_runs[key] = moment
        else:
            log.warning("scheduler.note_ignored", role=term.role, token=term.token, key=key)
    return last_runs


def _key(alias: str, job_id: str) -> str:
    return note_key(PREFIX, f"{alias}/{job_id}")


def first_after(job: Job, last: datetime, now: datetime) -> datetime | None:
    """Return the first fire time of a job after its run at `last`; None if there is none."""
    if isinstance(job.trigger, DateTrigger):  # it does not look at the time of the last run
        date: datetime = job.trigger.run_date
        return date if date > last else None
    moment: datetime | None = job.trigger.get_next_fire_time(last, now)
    return moment


def next_after(job: Job, now: datetime) -> datetime | None:
    """Return the first fire time of a job after `now`; None if there is none."""
    moment: datetime | None = job.trigger.get_next_fire_time(None, now)
    while moment is not None and moment <= now:
        moment = job.trigger.get_next_fire_time(moment, now)
    return moment


def move(store: LeaderJobStore, job: Job, next_run_time: datetime | None) -> None:
    """Give a job its next fire time, or remove it if its schedule has ended."""
    if next_run_time is None:
        store.remove_job(job.id)
    elif next_run_time != job.next_run_time:
        job._modify(next_run_time=next_run_time)
        store.update_job(job)
