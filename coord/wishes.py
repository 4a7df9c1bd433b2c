"""What is posted loudly about the roles that this coordinator stands for: orders, and candidates that are preferred.

Hints, like all that is on the board: a leader that hears nothing leads on, and one that hears of it late is late.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

from coord import events
from coord.backoff import Backoff
from coord.board.protocol import Board
from coord.errors import BadArgument, StoreRefused
from coord.notice import Notice

SWEEP = 60.0
"""Seconds between looks for what has run out."""
NO_BOARD = 60.0
"""Seconds until a store that had no board is asked again."""
WITHDRAW_WITHIN = 5.0


class Wishes:
    """Listens while it is begun and not ended. `hear` is told the role of each notice that came. Lives on one loop."""

    def __init__(self, board: Callable[[], Board], hear: Callable[[str], None]) -> None:
        self._board, self._hear = board, hear
        self._heard: dict[str, dict[str, tuple[Notice, float]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._swept = 0.0
        self._ending: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Listen from now on, if the store has a board."""
        if self._task is None or self._task.done():
            try:
                self._board()
            except BadArgument:  # a store of somebody else's, without one
                return
            self._task = asyncio.get_running_loop().create_task(self._run(), name="coord wishes")

    def end(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._heard.clear()

    async def close(self) -> None:
        """End, and wait until nothing of this uses the store."""
        tasks = [*self._ending, *([self._task] if self._task is not None else [])]
        self.end()
        await asyncio.gather(*tasks, return_exceptions=True)

    def about(self, role: str) -> list[Notice]:
        """What was posted about it and has not run out, by the clock of this process."""
        now = asyncio.get_running_loop().time()
        there = self._heard.get(role, {})
        for key in [key for key, (_, until) in there.items() if until <= now]:
            del there[key]
        return [notice for notice, _ in there.values()]

    def heeded(self, role: str, key: str) -> None:
        """It has been done: forget it, and take it off the board, so that nobody waits for it any more."""
        self._heard.get(role, {}).pop(key, None)
        task = asyncio.get_running_loop().create_task(self._withdraw(key), name="coord withdraw")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _withdraw(self, key: str) -> None:
        with contextlib.suppress(Exception):  # then it runs out
            await self._board().withdraw([key], WITHDRAW_WITHIN)

    async def _run(self) -> None:
        backoff = Backoff(0.1, 10.0)
        while True:
            try:
                await self._follow(backoff)
            except StoreRefused as err:
                events.debug("feed.broken", error=type(err).__name__)
                await asyncio.sleep(NO_BOARD)
            except Exception as err:  # whatever a store does, leaders lead on
                events.debug("feed.broken", error=type(err).__name__)
                await asyncio.sleep(backoff.next())

    async def _follow(self, backoff: Backoff) -> None:
        feed = cast("AsyncGenerator[Notice, Any]", self._board().watch())
        async with contextlib.aclosing(feed):
            async for notice in feed:
                backoff.reset()
                now = asyncio.get_running_loop().time()
                if now > self._swept + SWEEP:
                    self._swept = now
                    self._heard = {role: self._heard[role] for role in tuple(self._heard) if self.about(role)}
                self._heard.setdefault(notice.role, {})[notice.key] = (notice, now + notice.remaining)
                self._hear(notice.role)
