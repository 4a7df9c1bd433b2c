"""What a standing candidate needs of its coordinator."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, Protocol

from coord.core.announcements import Announcement, Candidate
from coord.core.lease import Lease
from coord.core.operations import Operation, Result
from coord.core.timing import Instant
from coord.election.elector import Elector


class Surroundings(Protocol):
    """A store to ask, feeds to hear, a board to be listed on, and the clocks."""

    @property
    def max_clock_skew(self) -> float | None:
        """How far the store's clock may be off, in seconds; None: it is not to be gone by."""

    @property
    def context(self) -> contextvars.Context:
        """What timers are run in: one for all candidates, where each would have a copy of its own."""

    def now(self) -> Instant:
        """The clocks."""

    def ask(
        self, operation: Operation, timeout: float, going: Callable[[], None] = ...
    ) -> Awaitable[Result]:
        """Put one operation to the store, bounded by `timeout` seconds. Never raises for a store's trouble. `going` is
        called when it leaves, for it may have to wait before that."""

    def begin(self, operation: Operation, timeout: float) -> Coroutine[Any, Any, Result] | None:
        """Put it to the store in this very turn of the loop, to be awaited as `ask` is. None: that cannot be done."""

    def follow(self, role: str, listener: Callable[[Lease], None]) -> Callable[[], None]:
        """Hear the feed's hints about `role`; returns what ends that."""

    def list_waiting(
        self, candidate: Candidate, ttl: float, heard: Callable[[int], None]
    ) -> Callable[[], None]:
        """Show it on the board, if there is one; `heard` is told how many wait. Returns what ends that."""

    def stands_no_more(self, standing: Any) -> None:
        """The candidate `standing` is done."""

    def posted(self, role: str) -> list[Announcement]:
        """What was posted loudly about the role, as far as this process has heard."""

    def heeded(self, role: str, key: str) -> None:
        """The notice `key` was acted upon: it is taken off the board."""


# -- Timers stand still while the machine sleeps: when it has slept, let all candidates look at the clock at once.

SUSPEND_CHECK = 0.5
"""Seconds between looks at whether the machine slept, while somebody stands for something."""


class SuspendDetector:
    """For the candidates in `standings`, as long as there are any. `now` reads the clocks."""

    def __init__(self, standings: Collection[Elector], now: Callable[[], Instant]) -> None:
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
