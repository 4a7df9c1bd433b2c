"""Looks, by a timer on coord's own loop, whether the watched jobs of a term go forward (`at_most`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coord.term import Term


class Watchdog:
    """Calls `stalled` once a watched job of the term stands still. Costs one timer while such a job runs.

    The timer is only what makes the loss *told* soon: `Term.held` reads the clock itself, so a loop that is late
    delays `on_lost`, and nobody believes for longer. A job that goes forward does not touch the timer; that finds out
    when it fires, once per `at_most`.
    """

    __slots__ = ("_loop", "_stalled", "_term", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, stalled: Callable[[], None]) -> None:
        self._loop, self._stalled = loop, stalled
        self._term: Term | None = None
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, term: Term) -> None:
        """Look at this term now, and again when its next job should have moved. On the loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._term = term
        left = term._stalls_in()
        if left == 0:
            self._stalled()
        elif left is not None:
            self._timer = self._loop.call_later(left, self.watch, term)
