"""Sending requests to a store: alone, in a batch, or at once. A failing store never raises here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Union, cast

from coord.core.lease import Lease
from coord.core.operations import (
    Answer,
    Claim,
    Failure,
    Operation,
    Override,
    Read,
    Release,
    Renew,
    Result,
)
from coord.errors import BadArgument, StoreRefused, StoreUnavailable
from coord.runtime.timers import within
from coord.stores.batching import LATE_MARGIN, TOO_LATE
from coord.stores.protocol import (
    Bulk,
    HasAnnouncements,
    HasKept,
    HasRecords,
    Overridable,
    Retirable,
)

if TYPE_CHECKING:
    from coord.stores.batching import Batchable
    from coord.stores.protocol import Announcements, Records, Store

T = TypeVar("T")


async def within_timeout(work: Awaitable[T], timeout: float) -> T | Failure:
    """Return what the store answers. The limit here is for stores that exceed their timeout."""
    try:
        return await within(work, timeout + LATE_MARGIN)
    except asyncio.TimeoutError:
        return TOO_LATE


async def send(store: Store, operation: Operation, timeout: float) -> Result:
    """Send one operation, and return its result."""
    if isinstance(operation, Claim):
        return await within_timeout(store.claim(operation, timeout), timeout)
    if isinstance(operation, Renew):
        results = await within_timeout(store.renew([operation], timeout), timeout)
        return results if isinstance(results, Failure) else results[0]
    if isinstance(operation, Release):
        return await within_timeout(store.release(operation, timeout), timeout)
    assert isinstance(operation, Read)
    return (await _read(store, [operation], timeout))[0]


async def send_override(store: Overridable, override: Override, timeout: float) -> Result:
    """Send an operator's override, and return its result."""
    return await within_timeout(store.override(override, timeout), timeout)


def announcements_of(store: Store) -> Announcements:
    """Return the announcements of a store.

    Raises:
        BadArgument: The store keeps no announcements.
    """
    if not isinstance(store, HasAnnouncements):
        raise _lacks(store, "announcements (a method announcements())")
    return store.announcements()


def overridable(store: Store) -> Overridable:
    """Return a store as one in which operators can revoke leases and pause roles.

    Raises:
        BadArgument: The store cannot do that.
    """
    if not isinstance(store, Overridable):
        raise _lacks(store, "leases that operators can revoke (a method override())")
    return store


def records_of(store: Store, table: str) -> Records:
    """Return the service records in `table` of a store.

    Raises:
        BadArgument: The store keeps no service records.
    """
    if not isinstance(store, HasRecords):
        raise _lacks(store, "service records (a method records(table))")
    return store.records(table)


def kept_of(store: object) -> HasKept:
    """Return the store as one that keeps a text for each role.

    Raises:
        BadArgument: The store keeps no texts.
    """
    if not isinstance(store, HasKept):
        raise _lacks(store, "notes and ticks (a method kept(role, timeout))")
    return store


def retirable(store: Store) -> Retirable:
    """Return a store as one that can delete the rows of roles.

    Raises:
        BadArgument: The store cannot do that.
    """
    if not isinstance(store, Retirable):
        raise _lacks(store, "rows that can be deleted (a method retire())")
    return cast("Retirable", store)


def _lacks(store: object, what: str) -> BadArgument:
    url = getattr(store, "url", type(store).__name__)
    allowed = (
        f"must be a store with {what}; use another store, to which `coord migrate` moves roles"
    )
    return BadArgument("store", url, allowed)


async def send_all(
    store: Store, operations: Sequence[Batchable], timeout: float
) -> Sequence[Result]:
    """Send requests about different roles together to a store that can (`protocol.Bulk`).

    Returns:
        The results in the order of `operations`.
    """
    swaps = [operation for operation in operations if not isinstance(operation, Read)]
    reads = [operation for operation in operations if isinstance(operation, Read)]
    swap_results, read_results = await asyncio.gather(
        _swap(store, swaps, timeout), _read(store, reads, timeout)
    )
    next_swap, next_read = iter(swap_results), iter(read_results)
    return [
        next(next_read if isinstance(operation, Read) else next_swap) for operation in operations
    ]


async def _swap(store: Store, swaps: Sequence[Claim | Release], timeout: float) -> Sequence[Result]:
    assert isinstance(store, Bulk)
    if not swaps:
        return []
    results = await within_timeout(store.swap_all(swaps, timeout), timeout)
    return [results] * len(swaps) if isinstance(results, Failure) else results


async def _read(store: Store, reads: Sequence[Read], timeout: float) -> Sequence[Result]:
    if not reads:
        return []
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    try:
        rows = await within_timeout(store.read([read.role for read in reads], timeout), timeout)
    except (StoreUnavailable, StoreRefused) as err:
        if type(err) is StoreRefused and len(reads) > 1:
            # Perhaps one malformed row was refused. It must not stop the reads of other roles.
            remaining = max(deadline - loop.time(), 0.001)
            results = await asyncio.gather(*(_read(store, [read], remaining) for read in reads))
            return [result for (result,) in results]
        refusal = type(err) if isinstance(err, StoreRefused) else None
        rows = Failure(unknown=False, detail=str(err), refusal=refusal)
    if isinstance(rows, Failure):
        return [rows] * len(reads)
    leases = {row.role: row for row in rows}
    return [Answer(False, leases.get(read.role) or Lease(read.role)) for read in reads]


PendingResult = Union[Coroutine[Any, Any, Result], None]
"""A coroutine that returns the result of a request which was sent; None if it was not sent."""


def discard(pending: PendingResult) -> None:
    """Cancel a request that was sent and that nobody will await."""
    if pending is not None:
        with contextlib.suppress(StopIteration, asyncio.CancelledError):
            pending.send(None)
            pending.throw(asyncio.CancelledError())
            pending.close()  # it waits for its own end, as `within` does on Python 3.10


MAX_IMMEDIATE = 16
"""Requests of a session that are sent at once and under way together."""


class ImmediateRequests:
    """Sends requests before anybody awaits them, where the store can (`protocol.Immediate`)."""

    def __init__(self, on_result: Callable[[Result], None]) -> None:
        """Create it; `on_result` is called with each result."""
        self._on_result = on_result
        self.under_way = 0

    def send(self, store: object, operation: Operation, timeout: float) -> PendingResult:
        """Send a request now, and return what to await; None if it cannot be sent now."""
        begin: Callable[[Operation, float], PendingResult] | None = getattr(store, "begin", None)
        if begin is None or self.under_way >= MAX_IMMEDIATE:
            return None
        pending = begin(operation, timeout)
        if pending is None:
            return None
        self.under_way += 1
        return self._result(pending, timeout)

    async def _result(self, pending: Coroutine[Any, Any, Result], timeout: float) -> Result:
        try:
            result = await within_timeout(pending, timeout)
        finally:
            self.under_way -= 1
        self._on_result(result)
        return result
