"""Executors whose jobs run under the term of the pass that submitted them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from apscheduler.executors.base import BaseExecutor
from apscheduler.executors.pool import BasePoolExecutor, ProcessPoolExecutor
from apscheduler.job import Job
from apscheduler.util import iscoroutinefunction_partial

from coord.election.term import Term, require_term, run_async_under_term, run_under_term
from coord.errors import BadArgument, LeadershipLost
from coord.integrations.apscheduler.missed import MissedRuns

TOO_LATE = -86_400
"""A grace time, in seconds, that no fire time keeps: APScheduler counts the job as missed."""


class RunTimes(list[datetime]):
    """The fire times of a submission. It remembers the one that an executor works on.

    Attributes:
        current: The fire time that was taken last.
    """

    def __iter__(self) -> Iterator[datetime]:
        for self.current in super().__iter__():
            yield self.current


class JobUnderTerm(Job):  # type: ignore[misc] # APScheduler has no types
    """A job as an executor sees it: it runs under a term, and is missed once the term is over.

    Args:
        job: The job.
        term: The term.
        at_most: Seconds that a run may go without `term.progress()`; None means no limit.
        late: Whether it runs no matter how late it is.
        note: Called before each run, in the thread or the coroutine of the run; None means that
            nothing is noted.
    """

    __slots__ = ("_grace", "_under", "func")

    def __init__(
        self, job: Job, term: Term, at_most: float | None, late: bool, note: Note | None
    ) -> None:
        # `Job.__init__` would validate what is valid already, and write the job's function.
        for name in ("_scheduler", "_jobstore_alias", "id", "args", "kwargs", "name", "trigger"):
            setattr(self, name, getattr(job, name))
        for name in ("executor", "coalesce", "max_instances", "next_run_time", "func_ref"):
            setattr(self, name, getattr(job, name))
        self._under = term
        self._grace = None if late else job.misfire_grace_time
        self.func = _under_term(job.func, term, at_most, note)

    @property
    def misfire_grace_time(self) -> int | None:
        """Seconds that a run may be late; None means any time. An executor reads it before each
        run."""
        return self._grace if self._under.held else TOO_LATE


class Note:
    """Notes the runs of one submission of a job.

    Args:
        missed: Writes the notes.
        job: The job.
        run_times: Its fire times.
    """

    def __init__(self, missed: MissedRuns, job: Job, run_times: RunTimes) -> None:
        self._missed, self._run_times = missed, run_times
        self._job = (job._jobstore_alias, job.id)

    def write(self, term: Term) -> None:
        """Note that the next run begins."""
        self._missed.note(term, *self._job, self._run_times.current)

    async def write_async(self, term: Term) -> None:
        """Note that the next run begins."""
        await self._missed.note_async(term, *self._job, self._run_times.current)


def _under_term(
    function: Callable[..., Any], term: Term, at_most: float | None, note: Note | None
) -> Callable[..., Any]:
    if not iscoroutinefunction_partial(function):

        def call(*args: Any, **kwargs: Any) -> Any:
            if note is not None:
                note.write(term)
            return function(*args, **kwargs)

        # One job: what was noted runs, although the role is being handed over meanwhile.
        return functools.partial(run_under_term, term, at_most, call)

    async def call_noted(*args: Any, **kwargs: Any) -> Any:
        if note is not None:
            await note.write_async(term)
        return await function(*args, **kwargs)

    async def call_async(*args: Any, **kwargs: Any) -> Any:
        try:
            return await run_async_under_term(term, at_most, call_noted, *args, **kwargs)
        except LeadershipLost as err:
            # APScheduler logs it, and where it was raised in coord helps nobody.
            raise err.with_traceback(None) from None

    return call_async


class LeaderExecutor(BaseExecutor):  # type: ignore[misc] # APScheduler has no types
    """An executor that hands jobs to another one, to run under the current term.

    Args:
        inner: The executor that runs the jobs.
        at_most: Seconds that a run may go without `term.progress()`; None means no limit.
        missed: Knows which runs were missed before the handover.

    Raises:
        BadArgument: `inner` is a `ProcessPoolExecutor`.
    """

    def __init__(self, inner: BaseExecutor, at_most: float | None, missed: MissedRuns) -> None:
        super().__init__()
        if isinstance(inner, ProcessPoolExecutor):
            raise BadArgument(
                "executor",
                type(inner).__name__,
                "must run its jobs in this process, because a term does not pass to another; use a "
                "ThreadPoolExecutor, and start processes in the job",
            )
        self.inner = inner
        self._at_most, self._missed = at_most, missed

    def start(self, scheduler: Any, alias: str) -> None:
        super().start(scheduler, alias)
        self.inner.start(scheduler, alias)

    def shutdown(self, wait: bool = True) -> None:
        self.inner.shutdown(wait)

    def submit_job(self, job: Job, run_times: list[datetime]) -> None:
        """Submit the job under the current term.

        Raises:
            LeadershipLost: The term is over.
        """
        term = require_term()
        term.check()
        late = self._missed.take_late(job._jobstore_alias, job.id)
        times = RunTimes(run_times[-1:] if late else run_times)
        store = job._scheduler._lookup_jobstore(job._jobstore_alias)
        note = Note(self._missed, job, times) if self._missed.is_noted(store, job) else None
        self.inner.submit_job(JobUnderTerm(job, term, self._at_most, late, note), times)

    def _do_submit_job(self, job: Job, run_times: list[datetime]) -> None:
        self.inner._do_submit_job(job, run_times)

    def renew_pool(self) -> None:
        """In a forked child: replace a pool whose threads belong to the parent."""
        self.inner._instances.clear()
        if isinstance(self.inner, BasePoolExecutor):
            attributes = vars(self.inner)
            pool = attributes["_pool"]
            attributes["_pool"] = type(pool)(
                pool._max_workers, pool._thread_name_prefix, pool._initializer, pool._initargs
            )
