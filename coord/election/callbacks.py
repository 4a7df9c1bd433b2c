"""The callbacks of a leadership: kept in order, called in order, never on what renews."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, Union

from coord.core.lease import Lease, LossReason
from coord.core.timing import Instant
from coord.election.term import Term, _current
from coord.errors import BadArgument
from coord.runtime import log, threads
from coord.runtime.threads import Latch

Function = TypeVar("Function", bound=Callable[..., Any])
Job = Callable[[], Coroutine[Any, Any, None]]
Functions = tuple[Callable[..., Any], ...]

ElectedCallback = Callable[[Term], object]
LostCallback = Callable[[Term, LossReason], object]
NewLeaderCallback = Callable[[Lease], object]
OnElected = Union[ElectedCallback, Sequence[ElectedCallback], None]
"""`on_elected`: a function, plain or async, that takes the term; or a list of them."""
OnLost = Union[LostCallback, Sequence[LostCallback], None]
"""`on_lost`: a function, plain or async, that takes the term and the reason; or a list of them."""
OnNewLeader = Union[NewLeaderCallback, Sequence[NewLeaderCallback], None]
"""`on_new_leader`: a function, plain or async, that takes the lease; or a list of them."""

current_dispatcher: contextvars.ContextVar[object] = contextvars.ContextVar(
    "coord_callback_of", default=None
)
"""The dispatcher whose callback is running here: a callback that stops its own leadership must not
wait for itself."""


@dataclass(slots=True)
class Callbacks:
    """What is to be called, by kind."""

    elected: Functions = ()
    lost: Functions = ()
    new_leader: Functions = ()

    @classmethod
    def of(cls, elected: object, lost: object, new_leader: object) -> Callbacks:
        """From what was given for each: a function, several, or None."""
        return cls(
            cls.listed(elected, "on_elected"),
            cls.listed(lost, "on_lost"),
            cls.listed(new_leader, "on_new_leader"),
        )

    @staticmethod
    def listed(given: object, argument: str) -> Functions:
        """One function, several, or None, as a tuple."""
        several = given if isinstance(given, (list, tuple)) else [] if given is None else [given]
        return tuple([validate_callback(function, argument) for function in several])


PARAMETERS = {
    "on_elected": ("term",),
    "on_lost": ("term", "reason"),
    "on_new_leader": ("lease",),
}
"""What each kind of callback is called with."""


def validate_callback(function: Any, argument: str) -> Any:
    """Return `function` if it can be called with the arguments of its kind.

    Raises:
        BadArgument: It is no function, or it cannot be called with these arguments.
    """
    names = PARAMETERS[argument]
    call = f"{argument}({', '.join(names)})"
    if not callable(function):
        raise BadArgument(argument, function, f"a function, plain or async, called as {call}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C have no signature
        return function
    try:
        signature.bind(*names)
    except TypeError as err:
        raise BadArgument(argument, function, f"a function that takes {call} ({err})") from None
    return function


class CallbackDecorators:
    """Callbacks that are added by decorators."""

    __slots__ = ()

    callbacks: Callbacks

    def on_elected(self, function: Function) -> Function:
        """Adds a callback; usable as a decorator."""
        self.callbacks.elected += (validate_callback(function, "on_elected"),)
        return function

    def on_lost(self, function: Function) -> Function:
        """Adds a callback; usable as a decorator."""
        self.callbacks.lost += (validate_callback(function, "on_lost"),)
        return function

    def on_new_leader(self, function: Function) -> Function:
        """Adds a callback; usable as a decorator."""
        self.callbacks.new_leader += (validate_callback(function, "on_new_leader"),)
        return function


class Dispatcher(Protocol):
    """Runs jobs one after the other, somewhere else."""

    @property
    def idle(self) -> bool:
        """Whether all that was put has been done."""

    def put(self, job: Job) -> None:
        """Run it after all that was put before. A job awaits nothing but `settle`."""

    async def settle(self, outcome: Awaitable[Any]) -> None:
        """Finish what an async callback returned."""

    def forget(self) -> None:
        """In a forked child: what was put, and what ran, belongs to the parent."""


class TaskDispatcher:
    """One task on the running loop, alive while there is something to do. Plain functions must not
    block there."""

    __slots__ = ("_jobs", "_task")

    def __init__(self) -> None:
        self._jobs: tuple[
            Job, ...
        ] = ()  # seldom more than two: a deque would take ten times the memory
        self._task: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        return self._task is None

    def put(self, job: Job) -> None:
        self._jobs += (job,)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(
                self._work(), name="coord callbacks"
            )

    async def _work(self) -> None:
        current_dispatcher.set(self)
        while self._jobs:
            job, self._jobs = self._jobs[0], self._jobs[1:]
            await job()
        self._task = None  # ten thousand quiet roles keep no tasks that are done

    async def settle(self, outcome: Awaitable[Any]) -> None:
        await outcome

    def forget(self) -> None:
        self._jobs = ()
        self._task = None


class ThreadDispatcher:
    """A thread, taken while there is something to do: ten thousand quiet roles share the one that
    is kept.

    Async functions run there too, in a loop made for the call.
    """

    __slots__ = ("_jobs", "_lock", "_name", "_running")

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: tuple[Job, ...] = ()
        self._lock = threading.Lock()
        self._running = False

    @property
    def idle(self) -> bool:
        return not self._running

    def put(self, job: Job) -> None:
        with self._lock:
            self._jobs += (job,)
            if self._running:
                return
            self._running = True
        threads.start_thread_soon(self._work, self._name)

    def _work(self) -> None:
        current_dispatcher.set(self)
        while True:
            with self._lock:
                if not self._jobs:
                    self._running = False
                    return
                job, self._jobs = self._jobs[0], self._jobs[1:]
            with contextlib.suppress(StopIteration):
                job().send(
                    None
                )  # it awaits nothing but `settle`, which does not suspend: no loop is needed

    async def settle(self, outcome: Awaitable[Any]) -> None:
        asyncio.run(_finish(outcome))

    def forget(self) -> None:
        self._jobs = ()
        self._lock = threading.Lock()
        self._running = False


async def _finish(outcome: Awaitable[Any]) -> None:
    await outcome


# -- Tells a leadership's callbacks what happened, through its dispatcher, and lives through what
# they do.


class RunningCallback(NamedTuple):
    """A callback that has not returned: since when (awake clock), under which term, whether it is
    an `on_elected`."""

    name: str
    since: float
    term: Term | None
    elected: bool


class CallbackRunner:
    """Each method returns at once; what it announces is called after all that was announced
    before."""

    __slots__ = ("_callbacks", "_now", "_role", "dispatcher", "running")

    def __init__(
        self, role: str, callbacks: Callbacks, dispatcher: Dispatcher, now: Callable[[], Instant]
    ) -> None:
        self._role, self._callbacks, self.dispatcher, self._now = role, callbacks, dispatcher, now
        self.running: RunningCallback | None = None

    @property
    def idle(self) -> bool:
        """Whether all that was announced has been called."""
        return self.dispatcher.idle

    def elected(self, term: Term, failed: Callable[[], None]) -> None:
        """`on_elected`, up to the first that raises; then `failed()`, on the dispatcher's
        thread."""
        if not self._callbacks.elected:
            return

        async def job() -> None:
            if await self._call(self._callbacks.elected, term, term, stop_at_error=True):
                failed()

        self.dispatcher.put(job)

    def lost(self, term: Term) -> Latch:
        """`on_lost`. The flag is set when that is over, and with it every job that ran under the
        term."""
        ended = Latch()
        if (
            not self._callbacks.lost and self.dispatcher.idle
        ):  # nobody to call: a handover does not wait for a thread
            term._on_idle(ended.set)
            return ended

        async def job() -> None:
            await self._call(self._callbacks.lost, term, term, term.reason)
            term._on_idle(ended.set)

        self.dispatcher.put(job)
        return ended

    def new_leader(self, lease: Lease) -> None:
        """`on_new_leader`."""

        async def job() -> None:
            await self._call(self._callbacks.new_leader, None, lease)

        if self._callbacks.new_leader:
            self.dispatcher.put(job)

    async def _call(
        self, functions: Functions, term: Term | None, *args: Any, stop_at_error: bool = False
    ) -> bool:
        """Call them in order. What one raises is logged. Whether one did."""
        failed = False
        reset = _current.set(term)
        for function in functions:
            self.running = RunningCallback(
                _name(function), self._now().awake, term, functions is self._callbacks.elected
            )
            try:
                outcome = function(*args)
                if inspect.isawaitable(outcome):
                    await self.dispatcher.settle(outcome)
            except (Exception, SystemExit, asyncio.CancelledError) as err:
                if isinstance(err, asyncio.CancelledError) and _cancelled():
                    raise
                token = None if term is None else term.token
                log.error(
                    "callback.failed", err, role=self._role, token=token, callback=_name(function)
                )
                failed = True
                if stop_at_error:
                    break
            finally:
                self.running = None
        _current.reset(reset)
        return failed


def _cancelled() -> bool:
    """Whether what calls is being cancelled itself, rather than something that a callback waited
    for."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread's work, which nobody cancels
        return False
    return task is not None and (
        sys.version_info < (3, 11) or task.cancelling() > 0
    )  # 3.10 cannot tell


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
