"""A clock that stands still until a test moves it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from coord.timing import Instant


class ManualClock:
    """Give `clock.now` to a coordinator, and `clock.total` to a `MemoryStore`; then time passes when you say so.

    What waits by this clock is not woken by it; `coord_election.clock` (`coord.testing.pytest_plugin`) sees to that.
    """

    def __init__(self, start: float = 1_000.0) -> None:
        self._instant = Instant(start, start)
        self._lock = threading.Lock()
        self._moved: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<ManualClock awake {self._instant.awake:g} s, total {self._instant.total:g} s>"

    def now(self) -> Instant:
        """Both readings."""
        return self._instant

    def total(self) -> float:
        """Seconds on the clock that counts suspend."""
        return self._instant.total

    def advance(self, seconds: float) -> None:
        """Let time pass in one jump: as for a process that was stopped for so long."""
        self._move(seconds, seconds)

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep: only the clock that counts suspend goes on."""
        self._move(0.0, seconds)

    def when_moved(self, call: Callable[[], None]) -> None:
        """Have `call()` called after every move, on the thread that moves."""
        self._moved.append(call)

    def _move(self, awake: float, total: float) -> None:
        if awake < 0 or total < 0:
            raise ValueError("these clocks never go back")
        with self._lock:
            self._instant = Instant(self._instant.awake + awake, self._instant.total + total)
        for call in tuple(self._moved):
            call()
