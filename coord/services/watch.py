"""`watch_services`: the services of a role that join, leave and expire."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from coord.core.records import Record
from coord.errors import StoreUnavailable
from coord.runtime import log
from coord.runtime.retry import Backoff, reconnecting
from coord.runtime.timers import within
from coord.stores.protocol import Records

MAX_PAUSE = 5.0
"""Seconds after which it reads without a hint: a service that expired may send heartbeats again,
and hints may be lost."""
MIN_PAUSE = 0.02
"""Seconds between two reads at least."""


@dataclass(frozen=True, slots=True)
class ServiceChange:
    """One change of the services of a role.

    Attributes:
        kind: "joined", "left" (its record was deleted) or "expired" (no heartbeat for its ttl).
        service: The record as it was seen last.
    """

    kind: Literal["joined", "left", "expired"]
    service: Record


async def watch_services(
    records: Records, role: str, timeout: float
) -> AsyncIterator[ServiceChange]:
    """Yield the changes of the services of a role, the present ones first.

    It reads when the feed gives a hint and when the next service would expire, so a heartbeat costs
    nothing, and an expiry is reported when it happens by the store's clock.

    Args:
        records: The service records.
        role: The role to watch.
        timeout: Seconds that one read may take.
    """
    before: dict[object, Record] = {}
    hint = asyncio.Event()
    hint.set()
    feed = asyncio.ensure_future(
        reconnecting(lambda: records.watch(role), lambda _: hint.set(), Backoff(0.05, MAX_PAUSE))
    )
    try:
        while True:
            hint.clear()
            pause = MAX_PAUSE
            try:
                rows = await records.list_all(role, timeout)
            except StoreUnavailable as err:
                log.debug("registry.watch_interrupted", role=role, error=type(err).__name__)
                pause = 0.5
            else:
                present = {row.record["id"] for row in rows}
                alive = {row.record["id"]: row.record for row in rows if row.remaining > 0}
                for change in _between(before, alive, present):
                    yield change
                before = alive
                pause = min([pause, *(row.remaining for row in rows if row.remaining > 0)])
            with contextlib.suppress(asyncio.TimeoutError):
                await within(hint.wait(), max(pause, MIN_PAUSE))
    finally:
        feed.cancel()
        await asyncio.gather(feed, return_exceptions=True)


def _between(
    before: dict[object, Record], alive: dict[object, Record], present: set[object]
) -> list[ServiceChange]:
    changes = []
    for key, record in before.items():
        if key not in alive:
            changes.append(ServiceChange("expired" if key in present else "left", record))
        elif alive[key].get("first_heartbeat") != record.get("first_heartbeat"):
            # Another service registered under the same id.
            changes += [ServiceChange("left", record), ServiceChange("joined", alive[key])]
    joined = [record for key, record in alive.items() if key not in before]
    return changes + [ServiceChange("joined", record) for record in joined]
