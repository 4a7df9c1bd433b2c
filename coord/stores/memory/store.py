"""Leases in the memory of this process: for tests and for `memory://`.

Tests compare the other stores with this one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from coord.core import history, swaps
from coord.core.history import PastTerm
from coord.core.kept import Kept
from coord.core.lease import Lease, with_remaining
from coord.core.operations import Answer, Claim, Failure, Override, Release, Renew, Result, Retire
from coord.runtime import clock, log
from coord.stores.memory.announcements import MemoryAnnouncements
from coord.stores.memory.feeds import Feeds
from coord.stores.memory.records import MemoryRecords

_shared: dict[str, MemoryStore] = {}
"""The stores of `memory://name`, by name."""
_shared_lock = threading.Lock()


class MemoryStore:
    """Leases in memory. All coordinators that use the same instance share its leases.

    They may run on any threads and event loops.
    """

    max_clock_skew: float | None = 0.0
    url = "memory://"

    def __init__(
        self, now: Callable[[], float] = clock.total_seconds, wall: Callable[[], float] = time.time
    ) -> None:
        """Create an empty store.

        Args:
            now: The clock by which leases expire, in seconds.
            wall: The clock for times that people read, in seconds since 1970.
        """
        self._now, self._wall = now, wall
        self._rows: dict[str, tuple[Lease, float]] = {}
        self._past: dict[str, list[history.Entry]] = {}
        self._kept: dict[str, str] = {}
        self._floors: dict[str, int] = {}
        self._feeds: Feeds[Lease] = Feeds()
        self._lock = threading.RLock()
        self._forked = False
        self._announcements: MemoryAnnouncements | None = None
        self._records: dict[str, MemoryRecords] = {}

    async def open(self, timeout: float) -> None:
        """Do nothing: the store is always open."""

    async def claim(self, claim: Claim, timeout: float) -> Result:
        """Apply one claim. See `protocol.Store.claim`."""
        if self._forked:
            self._forked = False
            log.warning("store.not_shared", url=self.url)
        with self._lock:
            row, wall = self._row(claim.role), self._wall()
            after = self._born(claim, swaps.claim(row, claim, wall))
            return self._swap(row, self._remembered(row, claim, after, wall))

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        """Apply renewals. See `protocol.Store.renew`."""
        with self._lock:
            rows = [(self._row(renewal.role), renewal) for renewal in renewals]
            return [
                self._swap(row, swaps.renew(row, renewal, self._wall()), renewal.keep)
                for row, renewal in rows
            ]

    async def release(self, release: Release, timeout: float) -> Result:
        """Apply one release. See `protocol.Store.release`."""
        with self._lock:
            row, wall = self._row(release.role), self._wall()
            after = self._remembered(row, release, swaps.release(row, release, wall), wall)
            return self._swap(row, after, release.keep)

    async def override(self, override: Override, timeout: float) -> Result:
        """Apply one override. See `protocol.Overridable.override`."""
        with self._lock:
            row, wall = self._row(override.role), self._wall()
            after = self._born(override, swaps.override(row, override, wall))
            return self._swap(row, self._remembered(row, override, after, wall))

    async def retire(self, requests: Sequence[Retire], timeout: float) -> Sequence[bool]:
        """Delete rows that nobody needs. See `protocol.Retirable.retire`."""
        with self._lock:
            return [self._retire(request) for request in requests]

    def _retire(self, request: Retire) -> bool:
        role, row = request.role, self._row(request.role)
        exists = role in self._rows
        if not exists or not swaps.retire(row, request, self._kept.get(role, "")):
            return False
        self._floors[request.prefix] = max(self._floors.get(request.prefix, 0), row.token)
        del self._rows[role]
        self._past.pop(role, None)
        self._kept.pop(role, None)
        return True

    def _born(self, operation: Claim | Override, after: Lease | None) -> Lease | None:
        if after is None or operation.role in self._rows:
            return after
        role = operation.role
        floors = (floor for prefix, floor in self._floors.items() if role.startswith(prefix))
        return swaps.born(after, operation, max(floors, default=0))

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        """Return the leases of `roles` (None: of every role)."""
        return self._present(roles)

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        """Return the past terms of `roles` (None: of every role)."""
        with self._lock:
            names = self._past if roles is None else [role for role in roles if role in self._past]
            return [term for role in names for term in history.parse(role, self._past[role])]

    async def kept(self, role: str, timeout: float) -> Kept:
        """Return the text that `role` keeps. See `protocol.HasKept.kept`."""
        with self._lock:
            return Kept(self._row(role).token, self._kept.get(role, ""))

    def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        """Yield the leases of `roles` (None: of every role), and again whenever one changes."""
        watched = None if roles is None else dict.fromkeys(roles)  # it keeps the order
        return self._feeds.open(
            lambda: self._present(watched), lambda lease: watched is None or lease.role in watched
        )

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def abandon(self) -> None:
        """Forget everything, in a forked child: its copy says nothing about others."""
        self._rows, self._past, self._kept, self._feeds = {}, {}, {}, Feeds()
        self._lock = threading.RLock()
        self._forked = True
        self._announcements = None
        self._records = {}

    def announcements(self) -> MemoryAnnouncements:
        """Return the announcements of this store; always the same instance."""
        with self._lock:
            if self._announcements is None:
                self._announcements = MemoryAnnouncements(self._now, self._wall)
            return self._announcements

    def records(self, table: str) -> MemoryRecords:
        """Return the service records in `table`; always the same instance for a table."""
        with self._lock:
            if table not in self._records:
                self._records[table] = MemoryRecords(self._now, self._wall)
            return self._records[table]

    def _present(self, roles: Collection[str] | None) -> list[Lease]:
        with self._lock:
            names = self._rows if roles is None else [role for role in roles if role in self._rows]
            return [self._row(role) for role in names]

    def _row(self, role: str) -> Lease:
        if role not in self._rows:
            return Lease(role)
        lease, runs_out = self._rows[role]
        return lease if lease.vacant else with_remaining(lease, runs_out - self._now())

    def _remembered(
        self, row: Lease, operation: Claim | Override | Release, after: Lease | None, wall: float
    ) -> Lease | None:
        if after is not None:
            self._past[row.role] = history.after_swap(
                self._past.get(row.role, []), row, operation, after, wall
            )
        return after

    def _swap(self, row: Lease, after: Lease | None, keep: str | None = None) -> Answer | Failure:
        if after is None:
            return Answer(False, row)
        if keep is not None:
            self._kept[row.role] = keep
        self._rows[row.role] = (after, self._now() + after.remaining)
        self._feeds.publish(after)
        return Answer(True, after)


def open_url(url: str) -> MemoryStore:
    """Return the store that `url` names.

    Args:
        url: `memory://` for a new store; `memory://name` for one that everything in this process
            shares which uses that name.
    """
    name = url.partition(":")[2].removeprefix("//")
    if not name:
        return MemoryStore()
    with _shared_lock:
        return _shared.setdefault(name, MemoryStore())
