"""The callbacks of a leadership: kept in order, called in order, never on what renews."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from coord import checks, spare

Function = TypeVar("Function", bound=Callable[..., Any])
Job = Callable[[], Coroutine[Any, Any, None]]
Functions = tuple[Callable[..., Any], ...]

inside: contextvars.ContextVar[object] = contextvars.ContextVar("coord_callback_of", default=None)
"""The dispatcher whose callback is running here: a callback that stops its own leadership must not wait for itself."""


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
            cls.listed(elected, "on_elected"), cls.listed(lost, "on_lost"), cls.listed(new_leader, "on_new_leader")
        )

    @staticmethod
    def listed(given: object, argument: str) -> Functions:
        """One function, several, or None, as a tuple."""
        several = given if isinstance(given, (list, tuple)) else [] if given is None else [given]
        return tuple([checks.callback(one, argument) for one in several])


class TakesCallbacks:
    """Callbacks that are added by decorators."""

    __slots__ = ()

    callbacks: Callbacks

    def on_elected(self, function: Function) -> Function:
        """Adds a callback; usable as a decorator."""
        self.callbacks.elected += (checks.callback(function, "on_elected"),)
        return function

    def on_lost(self, function: Function) -> Function:
        """Adds a callback; usable as a decorator."""
        self.callbacks.lost += (checks.callback(function, "on_lost"),)
        return function

    def on_new_leader(self, function: Function) -> Function:
        """Adds a callback; usable as a decorator."""
        self.callbacks.new_leader += (checks.callback(function, "on_new_leader"),)
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
    """One task on the running loop, alive while there is something to do. Plain functions must not block there."""

    __slots__ = ("_jobs", "_task")

    def __init__(self) -> None:
        self._jobs: tuple[Job, ...] = ()  # seldom more than two: a deque would take ten times the memory
        self._task: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        return self._task is None

    def put(self, job: Job) -> None:
        self._jobs += (job,)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work(), name="coord callbacks")

    async def _work(self) -> None:
        inside.set(self)
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
    """A thread, taken while there is something to do: ten thousand quiet roles share the one that is kept.

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
        spare.run(self._work, self._name)

    def _work(self) -> None:
        inside.set(self)
        while True:
            with self._lock:
                if not self._jobs:
                    self._running = False
                    return
                job, self._jobs = self._jobs[0], self._jobs[1:]
            with contextlib.suppress(StopIteration):
                job().send(None)  # it awaits nothing but `settle`, which does not suspend: no loop is needed

    async def settle(self, outcome: Awaitable[Any]) -> None:
        asyncio.run(_finish(outcome))

    def forget(self) -> None:
        self._jobs = ()
        self._lock = threading.Lock()
        self._running = False


async def _finish(outcome: Awaitable[Any]) -> None:
    await outcome
