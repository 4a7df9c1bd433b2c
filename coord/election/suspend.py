"""Notices that the machine was suspended, and wakes the candidates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol

from coord.core.timing import Instant
from coord.runtime.retry import restart_on_failure

SUSPEND_CHECK_EVERY = 0.5
"""Seconds between two checks whether the machine was suspended, while the session has members."""
MIN_SUSPEND = 0.1
"""Seconds of suspend that are worth waking all members for."""


class Wakeable(Protocol):
    """A candidate, as far as this module needs it."""

    def wake(self) -> None:
        """Look at the clock again: the machine was suspended."""


class SuspendDetector:
    """Wakes the members of a session when the machine was suspended, because timers stand still
    meanwhile.

    Args:
        members: The candidates to wake; it runs while there are any.
        now: Reads the clocks.
    """

    def __init__(self, members: Collection[Wakeable], now: Callable[[], Instant]) -> None:
        self._members, self._now = members, now
        self._task: asyncio.Task[None] | None = None
        self.last_tick: float | None = None
        """When the loop turned last, on the awake clock, to half a second; None while there are no
        members."""

    def start(self) -> None:
        """Check from now on, if it does not run already."""
        if self._task is None or self._task.done():
            self.last_tick = self._now().awake
            loop = asyncio.get_running_loop()
            work = restart_on_failure(self._run, "detect suspend")
            self._task = loop.create_task(work, name="coord suspend")

    def stop(self) -> None:
        """Check no longer."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        before = self._now()
        while self._members:
            await asyncio.sleep(SUSPEND_CHECK_EVERY)
            after = self._now()
            self.last_tick = after.awake
            suspended = (after.total - before.total) - (after.awake - before.awake)
            if suspended > MIN_SUSPEND:
                for member in tuple(self._members):
                    member.wake()
            before = after
        self.last_tick = None
