"""Timeouts, deadlines and a semaphore that are cheaper than those of asyncio."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Awaitable
from typing import Protocol, TypeVar

T = TypeVar("T")


async def within(work: Awaitable[T], timeout: float | None) -> T:
    """Return what `work` returns, within `timeout` seconds (None: no limit).

    Raises:
        asyncio.TimeoutError: The time is over; `work` was cancelled.
    """
    # Up to Python 3.11 `wait_for` makes a task: two turns of the loop, which somebody may be
    # waiting for. And it swallows a cancellation that comes together with the outcome: whoever
    # cancelled then waits for ever.
    if sys.version_info >= (3, 11):
        async with asyncio.timeout(timeout):
            return await work
    if timeout is None:
        return await work
    task, late = asyncio.current_task(), False
    assert task is not None

    def give_up() -> None:
        nonlocal late
        late = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(timeout, give_up)
    try:
        return await work
    except asyncio.CancelledError:
        if late:
            raise asyncio.TimeoutError from None
        raise
    finally:
        timer.cancel()


class HasDeadline(Protocol):
    """`until` is by the loop's clock; `wake` is called then, on the loop."""

    @property
    def until(self) -> float: ...

    def wake(self) -> None: ...


class DeadlineTimer:
    """One timer of a loop for many deadlines, of which few ever pass.

    A timer for each call took a fifth of the time of a call to another thread and back. The timer
    is not cancelled when its deadline is removed; it then finds nothing to do.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: set[HasDeadline] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: HasDeadline) -> None:
        """Wake it when its time is over, unless it is removed before."""
        self._waiting.add(one)
        if self._timer is None or one.until < self._timer.when():
            self._set(one.until)

    def remove(self, one: HasDeadline) -> None:
        self._waiting.discard(one)

    def _set(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(moment, self._ring)

    def _ring(self) -> None:
        self._timer, now = None, self._loop.time()
        late = [one for one in self._waiting if one.until <= now]
        self._waiting.difference_update(late)
        if self._waiting:
            self._set(min(one.until for one in self._waiting))
        for one in late:
            one.wake()


class LightSemaphore:
    """Lives on one loop. `turn = turns.take()`; await it, where it is not None; in the end
    `turns.give_back(turn)`."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def busy(self) -> bool:
        """Whether whoever comes now has to wait."""
        return self._free == 0

    def take(self) -> asyncio.Future[None] | None:
        """None: go on at once."""
        if self._free > 0:
            self._free -= 1
            return None
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        return turn

    def give_back(self, turn: asyncio.Future[None] | None) -> None:
        """Let the next one go on. Whoever was cancelled gives back, too: its turn may have come
        just before."""
        if turn is not None and (turn.cancelled() or not turn.done()):
            turn.cancel()  # it never came
            return
        while self._queue:
            if not (following := self._queue.popleft()).done():
                following.set_result(None)
                return
        self._free += 1
