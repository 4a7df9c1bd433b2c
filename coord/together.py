"""Claims, releases and looks of many roles go out together, where a store can: ten thousand roles at once, in dozens of
queries.

A few at a time go alone, and at once. What is asked while those are under way waits here, and leaves with the next
batch. A batch is as large as the store answers in good time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Union

from coord.operations import Claim, Failure, Look, Operation, Release, Renew, Result
from coord.renewals import settle

ALONE_AT_ONCE = 32
"""Requests that are under way by themselves, before others travel together."""
AT_ONCE = 2
"""Batches that are under way, so that the store has something to do while an answer is on its way."""
FEWEST, FIRST, MOST = 16, 64, 512
"""Requests to a batch: at the least, at first, and at most."""

Together = Union[Claim, Release, Look]
Ask = Callable[[Sequence[Together], float], Awaitable[Sequence[Result]]]


class _Waiting:
    __slots__ = ("future", "going", "operation", "timeout")

    def __init__(self, operation: Together, timeout: float, going: Callable[[], None], loop: asyncio.AbstractEventLoop):
        self.operation, self.timeout, self.going = operation, timeout, going
        self.future: asyncio.Future[Result] = loop.create_future()


class Batches:
    """Those of one coordinator. `ask` puts requests for different roles to the store; `heard` is told of one result of
    each batch: of a failure, where there was one. Lives on one loop."""

    def __init__(self, ask: Ask, heard: Callable[[Result], None]) -> None:
        self._ask, self._heard = ask, heard
        self._waiting: dict[str, _Waiting] = {}
        """By role: of each one, for a query has each role once."""
        self._under_way: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._size = FIRST

    def add(self, operation: Operation, timeout: float, going: Callable[[], None]) -> asyncio.Future[Result] | None:
        """The result of this one, `timeout` seconds after it leaves at the latest; `going` is called when it does.

        None: it cannot travel with the others, for one about that role waits already.
        """
        if isinstance(operation, Renew) or operation.role in self._waiting:
            return None
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # what was left of the one before is over with it, tasks included
            self._loop, self._waiting, self._under_way = loop, {}, set()
        waiting = self._waiting[operation.role] = _Waiting(operation, timeout, going, loop)
        if len(self._under_way) < AT_ONCE:
            self._begin(loop)
        return waiting.future

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(self._send(), name="coord batches")
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Of its own accord, or cancelled, perhaps before it began. A loop that ends cancels it; who holds a lease asks
        only then, to give it back, and must not wait for a batch that never leaves."""
        loop = task.get_loop()
        if loop is self._loop:
            self._under_way.discard(task)
            if len(self._under_way) < AT_ONCE and any(not one.future.done() for one in self._waiting.values()):
                self._begin(loop)

    async def _send(self) -> None:
        try:
            await self._send_all()
        finally:  # not a turn of the loop later: whoever is added then would wait for the next one
            task = asyncio.current_task()
            if task is not None:
                self._under_way.discard(task)

    async def _send_all(self) -> None:
        while batch := self._next():
            loop = asyncio.get_running_loop()
            timeout, began = batch[0].timeout, loop.time()
            for one in batch:
                one.going()
            try:
                results = await self._ask([one.operation for one in batch], timeout)
                answered = list(zip(batch, results, strict=True))
            except asyncio.CancelledError:
                self._fail(batch, "the coordinator was closed")
                raise
            except Exception as err:  # whatever a store does, its requests are merely unknown
                self._fail(batch, type(err).__name__)
                continue
            self._fit(len(batch), loop.time() - began, timeout)
            for one, result in answered:
                settle(one.future, result)
            self._heard(next((one for one in results if isinstance(one, Failure)), results[0]))

    def _next(self) -> list[_Waiting]:
        """Those that have waited longest, and have as much time for the answer as the first of them."""
        batch: list[_Waiting] = []
        gone: list[str] = []
        for role, one in self._waiting.items():  # up to where it is full: thousands may stand behind
            if one.future.done():  # whoever waited was cancelled
                gone.append(role)
            elif not batch or one.timeout == batch[0].timeout:
                batch.append(one)
                gone.append(role)
                if len(batch) == self._size:
                    break
        for role in gone:
            del self._waiting[role]
        return batch

    def _fit(self, size: int, took: float, timeout: float) -> None:
        """A batch is to take an eighth to a quarter of the time that there is."""
        if took > timeout / 4:
            self._size = max(FEWEST, self._size // 2)
        elif took < timeout / 8 and size == self._size:
            self._size = min(MOST, self._size * 2)

    def _fail(self, batch: Sequence[_Waiting], detail: str) -> None:
        failure = Failure(unknown=True, detail=detail)
        for one in batch:
            settle(one.future, failure)
        self._heard(failure)
