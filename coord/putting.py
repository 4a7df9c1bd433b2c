"""Putting what candidates ask to a store: one by one, or many as one. Never raises for a store's trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, TypeVar

from coord.bounded import bounded
from coord.errors import StoreRefused, StoreUnavailable
from coord.lease import Lease
from coord.operations import Answer, Claim, Failure, Look, Operation, Release, Result
from coord.renewals import TOO_LATE
from coord.stores.protocol import Bulk

if TYPE_CHECKING:
    from coord.stores.protocol import Store
    from coord.together import Together

T = TypeVar("T")


async def in_time(work: Awaitable[T], timeout: float) -> T | Failure:
    """What the store answers. A store bounds itself; this second bound is for one that does not."""
    try:
        return await bounded(work, timeout + 0.1)
    except asyncio.TimeoutError:
        return TOO_LATE


async def put(store: Store, operation: Operation, timeout: float) -> Result:
    """What came of a claim, a release or a look."""
    if isinstance(operation, Claim):
        return await in_time(store.claim(operation, timeout), timeout)
    if isinstance(operation, Release):
        return await in_time(store.release(operation, timeout), timeout)
    assert isinstance(operation, Look)
    return (await _look(store, [operation], timeout))[0]


async def put_all(store: Store, operations: Sequence[Together], timeout: float) -> Sequence[Result]:
    """What came of each; they are for different roles, and the store is one that can (`protocol.Bulk`)."""
    swaps = [one for one in operations if not isinstance(one, Look)]
    looks = [one for one in operations if isinstance(one, Look)]
    swapped, looked = await asyncio.gather(_swap(store, swaps, timeout), _look(store, looks, timeout))
    found, seen = iter(swapped), iter(looked)
    return [next(seen if isinstance(one, Look) else found) for one in operations]


async def _swap(store: Store, swaps: Sequence[Claim | Release], timeout: float) -> Sequence[Result]:
    assert isinstance(store, Bulk)
    if not swaps:
        return []
    results = await in_time(store.swap_all(swaps, timeout), timeout)
    return [results] * len(swaps) if isinstance(results, Failure) else results


async def _look(store: Store, looks: Sequence[Look], timeout: float) -> Sequence[Result]:
    if not looks:
        return []
    until = asyncio.get_running_loop().time() + timeout
    try:
        rows = await in_time(store.read([one.role for one in looks], timeout), timeout)
    except (StoreUnavailable, StoreRefused) as err:
        if type(err) is StoreRefused and len(looks) > 1:  # for one row, perhaps: that stops no other
            left = max(until - asyncio.get_running_loop().time(), 0.001)
            return [one for (one,) in await asyncio.gather(*(_look(store, [look], left) for look in looks))]
        rows = Failure(unknown=False, detail=str(err), permanent=isinstance(err, StoreRefused))
    if isinstance(rows, Failure):
        return [rows] * len(looks)
    found = {row.role: row for row in rows}
    return [Answer(False, found.get(one.role) or Lease(one.role)) for one in looks]
