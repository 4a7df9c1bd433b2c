"""Whether the jobs under a term go forward. Kept by the term, under its lock; the watchdog looks at
it by a timer."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from coord.core.lease import LossReason
from coord.core.timing import Instant
from coord.errors import CoordError, LeadershipLost
from coord.runtime import clock, process
from coord.runtime.threads import Latch

NEVER = float("inf")


class WatchedJob:
    """One job that may stand still for `at_most` seconds; `due` is when it must have moved, on the
    awake clock."""

    __slots__ = ("at_most", "due")

    def __init__(self, at_most: float, now: float) -> None:
        self.at_most = at_most
        self.due = now + at_most


class ProgressTracker:
    """The watched jobs of one term.

    All times are on the clock that stands still while the machine sleeps: a job cannot move then,
    and whether the lease outlived the sleep is for the deadline to say."""

    __slots__ = ("armed", "due", "jobs")

    def __init__(self) -> None:
        self.jobs: list[WatchedJob] = []
        self.due = NEVER
        """When the first of them must have moved. Read without the lock."""
        self.armed = NEVER
        """When the watchdog looks next."""

    def begin(self, at_most: float, now: float) -> WatchedJob:
        """A job starts; it is to be ended by `end`."""
        job = WatchedJob(at_most, now)
        self.jobs.append(job)
        self._reckon()
        return job

    def end(self, job: WatchedJob) -> None:
        self.jobs.remove(job)
        self._reckon()

    def moved(self, now: float) -> None:
        """The calling job goes forward; called from outside of any watched job of this term, all of
        them do."""
        own = current_job.get()
        for job in [own] if own in self.jobs and own is not None else self.jobs:
            job.due = now + job.at_most
        self._reckon()

    def _reckon(self) -> None:
        self.due = min((job.due for job in self.jobs), default=NEVER)


current_job: contextvars.ContextVar[WatchedJob | None] = contextvars.ContextVar(
    "coord_job", default=None
)
"""The watched job that the calling code is part of."""


# -- Looks, by a timer on coord's own loop, whether the watched jobs of a term go forward
# (`at_most`).


class Watchdog:
    """Calls `stalled` once a watched job of the term stands still. Costs one timer while such a job
    runs.

    The timer is only what makes the loss *told* soon: `Term.held` reads the clock itself, so a loop
    that is late delays `on_lost`, and nobody believes for longer. A job that goes forward does not
    touch the timer; that finds out when it fires, once per `at_most`."""

    __slots__ = ("_loop", "_stalled", "_term", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, stalled: Callable[[], None]) -> None:
        self._loop, self._stalled = loop, stalled
        self._term: Term | None = None
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, term: Term) -> None:
        """Look at this term now, and again when its next job should have moved. On the loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._term = term
        left = term._seconds_until_stalled()
        if left == 0:
            self._stalled()
        elif left is not None:
            self._timer = self._loop.call_later(left, self.watch, term)


# -- A term as its holder sees it: the token to fence with, and whether it still stands.


class Term:
    """One unbroken hold of a role, under one fencing token.

    `held` and `check()` read the machine's clock and nothing else (rule 6): no thread has to run,
    and no store has to answer, for a term to be over. Once over, it never comes back."""

    __slots__ = (
        "__weakref__",
        "_deadline",
        "_epoch",
        "_idle",
        "_jobs",
        "_lock",
        "_now",
        "_on_earlier_check",
        "_over",
        "_progress",
        "_reason",
        "holder",
        "lost",
        "role",
        "token",
    )

    def __init__(
        self,
        role: str,
        holder: str,
        token: int,
        deadline: float,
        now: Callable[[], Instant] = clock.system_now,
    ) -> None:
        self.role = role
        self.holder = holder
        self.token = token
        self._lock = threading.Lock()
        self.lost = Latch(self._lock)
        """Set once the term is over: `lost.wait(seconds)` in a thread, `await term.lost` in a
        coroutine."""
        self._deadline = deadline
        self._reason: LossReason | None = None
        self._over = False
        self._now = now
        self._epoch = process.fork_generation
        self._jobs = 0
        self._idle: Callable[[], None] | None = None
        self._progress: ProgressTracker | None = None
        self._on_earlier_check: Callable[[], None] | None = None

    def __repr__(self) -> str:
        state = f"{self.remaining:.1f} s left" if self.held else f"over: {self.reason or 'expired'}"
        return f"<Term {self.role!r} token {self.token}, {state}>"

    @property
    def deadline(self) -> float:
        """Until when it stands, unless renewed: seconds on the clock that counts suspend
        (CLOCK_BOOTTIME)."""
        return self._deadline

    @property
    def held(self) -> bool:
        """Whether the term stands, by the clock."""
        if self._over or self._epoch != process.fork_generation:
            return False
        now, progress = self._now(), self._progress
        passed = now.total >= self._deadline or (progress is not None and now.awake >= progress.due)
        return not (passed and self._pass())

    @property
    def remaining(self) -> float:
        """Seconds until it ends if nothing renews it; 0 once it is over."""
        return max(0.0, self._deadline - self._now().total) if self.held else 0.0

    @property
    def reason(self) -> LossReason | None:
        """Why it ended; None while it stands."""
        if self._reason is None and not self.held:
            return (
                LossReason.FORKED if self._epoch != process.fork_generation else LossReason.EXPIRED
            )
        return self._reason

    def check(self) -> None:
        """Raises `LeadershipLost` when the term is over. Cheap: call it before every step that
        matters.

        A check is not a fence: the process may be frozen between it and the write. Send the token
        along (`coord.fencing`, and rule 10 in docs/guarantees.md)."""
        if not self.held:
            raise LeadershipLost(self.role, self.token, self.reason)

    def progress(self) -> None:
        """Say that the job goes forward: from here it has its `at_most` seconds anew. Raises what
        `check()` raises.

        It speaks for the call of `@leader_only` that it is made in; from anywhere else (a thread
        that the job started, a callback) for all that is watched under this term. Without an
        `at_most` it only checks."""
        self.check()
        if self._progress is None:
            return
        with self._lock:
            late = self._check_clock()
            if not late:
                self._progress.moved(self._now().awake)
        if late:
            self.check()

    # -- for the shells
    # -----------------------------------------------------------------------------------------

    def _check_clock(self) -> bool:
        """Under the lock: whether it is over, by the clock. Once seen, it is so whatever comes
        later (rule 6)."""
        if self._over:
            return True
        now = self._now()
        late = now.total - self._deadline
        stalled = -1.0 if self._progress is None else now.awake - self._progress.due
        if stalled >= max(late, 0.0):
            self._reason = LossReason.NO_PROGRESS
        self._over = late >= 0 or stalled >= 0
        return self._over

    def _pass(self) -> bool:
        """Somebody saw the deadline behind us: from here on it is, whatever a renewal brings."""
        with self._lock:
            return self._check_clock()

    def _extend(self, deadline: float) -> bool:
        """A renewal was answered. False when somebody has already been told that the term is
        over."""
        with self._lock:
            if self._check_clock():
                return False
            self._deadline = max(self._deadline, deadline)
            return True

    def _end(self, reason: LossReason) -> None:
        with self._lock:
            if reason is not LossReason.FORKED:
                self._check_clock()  # a job that stood still ended it before anybody looked
            self._over = True
            self._reason = self._reason or reason
        self.lost.set()

    def _job_started(self, at_most: float | None = None) -> WatchedJob | None:
        """A job starts under this term, watched when `at_most`; raises `LeadershipLost` when it is
        over."""
        self.check()
        with self._lock:
            self._jobs += 1
        return None if at_most is None else self._watch(at_most)

    def _job_ended(self, job: WatchedJob | None = None) -> None:
        with self._lock:
            if job is not None and self._progress is not None:
                self._check_clock()  # the job may have moved too late, with nobody looking
                self._progress.end(job)
            self._jobs -= 1
            tell = self._idle if self._jobs == 0 else None
        if tell is not None:
            tell()

    def _watch(self, at_most: float) -> WatchedJob:
        """From now on something must go forward every `at_most` seconds, or the term is over."""
        with self._lock:
            progress = self._progress = self._progress or ProgressTracker()
            job = progress.begin(at_most, self._now().awake)
            sooner = self._on_earlier_check if progress.due < progress.armed else None
        if sooner is not None:
            sooner()
        return job

    @property
    def _stalled(self) -> bool:
        """Whether it is over for want of progress."""
        if self._progress is None:
            return False
        with self._lock:
            return self._check_clock() and self._reason is LossReason.NO_PROGRESS

    def _seconds_until_stalled(self) -> float | None:
        """For the watchdog, which looks again then: seconds until it is over for want of progress,
        0 when it is; None while nothing is watched."""
        with self._lock:
            progress = self._progress
            if progress is None or (
                self._check_clock() and self._reason is not LossReason.NO_PROGRESS
            ):
                return None
            progress.armed = progress.due
            if self._over:
                return 0.0
            return None if progress.due == float("inf") else progress.due - self._now().awake

    def _on_idle(self, tell: Callable[[], None]) -> None:
        """Call `tell` once no job runs under this term (at once, when none does)."""
        with self._lock:
            self._idle = tell
            idle = self._jobs == 0
        if idle:
            tell()

    def _end_in_fork(self) -> None:
        self._lock = threading.Lock()
        self.lost = Latch(self._lock)
        self._end(LossReason.FORKED)


_current: contextvars.ContextVar[Term | None] = contextvars.ContextVar("coord_term", default=None)


def current_term() -> Term | None:
    """The term that the calling code runs under: inside `@leader_only`, `Leadership.run` and
    `on_elected`.

    None elsewhere. A thread that the job starts does not inherit it: hand the term over.
    """
    return _current.get()


def require_term() -> Term:
    """Return the term that the calling code runs under; the twin of `current_term` for code that
    always has one.

    Raises:
        CoordError: The calling code runs under no term.
    """
    term = _current.get()
    if term is None:
        raise CoordError(
            "no current term: call require_term() inside @leader_only, Leadership.run or on_elected"
        )
    return term


# -- Running a job under a term: the job finds the term, the leadership knows that it runs, a
# coroutine ends with it.

T = TypeVar("T")


def run_under_term(
    term: Term, at_most: float | None, function: Callable[..., T], *args: Any, **kwargs: Any
) -> T:
    """Call a plain function with `coord.current_term()` set. Raises `LeadershipLost` when the term
    is over already.

    at_most: seconds from now, or from the last `term.progress()` in it, after which the term is
    lost
        (`LossReason.NO_PROGRESS`); None: without end.
    Until it returns, its process does not claim the role again.
    """
    watched = term._job_started(at_most)
    token, job_token = _current.set(term), current_job.set(watched)
    try:
        return function(*args, **kwargs)
    finally:
        _current.reset(token)
        current_job.reset(job_token)
        term._job_ended(watched)


async def run_async_under_term(
    term: Term,
    at_most: float | None,
    function: Callable[..., Awaitable[T]],
    *args: Any,
    **kwargs: Any,
) -> T:
    """Await a coroutine function likewise; it is cancelled when the term is lost, and
    `LeadershipLost` raised."""
    watched = term._job_started(at_most)
    token, job_token = _current.set(term), current_job.set(watched)
    try:
        job = asyncio.ensure_future(function(*args, **kwargs))
    except BaseException:
        term._job_ended(watched)
        raise
    finally:
        _current.reset(token)
        current_job.reset(job_token)
    lost = asyncio.ensure_future(_until_lost(term))
    try:
        await asyncio.wait({job, lost}, return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            job.cancel()
            await asyncio.wait({job})
            if job.cancelled():
                raise LeadershipLost(term.role, term.token, term.reason)
        return job.result()
    finally:
        for task in (job, lost):
            task.cancel()
        await asyncio.gather(job, lost, return_exceptions=True)
        term._job_ended(watched)


async def _until_lost(term: Term) -> None:
    await term.lost
