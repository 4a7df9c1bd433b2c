"""Leases in this process's memory: for tests, for `memory://`, and as the oracle that the other
stores are held to."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import replace

from coord.core import history, swaps
from coord.core.history import PastTerm
from coord.core.lease import Lease
from coord.core.operations import Answer, Claim, Failure, Release, Renew, Result
from coord.runtime import clock
from coord.stores.memory.announcements import MemoryAnnouncements
from coord.stores.memory.records import MemoryRecords
from coord.stores.protocol import Announcements, Records


class MemoryStore:
    """All coordinators that are given the same instance share its leases, from whatever threads and
    loops.

    `now` is the store's own clock, in seconds; `wall` is what people read.
    """

    max_clock_skew: float | None = 0.0
    url = "memory://"

    def __init__(
        self, now: Callable[[], float] = clock.total_seconds, wall: Callable[[], float] = time.time
    ) -> None:
        self._now, self._wall = now, wall
        self._rows: dict[str, tuple[Lease, float]] = {}
        self._past: dict[str, list[history.Entry]] = {}
        self._watchers: list[tuple[frozenset[str] | None, Callable[[Lease], None]]] = []
        self._lock = threading.RLock()
        self._keepers_lock = threading.Lock()
        self._announcements: MemoryAnnouncements | None = None
        self._tables: dict[str, MemoryRecords] = {}

    async def open(self, timeout: float) -> None:
        """Always open."""

    async def claim(self, claim: Claim, timeout: float) -> Result:
        with self._lock:
            row, wall = self._row(claim.role), self._wall()
            return self._swap(
                row, self._remembered(row, claim, swaps.claim(row, claim, wall), wall)
            )

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        with self._lock:
            rows = [(self._row(one.role), one) for one in renewals]
            return [self._swap(row, swaps.renew(row, one, self._wall())) for row, one in rows]

    async def release(self, release: Release, timeout: float) -> Result:
        with self._lock:
            row, wall = self._row(release.role), self._wall()
            return self._swap(
                row, self._remembered(row, release, swaps.release(row, release, wall), wall)
            )

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        with self._lock:
            return [
                self._row(role)
                for role in (self._rows if roles is None else roles)
                if role in self._rows
            ]

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        with self._lock:
            wanted = self._past if roles is None else [role for role in roles if role in self._past]
            return [term for role in wanted for term in history.parse(role, self._past[role])]

    async def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        queue: asyncio.Queue[Lease] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(lease: Lease) -> None:
            with contextlib.suppress(RuntimeError):  # that loop has closed without closing its feed
                loop.call_soon_threadsafe(queue.put_nowait, lease)

        entry = (None if roles is None else frozenset(roles), tell)
        with self._lock:
            self._watchers.append(entry)
        try:
            for lease in await self.read(roles, 0):
                yield lease
            while True:
                yield await queue.get()
        finally:
            with self._lock:
                self._watchers.remove(entry)

    def announcements(self) -> Announcements:
        """Return the announcements of this store: the same ones at every call."""
        with self._keepers_lock:
            if self._announcements is None:
                self._announcements = MemoryAnnouncements(self._now, self._wall)
            return self._announcements

    def records(self, table: str) -> Records:
        """Return the service records of `table`: the same ones at every call."""
        with self._keepers_lock:
            return self._tables.setdefault(table, MemoryRecords())

    async def close(self) -> None:
        """Nothing to let go of."""

    def abandon(self) -> None:
        """A fork has a copy of the memory: what it says about others is worth nothing there."""
        self._rows, self._past, self._watchers = {}, {}, []
        self._lock = threading.RLock()
        self._keepers_lock = threading.Lock()
        self._announcements = None
        self._tables = {}

    def _row(self, role: str) -> Lease:
        if role not in self._rows:
            return Lease(role)
        lease, runs_out = self._rows[role]
        return lease if lease.vacant else replace(lease, remaining=runs_out - self._now())

    def _remembered(
        self, row: Lease, asked: Claim | Release, after: Lease | None, wall: float
    ) -> Lease | None:
        if after is not None:
            self._past[row.role] = history.after_swap(
                self._past.get(row.role, []), row, asked, after, wall
            )
        return after

    def _swap(self, row: Lease, after: Lease | None) -> Answer | Failure:
        if after is None:
            return Answer(False, row)
        self._rows[row.role] = (after, self._now() + after.remaining)
        for roles, tell in self._watchers:
            if roles is None or row.role in roles:
                tell(after)
        return Answer(True, after)
