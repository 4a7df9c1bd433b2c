"""Timeouts, deadlines and a semaphore that are cheaper than those of asyncio."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
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
        self._waiting: dict[HasDeadline, None] = {}  # a set would have no order
        self._timer: asyncio.TimerHandle | None = None

    def add(self, waiting: HasDeadline) -> None:
        """Call `waiting.on_deadline()` at its deadline, unless it is removed before."""
        self._waiting[waiting] = None
        if self._timer is None or waiting.deadline < self._timer.when():
            self._schedule(waiting.deadline)

    def remove(self, waiting: HasDeadline) -> None:
        """Undo `add`; does nothing if its deadline has passed."""
        self._waiting.pop(waiting, None)

    def _schedule(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, now = None, self._loop.time()
        late = [waiting for waiting in self._waiting if waiting.deadline <= now]
        for waiting in late:
            del self._waiting[waiting]
        if self._waiting:
            self._schedule(min(waiting.deadline for waiting in self._waiting))
        for waiting in late:
            waiting.on_deadline()


class Sleeper(Protocol):
    """Something that sleeps until a time of its own."""

    def wake(self) -> None:
        """The time has come. Called on the loop; it must not raise."""


Alarm = list[Any]
"""When a sleeper is woken, a number that no other alarm of the timer has, and the sleeper; None if
it is not woken any more. A list, because heapq compares lists without a call of Python code."""


class SharedTimer:
    """One timer of a loop for many sleepers.

    A timer of the loop for each of ten thousand sleepers takes twice the memory.

    Args:
        context: The sleepers are woken in this context.
    """

    def __init__(self, context: contextvars.Context) -> None:
        self._context = context
        self._alarms: list[Alarm] = []
        self._cancelled = 0
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    def wake_later(self, sleeper: Sleeper, seconds: float) -> Alarm:
        """Wake `sleeper` after so many seconds, on the running loop.

        Returns:
            What `cancel` takes.
        """
        loop = asyncio.get_running_loop()
        self._number += 1
        alarm: Alarm = [loop.time() + seconds, self._number, sleeper]
        heapq.heappush(self._alarms, alarm)
        if self._alarms[0] is alarm:
            self._schedule(loop)
        return alarm

    def cancel(self, alarm: Alarm) -> None:
        """Do not wake the sleeper of `alarm`; does nothing if it was woken."""
        if alarm[2] is None:
            return
        alarm[2] = None
        self._cancelled += 1
        if self._cancelled > 100 and 2 * self._cancelled > len(self._alarms):
            self._alarms = [alarm for alarm in self._alarms if alarm[2] is not None]
            heapq.heapify(self._alarms)
            self._cancelled = 0

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(self._alarms[0][0], self._on_timer, context=self._context)

    def _on_timer(self) -> None:
        loop, timer, self._timer = asyncio.get_running_loop(), self._timer, None
        # The loop calls it up to a resolution of its clock too early.
        now = loop.time() if timer is None else max(loop.time(), timer.when())
        try:
            while self._alarms and self._alarms[0][0] <= now:
                alarm = heapq.heappop(self._alarms)
                sleeper, alarm[2] = alarm[2], None
                if sleeper is None:
                    self._cancelled -= 1
                else:
                    sleeper.wake()
        finally:  # whatever is raised here, the others are woken
            if self._alarms:
                self._schedule(loop)


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
