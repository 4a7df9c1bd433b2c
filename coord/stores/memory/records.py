"""Service records in the memory of this process: for tests and for `memory://`."""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from coord.core import records
from coord.core.records import Record, RecordWithRemaining
from coord.runtime import clock, process
from coord.runtime.retry import rng
from coord.stores.memory.feeds import Feeds


class MemoryRecords:
    """Service records in memory. Everything that uses the same instance shares them.

    Implements `protocol.Records`. `now` is the clock that decides about health, in seconds; `wall`
    is for people.
    """

    def __init__(
        self, now: Callable[[], float] = clock.total_seconds, wall: Callable[[], float] = time.time
    ) -> None:
        self._now, self._wall = now, wall
        self._rows: dict[str | int, Record] = {}
        self._roles: dict[object, dict[str | int, None]] = {}
        self._runs_out: dict[str | int, tuple[datetime, float]] = {}
        self._feeds: Feeds[str | None] = Feeds()
        self._lock = threading.RLock()
        process.reset_after_fork(self)

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row unchanged, as any program can do in the tables of the other stores."""
        with self._lock:
            self._drop(row["id"])
            self._rows[row["id"]] = copy.deepcopy(dict(row))
            self._roles.setdefault(_role(row), {})[row["id"]] = None

    async def register(
        self, record: Mapping[str, Any], nonce: str, timeout: float
    ) -> Record | None:
        """Write the record, and return it as stored. See `protocol.Records.register`."""
        with self._lock:
            row = self._rows.get(record["id"])
            if row is not None and row.get(records.TOMBSTONE) == nonce:
                return None
            return self._write(record, row)

    async def refresh(self, record: Mapping[str, Any], timeout: float) -> Record | None:
        """Write the record if it exists, and return it as stored; None if it does not exist."""
        with self._lock:
            row = self._rows.get(record["id"])
            return None if row is None or records.TOMBSTONE in row else self._write(record, row)

    async def remove(self, key: str | int, nonce: str | None, timeout: float) -> bool:
        """Delete the record, and return whether it existed. See `protocol.Records.remove`."""
        with self._lock:
            row = self._drop(key)
            if nonce is not None:
                ttl = row.get("ttl") if row is not None and records.has_valid_times(row) else 60.0
                self._put({"id": key, records.TOMBSTONE: nonce, "ttl": ttl}, 0.0)
            if row is None or records.TOMBSTONE in row:
                return False
            self._feeds.publish(_role(row))
            return True

    async def least_loaded(self, role: str, timeout: float) -> Record | None:
        """Return the healthy record of `role` with the lowest load; None if there is none."""
        return min(await self.healthy(role, timeout), key=records.by_load, default=None)

    async def sample(self, role: str, count: int, timeout: float) -> list[Record]:
        """Return at most `count` healthy records of `role`, drawn at random."""
        healthy = await self.healthy(role, timeout)
        return rng.sample(healthy, min(count, len(healthy)))

    async def healthy(
        self, role: str | None, timeout: float, *, key: str | None = None
    ) -> list[Record]:
        """Return the healthy records of `role` (None: of every role), or the one with id `key`."""
        rows = self._judged(role)
        return [row.record for row in rows if row.remaining > 0 and key in (None, row.record["id"])]

    async def list_all(self, role: str | None, timeout: float) -> list[RecordWithRemaining]:
        """Return the records of `role` (None: of every role), healthy or not."""
        return self._judged(role)

    async def purge(self, ttls: float, timeout: float) -> int:
        """Delete the records that were silent for more than `ttls` of their own ttls."""
        with self._lock:
            stale = [
                record.record
                for record in self._judged(None, True)
                if self._silent(record) > ttls * record.record["ttl"]
            ]
            for row in stale:
                self._drop(row["id"])
                self._feeds.publish(_role(row))
            return len(stale)

    async def malformed(self, timeout: float) -> list[Record]:
        """Return the records that have a problem."""
        now = self._time()
        with self._lock:
            return [copy.deepcopy(row) for row in self._rows.values() if records.problems(row, now)]

    async def publish(self, record: Mapping[str, Any], remaining: float, timeout: float) -> bool:
        """Write the record of a leader under its role. See `protocol.Records.publish`."""
        with self._lock:
            row = self._rows.get(record["role"])
            if row is not None and records.TOMBSTONE not in row:
                published = records.is_published(row)
                if published and row["token"] > record["token"]:
                    return False
                if not published and records.has_valid_times(row) and self._remaining(row) > 0:
                    return False
            self._put(
                {"first_heartbeat": self._time(), **_first(row), **record, "id": record["role"]},
                remaining,
            )
            return True

    async def withdraw(self, role: str, token: int, timeout: float) -> bool:
        """Delete the record of a leader, unless a later leader wrote it."""
        with self._lock:
            row = self._rows.get(role)
            if row is None or not records.is_published(row) or row["token"] > token:
                return False
            self._drop(role)
            self._feeds.publish(_role(row))
            return True

    async def watch(self, role: str) -> AsyncIterator[None]:
        """Yield at once, and whenever a service of `role` appears or disappears."""
        feed = self._feeds.open(lambda: [role], lambda changed: changed == role)
        async with contextlib.aclosing(feed):
            async for _ in feed:
                yield

    def after_fork(self) -> None:
        """Forget everything, in a forked child: its copy says nothing about others."""
        self._rows, self._roles, self._runs_out, self._feeds = {}, {}, {}, Feeds()
        self._lock = threading.RLock()

    def _write(self, record: Mapping[str, Any], row: Record | None) -> Record:
        now = self._time()
        stored = {"first_heartbeat": now, **record, **_first(row)}
        self._put(stored, stored["ttl"], now)
        if row is None or records.TOMBSTONE in row:
            self._feeds.publish(_role(stored))
        return copy.deepcopy(self._rows[stored["id"]])

    def _put(self, record: Record, remaining: float, now: datetime | None = None) -> None:
        beat = now or self._time(remaining - record["ttl"])
        self.write({**record, "last_heartbeat": beat})
        self._runs_out[record["id"]] = (beat, self._now() + remaining)

    def _judged(self, role: str | None, marks: bool = False) -> list[RecordWithRemaining]:
        with self._lock:
            rows = (
                self._rows.values()
                if role is None
                else [self._rows[key] for key in self._roles.get(role, ())]
            )
            return [
                RecordWithRemaining(copy.deepcopy(row), self._remaining(row))
                for row in rows
                if records.has_valid_times(row) and (marks or records.TOMBSTONE not in row)
            ]

    def _drop(self, key: str | int) -> Record | None:
        row = self._rows.pop(key, None)
        if row is not None:
            keys = self._roles[_role(row)]
            del keys[key]
            if not keys:
                del self._roles[_role(row)]
        return row

    def _remaining(self, row: Record) -> float:
        beat, runs_out = self._runs_out.get(row["id"], (None, 0.0))
        if beat == row["last_heartbeat"]:
            return runs_out - self._now()
        # Another program wrote the record, so only its own time is known.
        return float(row["ttl"] - (self._time() - row["last_heartbeat"]).total_seconds())

    @staticmethod
    def _silent(record: RecordWithRemaining) -> float:
        return float(record.record["ttl"]) - record.remaining

    def _time(self, offset: float = 0.0) -> datetime:
        return datetime.fromtimestamp(int((self._wall() + offset) * 1000) / 1000, timezone.utc)


def _first(row: Mapping[str, Any] | None) -> Record:
    first = None if row is None else row.get("first_heartbeat")
    return (
        {"first_heartbeat": first}
        if isinstance(first, datetime) and first.tzinfo is not None
        else {}
    )


def _role(row: Mapping[str, Any]) -> str | None:
    role = row.get("role")
    return role if isinstance(role, str) else None
