"""Wakes those that have waited long enough: one timer for all of them, for hardly one ever has.

Setting a timer for each call, and taking it back, took a fifth of the way to the thread and back.
"""

from __future__ import annotations

import asyncio
from typing import Protocol


class Waiting(Protocol):
    """`until` is by the loop's clock; `wake` is called then, on the loop."""

    @property
    def until(self) -> float: ...

    def wake(self) -> None: ...


class Alarm:
    """Of one loop. The timer stays when what it was set for is over: it finds nothing then, and is set no more."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: set[Waiting] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: Waiting) -> None:
        """Wake it when its time is over, unless it is removed before."""
        self._waiting.add(one)
        if self._timer is None or one.until < self._timer.when():
            self._set(one.until)

    def remove(self, one: Waiting) -> None:
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
