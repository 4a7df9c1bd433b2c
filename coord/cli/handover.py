"""Waiting until a leader that was asked to give way has done so, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, cast

from coord.async_lookups import AsyncLookups
from coord.lease import Lease
from coord.past import PastTerm

SUCCESSOR = 2.0
"""Seconds to wait for the next leader, once the one that was asked has gone; where nobody waits there is none."""


@dataclass(frozen=True)
class Outcome:
    """`seconds` until the term that was asked to end had ended; None: it lasts. `after` leads since then."""

    seconds: float | None
    ended: PastTerm | None = None
    after: Lease | None = None


async def outcome(source: AsyncLookups, asked: Lease, timeout: float) -> Outcome:
    """What came of it within `timeout` seconds."""
    begun = asyncio.get_running_loop().time()
    changes = cast("AsyncGenerator[Lease | None, Any]", source.watch_leader(asked.role))
    async with contextlib.aclosing(changes):
        now = await _until(changes, lambda now: now is None or now.token != asked.token, timeout)
        if now is _NOT_YET:
            return Outcome(None)
        seconds = asyncio.get_running_loop().time() - begun
        if now is None:
            now = await _until(changes, lambda now: now is not None, SUCCESSOR)
    after = now if isinstance(now, Lease) else None
    ended = next((term for term in await source.history(asked.role) if term.token == asked.token), None)
    return Outcome(seconds, ended, after)


class _NotYet:
    """No such change came in time."""


_NOT_YET = _NotYet()


async def _until(
    changes: AsyncGenerator[Lease | None, Any], wanted: Callable[[Lease | None], bool], timeout: float
) -> Lease | _NotYet | None:
    async def first() -> Lease | _NotYet | None:
        async for now in changes:
            if wanted(now):
                return now
        return _NOT_YET

    try:
        return await asyncio.wait_for(first(), timeout)
    except asyncio.TimeoutError:
        return _NOT_YET
