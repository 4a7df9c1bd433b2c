"""A term as its holder sees it, the jobs that run under it, and whether they make progress.

Nothing in here takes a lock. Any thread may be inside of these methods, the main thread too, when a
signal handler runs; a handler that waits for coord's own thread, which ends terms, must not wait
for a lock that the main thread holds. Each shared field is changed by one atomic operation, and
changes in one direction only: a term that is over stays over.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from coord.core.kept import MISSING, validate_notes
from coord.core.lease import LossReason
from coord.core.timing import Instant
from coord.election.kept import KeptText, NotesAccess
from coord.errors import CoordError, LeadershipLost
from coord.runtime import clock, process
from coord.runtime.threads import Latch

NEVER = float("inf")
T = TypeVar("T")


if TYPE_CHECKING:  # creating a Protocol takes as long as importing a small module
    from typing import Protocol

    class TermHost(Protocol):
        """What began a term, and ends it."""

        @property
        def loop(self) -> asyncio.AbstractEventLoop:
            """The event loop that it lives on."""

        @property
        def keeps_text(self) -> bool:
            """Whether `open_text` can be called."""

        def open_text(self, term: Term) -> KeptText:
            """Return how `term` reads and writes what its role keeps. Called on the loop."""

        def watch_soon(self) -> None:
            """A job must be checked earlier than planned. Called on any thread."""

        def callback_failed(self, term: Term) -> None:
            """An `on_elected` callback of `term` has raised. Called on any thread."""


class RunningJob:
    """One call that runs under a term, from `begin` to `end`.

    An exception that a signal handler raises can keep its caller from ending it. The term refers to
    it weakly, so it counts no longer than its caller exists.

    Args:
        term: The term that it runs under.
        at_most: Seconds that it may go without progress; None means no limit.
    """

    __slots__ = ("__weakref__", "progress", "term")

    def __init__(self, term: Term, at_most: float | None) -> None:
        self.term = term
        self.progress = None if at_most is None else Progress(at_most, term._now().awake, self)

    @property
    def running(self) -> bool:
        """Whether it has begun and has not ended."""
        return id(self) in self.term._jobs

    def begin(self) -> None:
        """Count it among the jobs of the term.

        Raises:
            LeadershipLost: The term is over.
        """
        term, key = self.term, id(self)
        term._jobs[key] = weakref.ref(self)
        if not term.held:
            self.end()
            raise LeadershipLost(term.role, term.token, term.reason)
        if self.progress is not None:
            term._watch(key, self.progress)

    def end(self) -> None:
        """Count it no longer. A second call does nothing."""
        term, key = self.term, id(self)
        if key in term._watched:
            term._check_clock()  # it may have made progress too late, and nobody has looked
            term._watched.pop(key, None)
        term._jobs.pop(key, None)
        term._tell_if_idle()


class Progress:
    """When a job must have made progress.

    Args:
        at_most: Seconds from one report of progress to the next.
        now: The time, on the clock that stands still during suspend. Whether the lease outlived a
            suspend is for the deadline of the term to say.
        job: The job; None if it is everything that runs under a term.
    """

    __slots__ = ("_at_most", "_due", "_job")

    def __init__(self, at_most: float, now: float, job: RunningJob | None = None) -> None:
        self._at_most, self._due = at_most, now + at_most
        self._job = None if job is None else weakref.ref(job)

    @property
    def due(self) -> float:
        """When it must have made progress."""
        return NEVER if self._job is not None and self._job() is None else self._due

    def progressed(self, now: float) -> None:
        """The job has `at_most` seconds from now."""
        self._due = now + self._at_most


current_job: contextvars.ContextVar[weakref.ref[RunningJob] | None] = contextvars.ContextVar(
    "coord_job", default=None
)
"""The job that the calling code is part of."""


def is_inside(term: Term | None) -> bool:
    """Return whether the calling code is part of a job that runs under `term`."""
    reference = current_job.get()
    job = None if reference is None else reference()
    return job is not None and job.term is term and job.running


class Watchdog:
    """Calls `stalled` on the loop when a job of the watched term makes no progress.

    `Term.held` reads the clock itself, so a late loop delays `on_lost` and never the end of the
    term. A job that makes progress does not touch the timer, which finds out when it fires, once in
    each `at_most`.

    Args:
        loop: The loop that its one timer runs on.
        stalled: What to call.
    """

    __slots__ = ("_loop", "_stalled", "_term", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, stalled: Callable[[], None]) -> None:
        self._loop, self._stalled = loop, stalled
        self._term: Term | None = None
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, term: Term) -> None:
        """Check this term now, and again when its next job must have made progress."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._term = term
        remaining = term._seconds_until_stalled()
        if remaining == 0:
            self._stalled()
        elif remaining is not None:
            self._timer = self._loop.call_later(remaining, self.watch, term)


class Term:
    """One unbroken hold of a role, under one fencing token.

    `held` and `check()` read only the clock of the machine (rule 6): no thread has to run and no
    store has to answer for a term to end. A term that is over never returns.

    Attributes:
        role: The role.
        holder: The id of the candidate that holds it.
        token: The fencing token.
        slot: Which of the slots of a role it holds, from 0; None for a role with one holder.
        lost: Set when the term is over: `lost.wait(seconds)` in a thread, `await term.lost` in a
            coroutine.
    """

    __slots__ = (
        "__weakref__",
        "_armed",
        "_called",
        "_calls_over",
        "_deadline",
        "_generation",
        "_host",
        "_idle",
        "_jobs",
        "_kept_text",
        "_no_progress",
        "_now",
        "_over",
        "_reason",
        "_watched",
        "holder",
        "lost",
        "role",
        "slot",
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
        self.slot: int | None = None
        self.lost = Latch()
        self._deadline = deadline
        self._reason: LossReason | None = None
        self._over = self._no_progress = False
        self._now = now
        self._generation = process.fork_generation
        self._jobs: dict[int, weakref.ref[RunningJob]] = {}
        self._watched: dict[int, Progress] = {}
        self._armed = NEVER
        self._idle: Callable[[], None] | None = None
        self._host: TermHost | None = None
        self._kept_text: KeptText | None = None
        # How many `on_elected` callbacks were called, and whether no other one is to be called.
        self._called, self._calls_over = 0, False

    def __repr__(self) -> str:
        state = f"{self.remaining:.1f} s left" if self.held else f"over: {self.reason or 'expired'}"
        return f"<Term {self.role!r} token {self.token}, {state}>"

    @property
    def deadline(self) -> float:
        """When it ends unless it is renewed, in seconds on the clock that counts suspend
        (CLOCK_BOOTTIME)."""
        return self._deadline

    @property
    def held(self) -> bool:
        """Whether the role is held, by the clock."""
        if self._over or self._generation != process.fork_generation:
            return False
        now = self._now()
        if now.total < self._deadline and not (self._watched and now.awake >= self._progress_due()):
            return True
        return not self._check_clock()

    @property
    def remaining(self) -> float:
        """Seconds until it ends unless it is renewed; 0 when it is over."""
        return max(0.0, self._deadline - self._now().total) if self.held else 0.0

    @property
    def reason(self) -> LossReason | None:
        """Why it ended; None while it is held."""
        if self._reason is None and not self.held:
            if self._generation != process.fork_generation:
                return LossReason.FORKED
            return LossReason.NO_PROGRESS if self._no_progress else LossReason.EXPIRED
        return self._reason

    def check(self) -> None:
        """Raise an error if the term is over. It is cheap: call it before every step that matters.

        A check is not a fence: the process may be stopped between the check and the write. Send the
        token with the write (`coord.fencing`, and rule 10 in docs/guarantees.md).

        Raises:
            LeadershipLost: The term is over.
        """
        if not self.held:
            raise LeadershipLost(self.role, self.token, self.reason)

    def progress(self) -> None:
        """Report progress: the job has another `at_most` seconds from now.

        Inside a call of `@leader_only` it counts for that call. Elsewhere (a thread that the job
        started, a callback) it counts for everything that is watched under this term. Without an
        `at_most` it only checks.

        Raises:
            LeadershipLost: The term is over.
        """
        self.check()
        if not self._watched:
            return
        reference = current_job.get()
        job = None if reference is None else reference()
        own = job.progress if job is not None and job.term is self else None
        now = self._now().awake
        for progress in [own] if own is not None else list(self._watched.values()):
            progress.progressed(now)

    @overload
    def note(self, key: str, value: object, /) -> None: ...

    @overload
    def note(self, notes: Mapping[str, Any], /) -> None: ...

    def note(self, notes: str | Mapping[str, Any], value: object = MISSING, /) -> None:
        """Write notes of the role, and return when the store has them.

        Notes are a few small values that outlive the term: `notes()` of the next one, and
        `Coordinator.notes(role)`, return them. Nobody writes them under an older token. Work that
        still drains after the loss of the term can write them, too.

        A coroutine on coord's event loop awaits `note_async` instead.

        Args:
            notes: The key of the note, a string of 1 to 120 bytes; or a dict of several notes,
                which are written together.
            value: What JSON can hold; None deletes the note. The notes of a role have at most
                65,536 bytes of JSON together.

        Raises:
            BadArgument: A key or value is invalid, the notes become too large, or the store keeps
                no notes. Nothing is written.
            LeadershipLost: The term is over, and nothing was written.
            StaleToken: A newer term of the role has begun, and the role does not keep the notes.
            OutcomeUnknown: The term ended before the store had answered.
            StoreUnavailable: The notes could not be read. Nothing was written.
            StoreRefused: The store refuses, or somebody has damaged the notes.
        """
        changes = validate_notes(notes, value)
        self._notes_access().write(changes)

    @overload
    async def note_async(self, key: str, value: object, /) -> None: ...

    @overload
    async def note_async(self, notes: Mapping[str, Any], /) -> None: ...

    async def note_async(self, notes: str | Mapping[str, Any], value: object = MISSING, /) -> None:
        """Do what `note` does, from a coroutine on any event loop."""
        changes = validate_notes(notes, value)
        await self._notes_access().write_async(changes)

    def notes(self) -> dict[str, Any]:
        """Return the notes of the role: those of earlier terms, and those of this one.

        The store is asked once in a term. A coroutine on coord's event loop awaits `notes_async`
        instead.

        Raises:
            BadArgument: The store keeps no notes.
            StaleToken: A newer term of the role has begun, and this one has not read the notes.
            StoreUnavailable: The store did not answer in time.
            StoreRefused: The store refuses, or somebody has damaged the notes.
        """
        return self._notes_access().read()

    async def notes_async(self) -> dict[str, Any]:
        """Do what `notes` does, from a coroutine on any event loop."""
        return await self._notes_access().read_async()

    def _notes_access(self) -> NotesAccess:
        if self._generation != process.fork_generation:
            raise LeadershipLost(self.role, self.token, LossReason.FORKED)
        host = self._host
        if host is None or not host.keeps_text:
            raise CoordError(
                f"cannot use notes of {self.role!r}: only terms of a leadership and of "
                "@leader_only have notes"
            )
        return NotesAccess(host, self)

    def _progress_due(self) -> float:
        if not self._watched:
            return NEVER
        return min((progress.due for progress in list(self._watched.values())), default=NEVER)

    def _check_clock(self) -> bool:
        """Return whether it is over by the clock. Once seen, that is final (rule 6)."""
        if self._over:
            return True
        now = self._now()
        late, stalled = now.total - self._deadline, now.awake - self._progress_due()
        if stalled >= max(late, 0.0):
            self._no_progress = True
        if late >= 0 or stalled >= 0:
            self._over = True
        return self._over

    def _extend(self, deadline: float) -> bool:
        """Move the deadline after a renewal; False if somebody has seen the end of the term."""
        if self._check_clock():
            return False
        self._deadline = max(self._deadline, deadline)
        return not self._over

    def _end(self, reason: LossReason) -> None:
        if reason is not LossReason.FORKED:
            self._check_clock()  # a job without progress ended it before anybody looked
        self._over = True
        if self._reason is None:
            self._reason = LossReason.NO_PROGRESS if self._no_progress else reason
        self.lost.set()

    def _watch(self, key: int, progress: Progress) -> None:
        """From now on this must make progress, or the term is over."""
        self._watched[key] = progress
        if self._host is not None and progress.due < self._armed:
            self._host.watch_soon()

    def _watch_all(self, at_most: float) -> None:
        """Something under this term must make progress every `at_most` seconds, from now on."""
        self._watch(id(self), Progress(at_most, self._now().awake))

    @property
    def drained(self) -> bool:
        """Whether it is over, and every call under it has returned."""
        return not self.held and self._running_jobs == 0

    @property
    def _stalled(self) -> bool:
        """Whether it is over because a job made no progress."""
        return bool(self._watched or self._no_progress) and (
            self._check_clock() and self._no_progress
        )

    def _seconds_until_stalled(self) -> float | None:
        """Return when the watchdog must look again, in seconds: 0 if a job has stalled, None while
        nothing is watched."""
        if not self._watched and not self._no_progress:
            return None
        if self._check_clock():
            return 0.0 if self._no_progress else None
        # Something that begins to be watched just now compares with this, and calls the watchdog.
        self._armed = NEVER
        self._armed = due = self._progress_due()
        return None if due == NEVER else max(due - self._now().awake, 0.001)

    @property
    def _running_jobs(self) -> int:
        """How many calls run under this term."""
        return sum(job() is not None for job in list(self._jobs.values()))

    def _on_idle(self, tell: Callable[[], None]) -> None:
        """Call `tell`, perhaps more than once, when no job runs under this term any more."""
        self._idle = tell
        self._tell_if_idle()

    def _tell_if_idle(self) -> None:
        tell = self._idle
        if tell is not None and self._running_jobs == 0:
            tell()

    def _end_in_fork(self) -> None:
        self.lost = Latch()
        self._end(LossReason.FORKED)


_current: contextvars.ContextVar[Term | None] = contextvars.ContextVar("coord_term", default=None)


def current_term() -> Term | None:
    """Return the term that the calling code runs under, or None.

    It is set inside `@leader_only`, `Leadership.run` and `on_elected`. A thread that the job starts
    does not inherit it: pass the term to the thread.
    """
    return _current.get()


def current_if(term: Term | None) -> Term | None:
    """Return `term` if the calling code runs under it, and else None. The term may be lost.

    A job that asks for its role again runs under the term that it has: it would wait for a new one
    until it has ended itself.
    """
    return term if _current.get() is term else None


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


def run_under_term(
    term: Term, at_most: float | None, function: Callable[..., T], *args: Any, **kwargs: Any
) -> T:
    """Call a plain function with `coord.current_term()` set.

    Until it returns, this process does not claim the role again.

    Args:
        term: The term.
        at_most: Seconds from now, and from each `term.progress()` in the function, after which the
            term is lost (`LossReason.NO_PROGRESS`); None means no limit.
        function: The function.
        *args: Its arguments.
        **kwargs: Its keyword arguments.

    Raises:
        LeadershipLost: The term is over already.
    """
    job = RunningJob(term, at_most)
    try:
        job.begin()
        before = _current.set(term), current_job.set(weakref.ref(job))
        try:
            return function(*args, **kwargs)
        finally:
            current_job.reset(before[1])
            _current.reset(before[0])
    finally:
        job.end()


async def run_async_under_term(
    term: Term,
    at_most: float | None,
    function: Callable[..., Awaitable[T]],
    *args: Any,
    **kwargs: Any,
) -> T:
    """Await a coroutine function with `coord.current_term()` set, as `run_under_term` does.

    Raises:
        LeadershipLost: The term is over already, or was lost. The function was cancelled then.
    """
    job = RunningJob(term, at_most)
    try:
        job.begin()
        before = _current.set(term), current_job.set(weakref.ref(job))
        try:
            task = asyncio.ensure_future(function(*args, **kwargs))
        finally:
            current_job.reset(before[1])
            _current.reset(before[0])
    except BaseException:
        job.end()
        raise
    # Not in the `finally` below: a caller that is cancelled twice leaves while the job cleans up.
    task.add_done_callback(lambda _: job.end())
    lost = asyncio.ensure_future(_until_lost(term))
    try:
        await asyncio.wait({task, lost}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            if task.cancelled():
                raise LeadershipLost(term.role, term.token, term.reason)
        return task.result()
    finally:
        for ending in (task, lost):
            ending.cancel()
        await asyncio.gather(task, lost, return_exceptions=True)


async def _until_lost(term: Term) -> None:
    await term.lost
