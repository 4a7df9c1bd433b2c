"""Timeouts, deadlines and a semaphore that are cheaper than those of asyncio."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable, Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


async def within(work: Awaitable[T], timeout: float | None) -> T:
    """Return what `work` returns, within `timeout` seconds (None: no limit).

    Raises:
        asyncio.TimeoutError: The time is over; `work` was cancelled.
    """
    # Up to Python 3.11 `wait_for` swallows a cancellation that arrives together with the result, so
    # that the canceller waits forever.
    if sys.version_info >= (3, 11):
        async with asyncio.timeout(timeout):
            return await work
    if timeout is None:
        return await work
    # A timer that cancelled this task could hide that the caller cancels it, too.
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=timeout)
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    if task.cancelled():
        raise asyncio.TimeoutError
    return task.result()


async def finished(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run `work` in a task of its own, and return the task when it is done.

    A task that is cancelled then was cancelled by `work` itself, for instance because it awaited
    another task that was: a cancellation of the caller raises CancelledError here.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task})
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    return task


class HasDeadline(Protocol):
    """Something that waits until a deadline."""

    @property
    def deadline(self) -> float:
        """The time at which the wait ends, by the clock of the loop."""

    def on_deadline(self) -> None:
        """End the wait. Called on the loop."""


class DeadlineTimer:
    """One timer of a loop for many deadlines, of which few ever pass.

    A timer for each call took a fifth of the time of a call to another thread and back. The timer
    is not cancelled when its deadline is removed; it then finds nothing to do.

    Args:
        loop: The loop whose clock the deadlines are on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: set[HasDeadline] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, waiting: HasDeadline) -> None:
        """Call `waiting.on_deadline()` at its deadline, unless it is removed before."""
        self._waiting.add(waiting)
        if self._timer is None or waiting.deadline < self._timer.when():
            self._schedule(waiting.deadline)

    def remove(self, waiting: HasDeadline) -> None:
        """Undo `add`; does nothing if its deadline has passed."""
        self._waiting.discard(waiting)

    def _schedule(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, now = None, self._loop.time()
        late = [waiting for waiting in self._waiting if waiting.deadline <= now]
        self._waiting.difference_update(late)
        if self._waiting:
            self._schedule(min(waiting.deadline for waiting in self._waiting))
        for waiting in late:
            waiting.on_deadline()


class LightSemaphore:
    """A semaphore of one loop that costs no turn of the loop while it is free.

    Use it as `turn = semaphore.acquire()`, await `turn` unless it is None, and call
    `semaphore.release(turn)` at the end, also after a cancellation.

    Args:
        limit: How many holders it admits at a time.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def locked(self) -> bool:
        """Whether the next `acquire` has to wait."""
        return self._free == 0

    def acquire(self) -> asyncio.Future[None] | None:
        """Return a future to await for admission; None means admitted."""
        if self._free > 0:
            self._free -= 1
            return None
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        return turn

    def release(self, turn: asyncio.Future[None] | None) -> None:
        """Admit the next waiter. A cancelled waiter calls it too: it may have been admitted."""
        if turn is not None and (turn.cancelled() or not turn.done()):
            turn.cancel()  # it was never admitted
            return
        while self._queue:
            if not (following := self._queue.popleft()).done():
                following.set_result(None)
                return
        self._free += 1
