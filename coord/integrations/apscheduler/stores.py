"""Job stores that a leader writes to only while it leads, and what a standby may change in them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from apscheduler.job import Job
from apscheduler.jobstores.base import BaseJobStore
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger

from coord.election.term import current_term


class LeaderJobStore(BaseJobStore):  # type: ignore[misc] # APScheduler has no types
    """A job store in front of another one, which refuses changes under a term that is over.

    The scheduler looks for due jobs under its term, and so do the jobs. A process that was stopped
    for a while cannot overwrite fire times that the next leader has moved since. Code that runs
    under no term, for instance a request handler that adds a job, is not restricted.

    Args:
        inner: The job store.
    """

    def __init__(self, inner: BaseJobStore) -> None:
        super().__init__()
        self.inner = inner

    def __repr__(self) -> str:
        return repr(self.inner)

    @property
    def in_memory(self) -> bool:
        """Whether each process has jobs of its own."""
        return isinstance(self.inner, MemoryJobStore)

    def start(self, scheduler: Any, alias: str) -> None:
        super().start(scheduler, alias)
        self.inner.start(scheduler, alias)

    def shutdown(self) -> None:
        self.inner.shutdown()

    def lookup_job(self, job_id: str) -> Job | None:
        return self.inner.lookup_job(job_id)

    def get_due_jobs(self, now: datetime) -> list[Job]:
        jobs: list[Job] = self.inner.get_due_jobs(now)
        return jobs

    def get_next_run_time(self) -> datetime | None:
        moment: datetime | None = self.inner.get_next_run_time()
        return moment

    def get_all_jobs(self) -> list[Job]:
        jobs: list[Job] = self.inner.get_all_jobs()
        return jobs

    def add_job(self, job: Job) -> None:
        _check_term()
        self.inner.add_job(job)

    def update_job(self, job: Job) -> None:
        _check_term()
        self.inner.update_job(job)

    def remove_job(self, job_id: str) -> None:
        _check_term()
        self.inner.remove_job(job_id)

    def remove_all_jobs(self) -> None:
        _check_term()
        self.inner.remove_all_jobs()

    def keep_schedule(self, job: Job) -> bool:
        """Give `job`, which replaces a stored one, the fire times of that one if its trigger is the
        same. A standby that starts would else move the next fire time of the leader's job.

        Args:
            job: The job, with all its settings but the next fire time.

        Returns:
            Whether the stored job is equal: then there is nothing to write, and nothing that a
            leader writes at this moment can be overwritten.
        """
        stored = None if self.in_memory else self.lookup_job(job.id)
        if stored is None or _settings(stored.trigger) != _settings(job.trigger):
            return False
        job._modify(trigger=stored.trigger, next_run_time=stored.next_run_time)
        job_state, stored_state = job.__getstate__(), stored.__getstate__()
        try:
            return bool({**job_state, "trigger": None} == {**stored_state, "trigger": None})
        except Exception:  # arguments that cannot be compared, for instance arrays
            return False

    def forget_connections(self) -> None:
        """In a forked child: drop the connections of the parent, without closing them."""
        engine = getattr(self.inner, "engine", None)
        if engine is not None:
            engine.dispose(close=False)


def _check_term() -> None:
    term = current_term()
    if term is not None:
        term.check()


def _settings(trigger: BaseTrigger) -> object:
    """Return what says when a trigger fires, to compare it with another."""
    state = trigger.__getstate__() if hasattr(trigger, "__getstate__") else None
    if not isinstance(state, dict):
        return type(trigger), str(trigger)
    settings = {name: _setting(value) for name, value in state.items()}
    start = state.get("start_date")
    if isinstance(trigger, IntervalTrigger) and start is not None and start.microsecond:
        # Without a start date, APScheduler takes the moment when the trigger is made.
        settings["start_date"] = None
    return type(trigger), settings


def _setting(value: object) -> object:
    if isinstance(value, BaseTrigger):
        return _settings(value)
    if isinstance(value, (list, tuple)):
        return [_setting(item) for item in value]
    if isinstance(value, (int, float, datetime)) or value is None:
        return value
    return str(value)
