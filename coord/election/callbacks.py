"""The callbacks of a candidate: in which order and on which thread they are called.

They never run on what renews leases, and what they raise never gets further than this module.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import queue
import sys
import threading
import types
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, Union

from coord.core.lease import Lease, LossReason
from coord.core.timing import Instant
from coord.election.term import Term, _current
from coord.errors import BadArgument
from coord.runtime import log, process, threads
from coord.runtime.threads import Latch

Function = TypeVar("Function", bound=Callable[..., Any])
Job = Callable[[], Coroutine[Any, Any, None]]
Functions = Sequence[Callable[..., Any]]

ElectedCallback = Callable[[Term], object]
LostCallback = Callable[[Term, LossReason], object]
NewLeaderCallback = Callable[[Lease], object]
OnElected = Union[ElectedCallback, Sequence[ElectedCallback], None]
"""`on_elected`: a function, plain or async, that takes the term; or a list of them."""
OnLost = Union[LostCallback, Sequence[LostCallback], None]
"""`on_lost`: a function, plain or async, that takes the term and the reason; or a list of them."""
OnNewLeader = Union[NewLeaderCallback, Sequence[NewLeaderCallback], None]
"""`on_new_leader`: a function, plain or async, that takes the lease; or a list of them."""
OnInfo = OnNewLeader
"""`on_info`: a function, plain or async, that takes the lease; or a list of them."""

current_dispatcher: contextvars.ContextVar[object] = contextvars.ContextVar(
    "coord_callback_of", default=None
)
"""The dispatcher whose callback is running here: a callback that stops its own leadership must not
wait for itself."""
RETRY_THREAD = 0.25
"""Seconds until another try to start the thread of a dispatcher."""


class Callbacks(list[tuple[str, Callable[..., Any]]]):
    """The callbacks of a candidate, each with its kind. More are added at the end, from any thread.

    One list for all kinds, because most candidates have one callback or none.
    """

    __slots__ = ()

    @classmethod
    def of(cls, elected: object, lost: object, new_leader: object, info: object) -> Callbacks:
        """Make one from the arguments of a leadership: a function, several, or None.

        Raises:
            BadArgument: An argument is no function, or cannot be called as its kind is.
        """
        callbacks = cls()
        for kind, value in (
            ("on_elected", elected),
            ("on_lost", lost),
            ("on_new_leader", new_leader),
            ("on_info", info),
        ):
            if value is not None:
                for function in value if isinstance(value, (list, tuple)) else (value,):
                    callbacks.add(kind, function)
        return callbacks

    def add(self, kind: str, function: Callable[..., Any]) -> None:
        """Add a callback of a kind, such as "on_lost".

        Raises:
            BadArgument: It is no function, or cannot be called as its kind is.
        """
        self.append((kind, validate_callback(function, kind)))

    def of_kind(self, kind: str) -> Functions:
        """Return the callbacks of a kind, in the order in which they were added."""
        return [function for added, function in self if added == kind]


PARAMETERS = {
    "on_elected": ("term",),
    "on_lost": ("term", "reason"),
    "on_new_leader": ("lease",),
    "on_info": ("lease",),
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
        raise BadArgument(
            argument, function, f"must be a function, plain or async, called as {call}"
        )
    if _takes(function, len(names)):
        return function
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions written in C have no signature
        return function
    try:
        signature.bind(*names)
    except TypeError as err:
        raise BadArgument(
            argument, function, f"must be a function that takes {call} ({err})"
        ) from None
    return function


def _takes(function: Any, count: int) -> bool:
    """Return whether a plain function or method certainly takes so many arguments.

    Ten thousand roles have ten thousand callbacks, and a signature takes thirty times as long.
    """
    if type(function) is types.MethodType:
        function, count = function.__func__, count + 1
    if type(function) is not types.FunctionType or function.__dict__:  # another one may be wrapped
        return False
    code = function.__code__
    required = code.co_argcount - len(function.__defaults__ or ())
    return required <= count <= code.co_argcount and not code.co_kwonlyargcount


class CallbackDecorators:
    """Callbacks that are added by decorators."""

    __slots__ = ()

    callbacks: Callbacks

    def on_elected(self, function: Function) -> Function:
        """Add a callback; usable as a decorator.

        If this candidate leads, the callback is called at once for the present term.
        """
        self.callbacks.add("on_elected", function)
        return function

    def on_lost(self, function: Function) -> Function:
        """Add a callback; usable as a decorator."""
        self.callbacks.add("on_lost", function)
        return function

    def on_new_leader(self, function: Function) -> Function:
        """Add a callback; usable as a decorator."""
        self.callbacks.add("on_new_leader", function)
        return function

    def on_info(self, function: Function) -> Function:
        """Add a callback; usable as a decorator."""
        self.callbacks.add("on_info", function)
        return function


class Dispatcher(Protocol):
    """Runs jobs one after the other, somewhere else."""

    @property
    def idle(self) -> bool:
        """Whether every job has been done."""

    @property
    def has_thread(self) -> bool:
        """Whether a thread runs jobs now, beside the one that puts them."""

    def put(self, job: Job) -> None:
        """Run `job` after all earlier ones. Called on the loop. A job awaits only `settle`."""

    async def settle(self, outcome: Awaitable[Any]) -> None:
        """Await what an async callback returned."""

    def forget(self) -> None:
        """In a forked child: forget all jobs, which belong to the parent."""


class TaskDispatcher:
    """Runs jobs in one task of the running loop, which exists while there are jobs.

    Plain callbacks must not block there.
    """

    __slots__ = ("_jobs", "_task")

    def __init__(self) -> None:
        # Seldom more than two: a deque would take ten times the memory.
        self._jobs: tuple[Job, ...] = ()
        self._task: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        return self._task is None or self._task.done()

    @property
    def has_thread(self) -> bool:
        return False

    def put(self, job: Job) -> None:
        self._jobs += (job,)
        if self.idle:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._work(), name="coord callbacks")

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
    """Runs jobs in a thread, which it takes while there are jobs: ten thousand quiet roles share
    the one idle thread.

    Async callbacks run there too, in a loop that is made for the call.

    Args:
        name: The name of the thread.
    """

    __slots__ = ("_jobs", "_name", "_running")

    def __init__(self, name: str) -> None:
        self._name = name
        self.forget()

    @property
    def idle(self) -> bool:
        return not self._running.locked()

    @property
    def has_thread(self) -> bool:
        return self._running.locked()

    def put(self, job: Job) -> None:
        self._jobs.put(job)
        self._take_thread()

    def _take_thread(self) -> None:
        # The thread that gets this lock runs the jobs. No thread waits for it.
        if not self._running.acquire(blocking=False):
            return
        try:
            work = functools.partial(self._work, process.fork_generation)
            threads.start_thread_soon(work, self._name)
        except threads.CannotStartThread as err:
            self._running.release()
            log.error("callback.delayed", because=str(err))
            asyncio.get_running_loop().call_later(RETRY_THREAD, self._take_thread)

    def _work(self, generation: int) -> None:
        current_dispatcher.set(self)
        jobs, running = self._jobs, self._running
        # A child that a callback forked has a thread of its own for its own jobs.
        while generation == process.fork_generation:
            try:
                job = jobs.get_nowait()
            except queue.Empty:
                running.release()
                # A job that arrived just now found the lock taken.
                if jobs.empty() or not running.acquire(blocking=False):
                    return
                continue
            with contextlib.suppress(StopIteration):
                # It awaits only `settle`, which does not suspend: no loop is needed.
                job().send(None)

    async def settle(self, outcome: Awaitable[Any]) -> None:
        asyncio.run(_finish(outcome))

    def forget(self) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._running = threading.Lock()


async def _finish(outcome: Awaitable[Any]) -> None:
    await outcome


class RunningCallback(NamedTuple):
    """A callback that has not returned.

    Attributes:
        name: Its name.
        since: When it began, on the awake clock.
        term: The term that it runs under; None for an `on_new_leader` or `on_info`.
        elected: Whether it is an `on_elected`.
    """

    name: str
    since: float
    term: Term | None
    elected: bool


class CallbackRunner:
    """Calls the callbacks of a candidate through a dispatcher, in order, whatever they raise.

    Each method returns at once; what it announces is called after everything before.

    Args:
        role: The role, for the log.
        callbacks: The callbacks. More may be added later.
        dispatcher: Where they are called.
        now: Reads the clocks.

    Attributes:
        dispatcher: See above.
        running: The callback that runs now; None if none does.
    """

    __slots__ = ("_callbacks", "_now", "_role", "_term", "dispatcher", "running")

    def __init__(
        self, role: str, callbacks: Callbacks, dispatcher: Dispatcher, now: Callable[[], Instant]
    ) -> None:
        self._role, self._callbacks, self.dispatcher, self._now = role, callbacks, dispatcher, now
        self._term: Term | None = None
        self.running: RunningCallback | None = None

    def elected(self, term: Term) -> None:
        """Announce `on_elected`.

        Args:
            term: The term that begins. Its host is informed, on the dispatcher's thread, when a
                callback has raised. The later ones are not called then.
        """
        self._term = term
        self.call_added()

    def call_added(self) -> None:
        """Announce the `on_elected` callbacks of the present term that were not called yet."""
        term = self._term
        if (
            term is None
            or term._calls_over
            or len(self._callbacks.of_kind("on_elected")) <= term._called
        ):
            return

        async def job() -> None:
            # Jobs run one after the other, and callbacks are only added, at the end.
            functions = self._callbacks.of_kind("on_elected")[term._called :]
            if term._calls_over or not functions:
                return
            term._called += len(functions)
            if await self._call(functions, term, term, elected=True):
                term._calls_over = True  # the later ones are not called
                if term._host is not None:
                    term._host.callback_failed(term)

        self.dispatcher.put(job)

    def lost(self, term: Term) -> Latch:
        """Announce `on_lost`.

        Returns:
            A latch that is set when the callbacks have returned, and every job that ran under the
            term has.
        """
        ended = Latch()
        if not self._callbacks.of_kind("on_lost") and self.dispatcher.idle:
            # There is nothing to call: a handover does not wait for a thread.
            term._calls_over = True
            term._on_idle(ended.set)
            return ended

        async def job() -> None:
            term._calls_over = True
            await self._call(self._callbacks.of_kind("on_lost"), term, term, term.reason)
            term._on_idle(ended.set)

        self.dispatcher.put(job)
        return ended

    def new_leader(self, lease: Lease) -> None:
        """Announce `on_new_leader`."""
        self._follow("on_new_leader", lease)

    def info_changed(self, lease: Lease) -> None:
        """Announce `on_info`."""
        self._follow("on_info", lease)

    def _follow(self, kind: str, lease: Lease) -> None:
        async def job() -> None:
            await self._call(self._callbacks.of_kind(kind), None, lease)

        if self._callbacks.of_kind(kind):
            self.dispatcher.put(job)

    async def _call(
        self, functions: Functions, term: Term | None, *args: Any, elected: bool = False
    ) -> bool:
        """Call them in order, and return whether one failed. `on_elected` stops at the first that
        does."""
        failed = False
        before, task = _current.set(term), _current_task()
        for function in functions:
            self.running = RunningCallback(_name(function), self._now().awake, term, elected)
            try:
                outcome = function(*args)
                if inspect.isawaitable(outcome):
                    await self.dispatcher.settle(outcome)
            except BaseException as err:  # KeyboardInterrupt, GeneratorExit or the user's own, too
                if _is_ending(err, task):
                    raise
                failed = True
                self._log_failure(err, function, term)
                if elected:
                    break
            finally:
                self.running = None
        _current.reset(before)
        return failed

    def _log_failure(self, err: BaseException, function: object, term: Term | None) -> None:
        token = None if term is None else term.token
        name = _name(function)
        log.error("callback.failed", err, role=self._role, token=token, callback=name)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        return None


def _is_ending(err: BaseException, task: asyncio.Task[Any] | None) -> bool:
    """Return whether the task that calls is being ended itself, instead of what a callback does."""
    if task is None:  # a thread, which nobody cancels
        return False
    if isinstance(err, asyncio.CancelledError):
        return sys.version_info < (3, 11) or task.cancelling() > 0  # Python 3.10 cannot tell
    # Closing a coroutine raises GeneratorExit in it, outside of its task.
    return isinstance(err, GeneratorExit) and _current_task() is not task


def _name(function: object) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
