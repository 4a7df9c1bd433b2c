"""What a new leader does about the fire times that passed before it was elected."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from apscheduler.job import Job

from coord.errors import BadArgument
from coord.integrations.apscheduler.stores import LeaderJobStore

POLICIES = ("skip", "once", "all")


def validate_policy(missed: str) -> str:
    """Return `missed`.

    Raises:
        BadArgument: There is no such policy.
    """
    if missed not in POLICIES:
        raise BadArgument("missed", missed, 'must be "skip", "once" or "all"')
    return missed


class MissedRuns:
    """Brings the fire times of all jobs up to date when this process is elected.

    Args:
        policy: "skip", "once" or "all".

    Attributes:
        policy: See above.
    """

    def __init__(self, policy: str) -> None:
        self.policy = validate_policy(policy)
        self._late: set[tuple[str, str]] = set()

    def take_late(self, alias: str, job_id: str) -> bool:
        """Return whether the next run of a job is one that was missed, and forget that."""
        late = (alias, job_id) in self._late
        self._late.discard((alias, job_id))
        return late

    def bring_up_to_date(self, stores: Mapping[str, LeaderJobStore], now: datetime) -> None:
        """Move the fire times that passed, as the policy says.

        It runs under the new term, while the scheduler does not look for due jobs.
        """
        self._late.clear()
        for alias, store in stores.items():
            for job in store.get_all_jobs():
                if job.next_run_time is not None and job.next_run_time <= now:
                    self._passed(alias, store, job, now)

    def _passed(self, alias: str, store: LeaderJobStore, job: Job, now: datetime) -> None:
        if self.policy == "once":
            self._late.add((alias, job.id))
        elif self.policy == "skip":
            move(store, job, next_after(job, now))


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
