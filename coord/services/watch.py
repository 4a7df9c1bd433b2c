"""`watch_services`: who of a role joins, leaves and expires."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Literal, cast

from coord.core.records import Record
from coord.errors import CoordError, StoreUnavailable
from coord.runtime import log
from coord.runtime.retry import Backoff
from coord.runtime.timers import within
from coord.stores.protocol import Records

LONGEST_PAUSE = 5.0
"""Seconds after which it looks without a hint: for who beats again after it expired, and for lost
hints."""
SHORTEST_PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class ServiceChange:
    """`kind`: "joined", "left" (its record is gone) or "expired" (silent for its ttl). `service`:
    as last seen."""

    kind: Literal["joined", "left", "expired"]
    service: Record


async def watch_services(
    records: Records, role: str, timeout: float
) -> AsyncIterator[ServiceChange]:
    """The changes of a role. It reads when the feed gives a hint, and when the next service would
    expire.

    So it costs nothing per heartbeat, and an expiry is told when it happens, by the store's clock.
    """
    known: dict[object, Record] = {}
    hint = asyncio.Event()
    hint.set()
    feed = asyncio.ensure_future(_feed(records, role, hint))
    try:
        while True:
            hint.clear()
            pause = LONGEST_PAUSE
            try:
                seen = await records.list_all(role, timeout)
            except StoreUnavailable as err:
                log.debug("registry.watch_interrupted", role=role, error=type(err).__name__)
                pause = 0.5
            else:
                present = {one.record["id"] for one in seen}
                alive = {one.record["id"]: one.record for one in seen if one.remaining > 0}
                for change in _between(known, alive, present):
                    yield change
                known = alive
                pause = min([pause, *(one.remaining for one in seen if one.remaining > 0)])
            with contextlib.suppress(asyncio.TimeoutError):
                await within(hint.wait(), max(pause, SHORTEST_PAUSE))
    finally:
        feed.cancel()
        await asyncio.gather(feed, return_exceptions=True)


def _between(
    known: dict[object, Record], alive: dict[object, Record], present: set[object]
) -> list[ServiceChange]:
    found = []
    for key, record in known.items():
        if key not in alive:
            found.append(ServiceChange("expired" if key in present else "left", record))
        elif alive[key].get("first_heartbeat") != record.get("first_heartbeat"):
            found.append(
                ServiceChange("left", record)
            )  # and it is back under the same id, as another
            found.append(ServiceChange("joined", alive[key]))
    found += [ServiceChange("joined", record) for key, record in alive.items() if key not in known]
    return found


async def _feed(records: Records, role: str, hint: asyncio.Event) -> None:
    backoff = Backoff(0.05, LONGEST_PAUSE)
    while True:
        feed = cast("AsyncGenerator[None, None]", records.watch(role))
        try:
            async with contextlib.aclosing(feed):
                async for _ in feed:
                    backoff.reset()
                    hint.set()
        except CoordError as err:
            log.debug("feed.broken", error=type(err).__name__)
        await asyncio.sleep(backoff.next())
