"""So many at a time, and the others in turn: a semaphore that costs those who wait a future, and no coroutines."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Lives on one loop. `turn = turns.take()`; await it, where it is not None; in the end `turns.give_back(turn)`."""

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
        """Let the next one go on. Whoever was cancelled gives back, too: its turn may have come just before."""
        if turn is not None and (turn.cancelled() or not turn.done()):
            turn.cancel()  # it never came
            return
        while self._queue:
            if not (following := self._queue.popleft()).done():
                following.set_result(None)
                return
        self._free += 1
