"""Renewals of many roles go out as one query: what is asked while a query is under way travels with
the next."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Union

from coord.core.operations import Claim, Failure, Operation, Read, Release, Renew, Result

SendRenewals = Callable[[Sequence[Renew], float], Awaitable[Sequence[Result]]]

MAX_BATCH_SIZE = 2_000
MANY, PATIENCE = 8, 0.1
"""A batch that follows one of `MANY` or more waits for company, for this share of the time that its
members have: ten thousand roles then cost tens of queries a second, not hundreds. A process with
few roles never waits."""
TOO_LATE = Failure(unknown=True, detail="no answer in time")


class RenewalBatcher:
    """Collects the renewals of one coordinator. `ask` is the store's `renew`; `heard` is told of
    one result of each
    batch: of a failure, where there was one."""

    def __init__(self, ask: SendRenewals, heard: Callable[[Result], None]) -> None:
        self._ask, self._heard = ask, heard
        self._waiting: list[tuple[Renew, float, asyncio.Future[Result]]] = []
        self._sent: list[tuple[Renew, float, asyncio.Future[Result]]] = []
        self._late: asyncio.TimerHandle | None = (
            None  # one for all: thousands wait, and hardly one is late
        )
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before = 0

    def renew(self, renewal: Renew, timeout: float) -> asyncio.Future[Result]:
        """The result of this one, within `timeout` seconds whatever happens to the batch."""
        loop = asyncio.get_running_loop()
        if (
            loop is not self._loop
        ):  # what was left of the one before is over with it, timer and task included
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
        first, self._waiting = self._waiting[:MAX_BATCH_SIZE], self._waiting[MAX_BATCH_SIZE:]
        # Who gave up meanwhile may have asked anew, and a query has each role once; or the store
        # may be closed by now.
        batch = [one for one in first if not one[2].done()]
        if not batch:
            return
        # The batch is given as long as its most patient member has; the others give up by
        # themselves.
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
            resolve(future, result)
            if isinstance(result, Failure):
                told = result
        self._heard(told)

    def _fail(self, batch: list[tuple[Renew, float, asyncio.Future[Result]]], detail: str) -> None:
        failure = Failure(unknown=True, detail=detail)
        for _, _, future in batch:
            resolve(future, failure)
        self._heard(failure)

    def _look_again(self, moment: float | None) -> None:
        """At whether one is late."""
        if self._late is not None:
            self._late.cancel()
        self._late = (
            None if moment is None else asyncio.get_running_loop().call_at(moment, self._give_up)
        )

    def _give_up(self) -> None:
        now, self._late = asyncio.get_running_loop().time(), None
        left = [
            (until, future)
            for _, until, future in itertools.chain(self._sent, self._waiting)
            if not future.done()
        ]
        for until, future in left:
            if until <= now:
                resolve(future, TOO_LATE)
                self._heard(TOO_LATE)
        if later := [until for until, _ in left if until > now]:
            self._look_again(min(later))


def resolve(future: asyncio.Future[Result], result: Result) -> None:
    """Answer whoever still waits."""
    if not future.done():
        future.set_result(result)


# -- Claims, releases and looks of many roles go out together, where a store can: ten thousand roles
# at once, in dozens of queries. A few at a time go alone, and at once. What is asked while those
# are under way waits here, and leaves with the next batch. A batch is as large as the store answers
# in good time.
#

MAX_SINGLE_REQUESTS = 32
"""Requests that are under way by themselves, before others travel together."""
MAX_CONCURRENT_BATCHES = 2
"""Batches that are under way, so that the store has something to do while an answer is on its
way."""
FEWEST, FIRST, MOST = 16, 64, 512
"""Requests to a batch: at the least, at first, and at most."""

Batchable = Union[Claim, Release, Read]
SendAll = Callable[[Sequence[Batchable], float], Awaitable[Sequence[Result]]]


class _QueuedSwap:
    __slots__ = ("future", "going", "operation", "timeout")

    def __init__(
        self,
        operation: Batchable,
        timeout: float,
        going: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ):
        self.operation, self.timeout, self.going = operation, timeout, going
        self.future: asyncio.Future[Result] = loop.create_future()


class SwapBatcher:
    """Those of one coordinator. `ask` puts requests for different roles to the store; `heard` is
    told of one result of
    each batch: of a failure, where there was one. Lives on one loop."""

    def __init__(self, ask: SendAll, heard: Callable[[Result], None]) -> None:
        self._ask, self._heard = ask, heard
        self._waiting: dict[str, _QueuedSwap] = {}
        """By role: of each one, for a query has each role once."""
        self._under_way: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._size = FIRST

    def add(
        self, operation: Operation, timeout: float, going: Callable[[], None]
    ) -> asyncio.Future[Result] | None:
        """The result of this one, `timeout` seconds after it leaves at the latest; `going` is
        called when it does.

        None: it cannot travel with the others, for one about that role waits already.
        """
        if isinstance(operation, Renew) or operation.role in self._waiting:
            return None
        loop = asyncio.get_running_loop()
        if (
            loop is not self._loop
        ):  # what was left of the one before is over with it, tasks included
            self._loop, self._waiting, self._under_way = loop, {}, set()
        waiting = self._waiting[operation.role] = _QueuedSwap(operation, timeout, going, loop)
        if len(self._under_way) < MAX_CONCURRENT_BATCHES:
            self._begin(loop)
        return waiting.future

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(self._send(), name="coord batches")
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Of its own accord, or cancelled, perhaps before it began. A loop that ends cancels it;
        who holds a lease asks only then, to give it back, and must not wait for a batch that never
        leaves."""
        loop = task.get_loop()
        if loop is self._loop:
            self._under_way.discard(task)
            if len(self._under_way) < MAX_CONCURRENT_BATCHES and any(
                not one.future.done() for one in self._waiting.values()
            ):
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
                resolve(one.future, result)
            self._heard(next((one for one in results if isinstance(one, Failure)), results[0]))

    def _next(self) -> list[_QueuedSwap]:
        """Those that have waited longest, and have as much time for the answer as the first of
        them."""
        batch: list[_QueuedSwap] = []
        gone: list[str] = []
        for (
            role,
            one,
        ) in self._waiting.items():  # up to where it is full: thousands may stand behind
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

    def _fail(self, batch: Sequence[_QueuedSwap], detail: str) -> None:
        failure = Failure(unknown=True, detail=detail)
        for one in batch:
            resolve(one.future, failure)
        self._heard(failure)
