"""Batches: requests about many roles travel to the store in one query.

`RenewalBatcher` sends renewals, `SwapBatcher` claims, releases and reads. Both live on one event
loop and start from nothing if they are used on another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Union

from coord.core.operations import Claim, Failure, Operation, Read, Release, Renew, Result
from coord.runtime.timers import DeadlineTimer, within

SendRenewals = Callable[[Sequence[Renew], float], Awaitable[Sequence[Result]]]

MAX_RENEWALS = 2_000
"""Renewals in a batch."""
WAIT_FROM_SIZE, WAIT_SHARE, MAX_WAIT = 8, 0.1, 0.25
"""A batch that follows one of `WAIT_FROM_SIZE` or more waits for further renewals: for this share
of the time that its members have, and at most `MAX_WAIT` seconds. Ten thousand roles then cost tens
of queries a second, not hundreds. A process with few roles never waits."""
LATE_MARGIN = 0.1
"""Seconds that a store gets beyond its timeout, so that the reason for a failure is its own."""
TOO_LATE = Failure(unknown=True, detail="no answer in time")


class _QueuedRenewal:
    __slots__ = ("deadline", "future", "on_late", "renewal")

    def __init__(
        self,
        renewal: Renew,
        deadline: float,
        future: asyncio.Future[Result],
        on_late: Callable[[Result], None],
    ) -> None:
        self.renewal, self.deadline, self.future = renewal, deadline, future
        self.on_late = on_late

    def on_deadline(self) -> None:
        if not self.future.done():
            self.future.set_result(TOO_LATE)
            self.on_late(TOO_LATE)


class RenewalBatcher:
    """Collects the renewals of a session: while a query is under way, they wait for the next."""

    def __init__(self, send: SendRenewals, on_result: Callable[[Result], None]) -> None:
        """Create a batcher.

        Args:
            send: The store's `renew`.
            on_result: Called with one result of each batch: with a failure, if there is one.
        """
        self._send_batch, self._on_result = send, on_result
        self._waiting: list[_QueuedRenewal] = []
        self._sent: list[_QueuedRenewal] = []
        self._deadlines: DeadlineTimer | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last_size = 0
        self._alone = False

    @property
    def idle(self) -> bool:
        """Whether no renewal waits or is under way."""
        return not self._alone and (self._task is None or self._task.done())

    async def renew_alone(self, renewal: Renew, timeout: float) -> Result:
        """Send a renewal by itself while the batcher is idle, and return its result.

        A caller that awaits it at once gets the result two turns of the loop earlier.
        """
        self._alone = True
        try:
            (result,) = await within(self._send_batch([renewal], timeout), timeout + LATE_MARGIN)
        except asyncio.TimeoutError:  # the store exceeds its timeout
            result = TOO_LATE
        except Exception as err:  # whatever a store does, the renewal is merely unknown
            result = Failure(unknown=True, detail=type(err).__name__)
        finally:
            self._alone = False
        self._on_result(result)
        return result

    def renew(self, renewal: Renew, timeout: float) -> asyncio.Future[Result]:
        """Return the result of a renewal, which arrives within `timeout` seconds."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop or self._deadlines is None:
            self._loop, self._waiting, self._sent, self._task = loop, [], [], None
            self._alone = False
            self._deadlines = DeadlineTimer(loop)
        future: asyncio.Future[Result] = loop.create_future()
        queued = _QueuedRenewal(renewal, loop.time() + timeout, future, self._on_result)
        self._waiting.append(queued)
        self._deadlines.add(queued)
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._send(loop), name="coord renewals")
        return future

    async def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while self._waiting:
                await self._send_some(loop)
        except asyncio.CancelledError:
            self._fail(self._sent + self._waiting, "the coordinator was closed")
            self._waiting = []
            raise
        finally:
            self._sent = []

    async def _send_some(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._last_size >= WAIT_FROM_SIZE:
            remaining = min(queued.deadline for queued in self._waiting) - loop.time()
            await asyncio.sleep(max(0.0, min(remaining * WAIT_SHARE, MAX_WAIT)))
        first, self._waiting = self._waiting[:MAX_RENEWALS], self._waiting[MAX_RENEWALS:]
        # A caller that stopped waiting may have sent a new renewal of its role, and a query has
        # each role once. Or the store may be closed by now.
        batch = [queued for queued in first if not queued.future.done()]
        if not batch:
            return
        # The batch may take as long as the member with the most time; the others time out alone.
        self._last_size, self._sent = len(batch), batch
        timeout = max(queued.deadline for queued in batch) - loop.time()
        renewals = [queued.renewal for queued in batch]
        try:
            results = await self._send_batch(renewals, max(timeout, 0.001))
            answered = list(zip(batch, results, strict=True))
        except Exception as err:  # whatever a store does, its renewals are merely unknown
            self._fail(batch, type(err).__name__)
            return
        reported = answered[0][1]
        for queued, result in answered:
            self._resolve(queued, result)
            if isinstance(result, Failure):
                reported = result
        self._on_result(reported)

    def _fail(self, batch: list[_QueuedRenewal], detail: str) -> None:
        failure = Failure(unknown=True, detail=detail)
        for queued in batch:
            self._resolve(queued, failure)
        self._on_result(failure)

    def _resolve(self, queued: _QueuedRenewal, result: Result) -> None:
        if self._deadlines is not None:
            self._deadlines.remove(queued)
        resolve(queued.future, result)


def resolve(future: asyncio.Future[Result], result: Result) -> None:
    """Set the result of `future`, unless it is done or cancelled."""
    if not future.done():
        future.set_result(result)


MAX_SINGLE_REQUESTS = 32
"""Requests that are under way alone, before others travel in batches."""
MAX_CONCURRENT_BATCHES = 2
"""Batches that are under way: the store works on one while the answer of another is on its way."""
MIN_BATCH_SIZE, INITIAL_BATCH_SIZE, MAX_BATCH_SIZE = 16, 64, 512
"""Requests in a batch of claims, releases and reads."""

Batchable = Union[Claim, Release, Read]
SendAll = Callable[[Sequence[Batchable], float], Awaitable[Sequence[Result]]]


class _QueuedSwap:
    __slots__ = ("future", "on_sent", "operation", "timeout")

    def __init__(
        self,
        operation: Batchable,
        timeout: float,
        on_sent: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ):
        self.operation, self.timeout, self.on_sent = operation, timeout, on_sent
        self.future: asyncio.Future[Result] = loop.create_future()


class SwapBatcher:
    """Collects the claims, releases and reads of a session.

    A few requests travel alone and at once; the session passes on here what comes while those are
    under way. A batch is as large as the store answers in good time.
    """

    def __init__(self, send: SendAll, on_result: Callable[[Result], None]) -> None:
        """Create a batcher.

        Args:
            send: Sends requests about different roles to the store.
            on_result: Called with one result of each batch: with a failure, if there is one.
        """
        self._send_batch, self._on_result = send, on_result
        self._waiting: dict[str, _QueuedSwap] = {}
        """By role: a query has each role once."""
        self._under_way: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._size = INITIAL_BATCH_SIZE

    def add(
        self, operation: Operation, timeout: float, on_sent: Callable[[], None]
    ) -> asyncio.Future[Result] | None:
        """Add a request to the next batch.

        Args:
            operation: The request.
            timeout: Seconds that the request may take, from when it is sent.
            on_sent: Called when it is sent.

        Returns:
            The result; None if the request cannot travel in a batch, because it is a renewal or
            because another one about its role waits already.
        """
        if isinstance(operation, Renew) or operation.role in self._waiting:
            return None
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._waiting, self._under_way = loop, {}, set()
        queued = self._waiting[operation.role] = _QueuedSwap(operation, timeout, on_sent, loop)
        if len(self._under_way) < MAX_CONCURRENT_BATCHES:
            self._start_batch(loop)
        return queued.future

    def _start_batch(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(self._send(), name="coord batches")
        self._under_way.add(task)
        task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        # A loop that ends cancels the task, perhaps before it began. A candidate that gives its
        # lease back at that moment must not wait for a batch that is never sent.
        loop = task.get_loop()
        if loop is self._loop:
            self._under_way.discard(task)
            waiting = any(not queued.future.done() for queued in self._waiting.values())
            if waiting and len(self._under_way) < MAX_CONCURRENT_BATCHES:
                self._start_batch(loop)

    async def _send(self) -> None:
        try:
            while batch := self._next_batch():
                await self._send_one(batch)
        finally:
            # The done callback runs one iteration of the loop later. A request that is added
            # before it must not count on this task.
            task = asyncio.current_task()
            if task is not None:
                self._under_way.discard(task)

    async def _send_one(self, batch: list[_QueuedSwap]) -> None:
        loop = asyncio.get_running_loop()
        timeout, began = batch[0].timeout, loop.time()
        for queued in batch:
            queued.on_sent()
        try:
            results = await self._send_batch([queued.operation for queued in batch], timeout)
            answered = list(zip(batch, results, strict=True))
        except asyncio.CancelledError:
            self._fail(batch, "the coordinator was closed")
            raise
        except Exception as err:  # whatever a store does, its requests are merely unknown
            self._fail(batch, type(err).__name__)
            return
        self._adapt_size(len(batch), loop.time() - began, timeout)
        for queued, result in answered:
            resolve(queued.future, result)
        failures = (result for result in results if isinstance(result, Failure))
        self._on_result(next(failures, results[0]))

    def _next_batch(self) -> list[_QueuedSwap]:
        """Remove and return the requests that have waited longest and have the same timeout."""
        batch: list[_QueuedSwap] = []
        removed: list[str] = []
        for role, queued in self._waiting.items():
            if queued.future.done():  # its caller was cancelled
                removed.append(role)
            elif not batch or queued.timeout == batch[0].timeout:
                batch.append(queued)
                removed.append(role)
                if len(batch) == self._size:
                    break
        for role in removed:
            del self._waiting[role]
        return batch

    def _adapt_size(self, size: int, seconds: float, timeout: float) -> None:
        """Keep the time that a batch takes between an eighth and a quarter of its timeout."""
        if seconds > timeout / 4:
            self._size = max(MIN_BATCH_SIZE, self._size // 2)
        elif seconds < timeout / 8 and size == self._size:
            self._size = min(MAX_BATCH_SIZE, self._size * 2)

    def _fail(self, batch: Sequence[_QueuedSwap], detail: str) -> None:
        failure = Failure(unknown=True, detail=detail)
        for queued in batch:
            resolve(queued.future, failure)
        self._on_result(failure)
