"""What a background heartbeat says and when, for both of its shells (`heartbeat.py`)."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping

from coord import checks, events
from coord.backoff import Backoff
from coord.errors import BadArgument, StoreRefused, StoreUnavailable
from coord.records import values
from coord.records.protocol import Record

FAREWELL = 3.0
"""Seconds that the end of a heartbeat waits for a store that does not answer; then the record runs out by itself."""


class Rhythm:
    """The part that needs no waiting. `every` is in seconds; the other two are what `Heartbeat` was given."""

    def __init__(self, status: object, load: object, every: float | None) -> None:
        if not isinstance(status, Mapping) and not callable(status):
            raise BadArgument(
                "status", status, "a dict with at least role, ttl and load, or a function that returns one"
            )
        self.status, self.load = status, load
        self.every = None if every is None else checks.number(every, "every", low=0, above=True)
        self.id: str | int = str(uuid.uuid4())
        if isinstance(status, Mapping):
            given = {"load": 0, **status} if load is not None else status
            self.id = values.status(given).get("id", self.id)
        self.record: Record | None = None
        self._until = 0.0
        self.failing = False
        self._backoff = Backoff(0.25, 5.0)

    @property
    def healthy(self) -> bool:
        return time.monotonic() < self._until

    def complete(self, status: object, load: object) -> Record:
        """The record to send."""
        if not isinstance(status, Mapping):
            raise BadArgument("status()", status, "a dict with at least role, ttl and load")
        said = dict(status)
        if load is not None:
            said["load"] = load
        if said.get("id") is None:
            said["id"] = self.id
        return said

    def stored(self, record: Record, asked_at: float) -> float:
        """It was stored: seconds to the next."""
        self.id, self.record, self._until = record["id"], record, asked_at + record["ttl"]
        if self.failing:
            events.info("heartbeat.recovered", id=self.id, role=record["role"])
        self.failing = False
        self._backoff.reset()
        return float(self.every or record["ttl"] / 3)

    def failed(self, err: Exception) -> float:
        """It was not: seconds to the next attempt. One warning for each outage."""
        if not self.failing:
            if isinstance(err, (StoreUnavailable, StoreRefused)):
                events.warning("heartbeat.failed", id=self.id, because=str(err))
            else:
                events.failure("heartbeat.failed", err, id=self.id)
        self.failing = True
        usual = self.every or (self.record["ttl"] / 3 if self.record is not None else 5.0)
        return float(min(self._backoff.next(), usual))

    async def farewell(self, unregister: Callable[[str | int], Awaitable[None]]) -> None:
        """Unregister what may be registered, within `FAREWELL` seconds."""
        self._until = 0.0
        if self.record is None and not self.failing:
            return
        try:
            await asyncio.wait_for(unregister(self.id), FAREWELL)
        except (StoreUnavailable, StoreRefused, asyncio.TimeoutError) as err:
            events.warning("heartbeat.not_unregistered", id=self.id, because=str(err) or "no answer in time")
