"""Timers stand still while the machine sleeps: when it has slept, let all candidates look at the clock at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from coord.standing import Standing
from coord.timing import Instant

SUSPEND_CHECK = 0.5
"""Seconds between looks at whether the machine slept, while somebody stands for something."""


class SuspendWatch:
    """For the candidates in `standings`, as long as there are any. `now` reads the clocks."""

    def __init__(self, standings: Collection[Standing], now: Callable[[], Instant]) -> None:
        self._standings, self._now = standings, now
        self._task: asyncio.Task[None] | None = None
        self.ticked: float | None = None
        """When the loop turned last, on the awake clock, to half a second; None while nobody stands for anything."""

    def begin(self) -> None:
        """Look from now on, if nobody does."""
        if self._task is None or self._task.done():
            self.ticked = self._now().awake
            self._task = asyncio.get_running_loop().create_task(self._run(), name="coord suspend")

    def end(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        before = self._now()
        while self._standings:
            await asyncio.sleep(SUSPEND_CHECK)
            after = self._now()
            self.ticked = after.awake
            if (after.total - before.total) - (after.awake - before.awake) > 0.1:
                for standing in tuple(self._standings):
                    standing.wake()
            before = after
        self.ticked = None
