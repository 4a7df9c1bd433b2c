"""What a standing candidate needs of its coordinator."""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from coord.candidate import Candidate
from coord.lease import Lease
from coord.notice import Notice
from coord.operations import Operation, Result
from coord.timing import Instant


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

    def ask(self, operation: Operation, timeout: float, going: Callable[[], None] = ...) -> Awaitable[Result]:
        """Put one operation to the store, bounded by `timeout` seconds. Never raises for a store's trouble. `going` is
        called when it leaves, for it may have to wait before that."""

    def begin(self, operation: Operation, timeout: float) -> Coroutine[Any, Any, Result] | None:
        """Put it to the store in this very turn of the loop, to be awaited as `ask` is. None: that cannot be done."""

    def follow(self, role: str, listener: Callable[[Lease], None]) -> Callable[[], None]:
        """Hear the feed's hints about `role`; returns what ends that."""

    def list_waiting(self, candidate: Candidate, ttl: float, heard: Callable[[int], None]) -> Callable[[], None]:
        """Show it on the board, if there is one; `heard` is told how many wait. Returns what ends that."""

    def stands_no_more(self, standing: Any) -> None:
        """The candidate `standing` is done."""

    def posted(self, role: str) -> list[Notice]:
        """What was posted loudly about the role, as far as this process has heard."""

    def heeded(self, role: str, key: str) -> None:
        """The notice `key` was acted upon: it is taken off the board."""
