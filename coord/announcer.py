"""Tells a leadership's callbacks what happened, through its dispatcher, and lives through what they do."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from coord import events
from coord.callbacks import Callbacks, Dispatcher, Functions
from coord.flag import Flag
from coord.lease import Lease
from coord.term import Term, _current
from coord.timing import Instant


class Running(NamedTuple):
    """A callback that has not returned: since when (awake clock), under which term, whether it is an `on_elected`."""

    name: str
    since: float
    term: Term | None
    elected: bool


class Announcer:
    """Each method returns at once; what it announces is called after all that was announced before."""

    __slots__ = ("_callbacks", "_dispatcher", "_now", "_role", "running")

    def __init__(self, role: str, callbacks: Callbacks, dispatcher: Dispatcher, now: Callable[[], Instant]) -> None:
        self._role, self._callbacks, self._dispatcher, self._now = role, callbacks, dispatcher, now
        self.running: Running | None = None

    @property
    def idle(self) -> bool:
        """Whether all that was announced has been called."""
        return self._dispatcher.idle

    def elected(self, term: Term, failed: Callable[[], None]) -> None:
        """`on_elected`, up to the first that raises; then `failed()`, on the dispatcher's thread."""
        if not self._callbacks.elected:
            return

        async def job() -> None:
            if await self._call(self._callbacks.elected, term, term, stop_at_error=True):
                failed()

        self._dispatcher.put(job)

    def lost(self, term: Term) -> Flag:
        """`on_lost`. The flag is set when that is over, and with it every job that ran under the term."""
        ended = Flag()
        if not self._callbacks.lost and self._dispatcher.idle:  # nobody to call: a handover does not wait for a thread
            term._when_idle(ended.set)
            return ended

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

    async def _call(self, functions: Functions, term: Term | None, *args: Any, stop_at_error: bool = False) -> bool:
        """Call them in order. What one raises is logged. Whether one did."""
        failed = False
        reset = _current.set(term)
        for function in functions:
            self.running = Running(_name(function), self._now().awake, term, functions is self._callbacks.elected)
            try:
                outcome = function(*args)
                if inspect.isawaitable(outcome):
                    await self._dispatcher.settle(outcome)
            except (Exception, SystemExit, asyncio.CancelledError) as err:
                if isinstance(err, asyncio.CancelledError) and _cancelled():
                    raise
                token = None if term is None else term.token
                events.failure("callback.failed", err, role=self._role, token=token, callback=_name(function))
                failed = True
                if stop_at_error:
                    break
            finally:
                self.running = None
        _current.reset(reset)
        return failed


def _cancelled() -> bool:
    """Whether what calls is being cancelled itself, rather than something that a callback waited for."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread's work, which nobody cancels
        return False
    return task is not None and (sys.version_info < (3, 11) or task.cancelling() > 0)  # 3.10 cannot tell


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
