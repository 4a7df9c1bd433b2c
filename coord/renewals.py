"""Renewals of many roles go out as one query: what is asked while a query is under way travels with the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from coord.operations import Failure, Renew, Result

Ask = Callable[[Sequence[Renew], float], Awaitable[Sequence[Result]]]

MOST_AT_ONCE = 2_000
MANY, PATIENCE = 8, 0.1
"""A batch that follows one of `MANY` or more waits for company, for this share of the time that its members have: ten
thousand roles then cost tens of queries a second, not hundreds. A process with few roles never waits."""


class Renewals:
    """Collects the renewals of one coordinator. `ask` is the store's `renew`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._waiting: list[tuple[Renew, float, asyncio.Future[Result]]] = []
        self._task: asyncio.Task[None] | None = None
        self._before = 0

    async def renew(self, renewal: Renew, timeout: float) -> Result:
        """The result of this one, within `timeout` seconds whatever happens to the batch."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((renewal, loop.time() + timeout, future))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._send(), name="coord renewals")
        give_up = loop.call_later(timeout, _settle, future, Failure(unknown=True, detail="no answer in time"))
        try:
            return await future
        finally:
            give_up.cancel()

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            if self._before >= MANY:
                hurry = min(until for _, until, _ in self._waiting) - loop.time()
                await asyncio.sleep(max(0.0, min(hurry * PATIENCE, 0.25)))
            batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
            # The batch is given as long as its most patient member has; the others give up by themselves.
            self._before = len(batch)
            timeout = max(until for _, until, _ in batch) - loop.time()
            try:
                results = await self._ask([renewal for renewal, _, _ in batch], max(timeout, 0.001))
            except asyncio.CancelledError:
                self._fail(batch + self._waiting, "the coordinator was closed")
                raise
            except Exception as err:  # whatever a store does, its renewals are merely unknown
                self._fail(batch, type(err).__name__)
                continue
            for (_, _, future), result in zip(batch, results, strict=True):
                _settle(future, result)

    @staticmethod
    def _fail(batch: list[tuple[Renew, float, asyncio.Future[Result]]], detail: str) -> None:
        for _, _, future in batch:
            _settle(future, Failure(unknown=True, detail=detail))


def _settle(future: asyncio.Future[Result], result: Result) -> None:
    if not future.done():
        future.set_result(result)
