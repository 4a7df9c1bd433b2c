"""Tells a leadership's callbacks what happened, through its dispatcher, and lives through what they do."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from coord import events
from coord.callbacks import Callbacks, Dispatcher
from coord.flag import Flag
from coord.lease import Lease
from coord.term import Term, _current


class Announcer:
    """Each method returns at once; what it announces is called after all that was announced before."""

    __slots__ = ("_callbacks", "_dispatcher", "_role")

    def __init__(self, role: str, callbacks: Callbacks, dispatcher: Dispatcher) -> None:
        self._role, self._callbacks, self._dispatcher = role, callbacks, dispatcher

    def elected(self, term: Term, failed: Callable[[], None]) -> None:
        """`on_elected`, up to the first that raises; then `failed()`, on the dispatcher's thread."""

        async def job() -> None:
            if await self._call(self._callbacks.elected, term, term, stop_at_error=True):
                failed()

        self._dispatcher.put(job)

    def lost(self, term: Term) -> Flag:
        """`on_lost`. The flag is set when that is over, and with it every job that ran under the term."""
        ended = Flag()

        async def job() -> None:
            await self._call(self._callbacks.lost, term, term, term.reason)
            term._when_idle(ended.set)

        self._dispatcher.put(job)
        return ended

    def new_leader(self, lease: Lease) -> None:
        """`on_new_leader`."""

        async def job() -> None:
            await self._call(self._callbacks.new_leader, None, lease)

        if self._callbacks.new_leader:
            self._dispatcher.put(job)

    async def _call(
        self, functions: list[Callable[..., Any]], term: Term | None, *args: Any, stop_at_error: bool = False
    ) -> bool:
        """Call them in order. What one raises is logged. Whether one did."""
        failed = False
        reset = _current.set(term)
        for function in tuple(functions):
            try:
                outcome = function(*args)
                if inspect.isawaitable(outcome):
                    await self._dispatcher.settle(outcome)
            except (Exception, SystemExit) as err:
                name = getattr(function, "__qualname__", repr(function))
                token = None if term is None else term.token
                events.failure("callback.failed", err, role=self._role, token=token, callback=name)
                failed = True
                if stop_at_error:
                    break
        _current.reset(reset)
        return failed
