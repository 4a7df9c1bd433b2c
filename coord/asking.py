"""Putting to the store what the core wants put: before anybody awaits it where the store can, and never raising."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Union

from coord import events
from coord.backoff import pause
from coord.election import Send
from coord.operations import Failure, Operation, Result
from coord.putting import in_time

if TYPE_CHECKING:
    from coord.surroundings import Surroundings

Sent = Union[Coroutine[Any, Any, Result], None]
"""What is to be awaited for the answer to something that was sent; None: it was not."""

SILENT_AFTER = 3
"""Tries without an answer after which whoever waits for the outcome of the first claim is told that there is none."""
BEGUN_AT_ONCE = 16
"""Requests of a coordinator that are under way together besides those which wait in turn."""


class Prompting:
    """Sends before anybody awaits, where the store can (`stores.protocol.Prompt`). `heard` is told of each result."""

    def __init__(self, heard: Callable[[Result], None]) -> None:
        self._heard = heard
        self.under_way = 0

    def begin(self, store: object, operation: Operation, timeout: float) -> Sent:
        """What is to be awaited then; None: it cannot be sent now."""
        begin: Callable[[Operation, float], Sent] | None = getattr(store, "begin", None)
        sent = None if begin is None or self.under_way >= BEGUN_AT_ONCE else begin(operation, timeout)
        if sent is None:
            return None
        self.under_way += 1
        return self._answer(sent, timeout)

    async def _answer(self, sent: Coroutine[Any, Any, Result], timeout: float) -> Result:
        try:
            result = await in_time(sent, timeout)
        finally:
            self.under_way -= 1
        self._heard(result)
        return result


def begin(around: Surroundings, send: Send) -> Sent:
    """Send it in this very turn of the loop, if that can be done."""
    try:
        return around.begin(send.operation, send.timeout)
    except Exception:  # then it is asked, and what comes of that lived through
        return None


def misbehaved(err: Exception, role: str) -> Failure:
    """A candidate outlives whatever a store does; the outcome is then unknown."""
    events.failure("store.misbehaved", err, role=role)
    return Failure(unknown=True, detail=type(err).__name__)


def drop(sent: Sent) -> None:
    """Give up what was sent and nobody will await: it is cancelled where it waits."""
    if sent is not None:
        with contextlib.suppress(StopIteration, asyncio.CancelledError):
            sent.send(None)
            sent.throw(asyncio.CancelledError())


def retry_in(result: Result, failures: int, ttl: float) -> float:
    """Seconds for which the next try is held back after that many in a row that failed."""
    if not isinstance(result, Failure):
        return 0.0
    return ttl / 3 if result.permanent else pause(failures, 0.05, min(5.0, ttl / 3))
