"""Whether the jobs under a term go forward. Kept by the term, under its lock; the watchdog looks at it by a timer."""

from __future__ import annotations

import contextvars

NEVER = float("inf")


class Watched:
    """One job that may stand still for `at_most` seconds; `due` is when it must have moved, on the awake clock."""

    __slots__ = ("at_most", "due")

    def __init__(self, at_most: float, now: float) -> None:
        self.at_most = at_most
        self.due = now + at_most


class Progress:
    """The watched jobs of one term.

    All times are on the clock that stands still while the machine sleeps: a job cannot move then, and whether the
    lease outlived the sleep is for the deadline to say.
    """

    __slots__ = ("armed", "due", "jobs")

    def __init__(self) -> None:
        self.jobs: list[Watched] = []
        self.due = NEVER
        """When the first of them must have moved. Read without the lock."""
        self.armed = NEVER
        """When the watchdog looks next."""

    def begin(self, at_most: float, now: float) -> Watched:
        """A job starts; it is to be ended by `end`."""
        job = Watched(at_most, now)
        self.jobs.append(job)
        self._reckon()
        return job

    def end(self, job: Watched) -> None:
        self.jobs.remove(job)
        self._reckon()

    def moved(self, now: float) -> None:
        """The calling job goes forward; called from outside of any watched job of this term, all of them do."""
        own = current_job.get()
        for job in [own] if own in self.jobs and own is not None else self.jobs:
            job.due = now + job.at_most
        self._reckon()

    def _reckon(self) -> None:
        self.due = min((job.due for job in self.jobs), default=NEVER)


current_job: contextvars.ContextVar[Watched | None] = contextvars.ContextVar("coord_job", default=None)
"""The watched job that the calling code is part of."""
