"""Renewals of many roles go out as one query: what is asked while a query is under way travels with the next."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence

from coord.operations import Failure, Renew, Result

Ask = Callable[[Sequence[Renew], float], Awaitable[Sequence[Result]]]

MOST_AT_ONCE = 2_000
MANY, PATIENCE = 8, 0.1
"""A batch that follows one of `MANY` or more waits for company, for this share of the time that its members have: ten
thousand roles then cost tens of queries a second, not hundreds. A process with few roles never waits."""
TOO_LATE = Failure(unknown=True, detail="no answer in time")


class Renewals:
    """Collects the renewals of one coordinator. `ask` is the store's `renew`; `heard` is told of one result of each
    batch: of a failure, where there was one."""

    def __init__(self, ask: Ask, heard: Callable[[Result], None]) -> None:
        self._ask, self._heard = ask, heard
        self._waiting: list[tuple[Renew, float, asyncio.Future[Result]]] = []
        self._sent: list[tuple[Renew, float, asyncio.Future[Result]]] = []
        self._late: asyncio.TimerHandle | None = None  # one for all: thousands wait, and hardly one is late
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before = 0

    def renew(self, renewal: Renew, timeout: float) -> asyncio.Future[Result]:
        """The result of this one, within `timeout` seconds whatever happens to the batch."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # what was left of the one before is over with it, timer and task included
            self._loop, self._waiting, self._sent, self._late, self._task = loop, [], [], None, None
        future: asyncio.Future[Result] = loop.create_future()
        until = loop.time() + timeout
        self._waiting.append((renewal, until, future))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._send(), name="coord renewals")
        if self._late is None or until < self._late.when():
            self._look_again(until)
        return future

    async def _send(self) -> None:
        try:
            while self._waiting:
                await self._send_some()
        except asyncio.CancelledError:
            self._fail(self._sent + self._waiting, "the coordinator was closed")
            self._waiting = []
            raise
        finally:
            self._sent = []
            self._look_again(None)

    async def _send_some(self) -> None:
        loop = asyncio.get_running_loop()
        if self._before >= MANY:
            hurry = min(until for _, until, _ in self._waiting) - loop.time()
            await asyncio.sleep(max(0.0, min(hurry * PATIENCE, 0.25)))
        first, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
        # Who gave up meanwhile may have asked anew, and a query has each role once; or the store may be closed by now.
        batch = [one for one in first if not one[2].done()]
        if not batch:
            return
        # The batch is given as long as its most patient member has; the others give up by themselves.
        self._before, self._sent = len(batch), batch
        timeout = max(until for _, until, _ in batch) - loop.time()
        try:
            results = await self._ask([renewal for renewal, _, _ in batch], max(timeout, 0.001))
            answered = list(zip(batch, results, strict=True))
        except Exception as err:  # whatever a store does, its renewals are merely unknown
            self._fail(batch, type(err).__name__)
            return
        told = answered[0][1]
        for (_, _, future), result in answered:
            settle(future, result)
            if isinstance(result, Failure):
                told = result
        self._heard(told)

    def _fail(self, batch: list[tuple[Renew, float, asyncio.Future[Result]]], detail: str) -> None:
        failure = Failure(unknown=True, detail=detail)
        for _, _, future in batch:
            settle(future, failure)
        self._heard(failure)

    def _look_again(self, moment: float | None) -> None:
        """At whether one is late."""
        if self._late is not None:
            self._late.cancel()
        self._late = None if moment is None else asyncio.get_running_loop().call_at(moment, self._give_up)

    def _give_up(self) -> None:
        now, self._late = asyncio.get_running_loop().time(), None
        left = [(until, future) for _, until, future in itertools.chain(self._sent, self._waiting) if not future.done()]
        for until, future in left:
            if until <= now:
                settle(future, TOO_LATE)
                self._heard(TOO_LATE)
        if later := [until for until, _ in left if until > now]:
            self._look_again(min(later))


def settle(future: asyncio.Future[Result], result: Result) -> None:
    """Answer whoever still waits."""
    if not future.done():
        future.set_result(result)
