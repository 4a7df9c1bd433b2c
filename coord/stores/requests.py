"""Putting what candidates ask to a store: one by one, or many as one. Never raises for a store's
trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Union

from coord.core.lease import Lease
from coord.core.operations import Answer, Claim, Failure, Operation, Read, Release, Result
from coord.errors import BadArgument, StoreRefused, StoreUnavailable
from coord.runtime.timers import within
from coord.stores.batching import TOO_LATE
from coord.stores.protocol import Bulk, HasAnnouncements, HasRecords

if TYPE_CHECKING:
    from coord.stores.batching import Batchable
    from coord.stores.protocol import Announcements, Records, Store

T = TypeVar("T")


async def within_timeout(work: Awaitable[T], timeout: float) -> T | Failure:
    """What the store answers. A store bounds itself; this second bound is for one that does not."""
    try:
        return await within(work, timeout + 0.1)
    except asyncio.TimeoutError:
        return TOO_LATE


async def send(store: Store, operation: Operation, timeout: float) -> Result:
    """What came of a claim, a release or a look."""
    if isinstance(operation, Claim):
        return await within_timeout(store.claim(operation, timeout), timeout)
    if isinstance(operation, Release):
        return await within_timeout(store.release(operation, timeout), timeout)
    assert isinstance(operation, Read)
    return (await _look(store, [operation], timeout))[0]


def announcements_of(store: Store) -> Announcements:
    """Return the announcements of a store.

    Raises:
        BadArgument: The store keeps no announcements.
    """
    if not isinstance(store, HasAnnouncements):
        allowed = "must be a store with announcements (a method announcements())"
        raise BadArgument("store", type(store).__name__, allowed)
    return store.announcements()


def records_of(store: Store, table: str) -> Records:
    """Return the service records in `table` of a store.

    Raises:
        BadArgument: The store keeps no service records.
    """
    if not isinstance(store, HasRecords):
        allowed = "must be a store with service records (a method records(table))"
        raise BadArgument("store", type(store).__name__, allowed)
    return store.records(table)


async def send_all(
    store: Store, operations: Sequence[Batchable], timeout: float
) -> Sequence[Result]:
    """What came of each; they are for different roles, and the store is one that can
    (`protocol.Bulk`)."""
    swaps = [one for one in operations if not isinstance(one, Read)]
    looks = [one for one in operations if isinstance(one, Read)]
    swapped, looked = await asyncio.gather(
        _swap(store, swaps, timeout), _look(store, looks, timeout)
    )
    found, seen = iter(swapped), iter(looked)
    return [next(seen if isinstance(one, Read) else found) for one in operations]


async def _swap(store: Store, swaps: Sequence[Claim | Release], timeout: float) -> Sequence[Result]:
    assert isinstance(store, Bulk)
    if not swaps:
        return []
    results = await within_timeout(store.swap_all(swaps, timeout), timeout)
    return [results] * len(swaps) if isinstance(results, Failure) else results


async def _look(store: Store, looks: Sequence[Read], timeout: float) -> Sequence[Result]:
    if not looks:
        return []
    until = asyncio.get_running_loop().time() + timeout
    try:
        rows = await within_timeout(store.read([one.role for one in looks], timeout), timeout)
    except (StoreUnavailable, StoreRefused) as err:
        if (
            type(err) is StoreRefused and len(looks) > 1
        ):  # for one row, perhaps: that stops no other
            left = max(until - asyncio.get_running_loop().time(), 0.001)
            return [
                one
                for (one,) in await asyncio.gather(*(_look(store, [look], left) for look in looks))
            ]
        rows = Failure(unknown=False, detail=str(err), permanent=isinstance(err, StoreRefused))
    if isinstance(rows, Failure):
        return [rows] * len(looks)
    found = {row.role: row for row in rows}
    return [Answer(False, found.get(one.role) or Lease(one.role)) for one in looks]


# -- Putting to the store what the core wants put: before anybody awaits it where the store can, and
# never raising.

PendingResult = Union[Coroutine[Any, Any, Result], None]
"""What is to be awaited for the answer to something that was sent; None: it was not."""

MAX_IMMEDIATE = 16
"""Requests of a coordinator that are under way together besides those which wait in turn."""


class ImmediateRequests:
    """Sends before anybody awaits, where the store can (`stores.protocol.Prompt`). `heard` is told
    of each result."""

    def __init__(self, heard: Callable[[Result], None]) -> None:
        self._heard = heard
        self.under_way = 0

    def begin(self, store: object, operation: Operation, timeout: float) -> PendingResult:
        """What is to be awaited then; None: it cannot be sent now."""
        _begin: Callable[[Operation, float], PendingResult] | None = getattr(store, "begin", None)
        sent = (
            None
            if _begin is None or self.under_way >= MAX_IMMEDIATE
            else _begin(operation, timeout)
        )
        if sent is None:
            return None
        self.under_way += 1
        return self._answer(sent, timeout)

    async def _answer(self, sent: Coroutine[Any, Any, Result], timeout: float) -> Result:
        try:
            result = await within_timeout(sent, timeout)
        finally:
            self.under_way -= 1
        self._heard(result)
        return result
