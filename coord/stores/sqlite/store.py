"""`SQLiteStore`: leases in one SQLite file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence

from coord.core.history import PastTerm
from coord.core.kept import Kept
from coord.core.lease import Lease
from coord.core.operations import Claim, Failure, Override, Release, Renew, Result, Retire
from coord.errors import StoreRefused, StoreUnavailable
from coord.runtime.clock import StoreClock
from coord.stores.sqlite import swaps
from coord.stores.sqlite.announcements import SQLiteAnnouncements
from coord.stores.sqlite.connection import Connection
from coord.stores.sqlite.database import Database, TooLate
from coord.stores.sqlite.errors import CommitUnknown
from coord.stores.sqlite.feed import POLL_INTERVAL, LeaseFeed
from coord.stores.sqlite.filesystems import MOUNTS
from coord.stores.sqlite.records import SQLiteRecords
from coord.stores.sqlite.url import parse_url, url_of
from coord.stores.sqlite.worker import Job, Stage


class SQLiteStore:
    """Leases in one file, for all processes of one machine. Nothing is opened before the first use.

    While a process uses a store, nothing else in the process may open and close its file: POSIX
    would drop SQLite's locks (sqlite.org/howtocorrupt.html, 2.2).

    Attributes:
        path: Absolute path of the file.
        url: The URL of the store.
        max_clock_skew: How far the store's clock may be off, in seconds.
        feed_interval: Seconds within which the feed usually shows a change.
        database: The file and its thread.
    """

    def __init__(
        self,
        path: str,
        *,
        url: str | None = None,
        local: bool = False,
        clock: StoreClock | None = None,
        mounts: str = MOUNTS,
    ) -> None:
        """Create a store.

        Args:
            path: Path of the file. The first claim creates the file (mode 0o600) and its
                directories if they are missing. A relative path starts at the current directory
                of the process.
            url: The value of the attribute `url`, if the store was created from a URL.
            local: Whether the user states that the file system of the file is local.
            clock: A clock for tests.
            mounts: A list of mounts for tests, in the format of /proc/self/mountinfo.

        Raises:
            BadArgument: `path` is not the path of a file. ":memory:" is none, because every
                connection would have a database of its own; use `memory://name`.
        """
        self.database = Database(path, local=local, clock=clock, mounts=mounts)
        self.path = self.database.path
        self.url = url_of(self.path, local=local) if url is None else url
        self.feed_interval = 2 * POLL_INTERVAL
        self.max_clock_skew: float | None = self.database.clock.store_clock.skew
        self._announcements: SQLiteAnnouncements | None = None
        self._records: dict[str, SQLiteRecords] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    async def open(self, timeout: float) -> None:
        """Open the file, and check that it is a file of coord.

        Raises:
            StoreUnavailable: The file could not be opened within `timeout` seconds.
            AccessDenied: This user may not read and write the file.
            StoreRefused: The file cannot be used. The message names the path.
        """
        await self.database.open(timeout)

    async def claim(self, claim: Claim, timeout: float) -> Result:
        """Put one claim to the store. See `protocol.Store.claim`."""
        return await self._swap_one(claim, timeout)

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        """Put renewals to the store, in one transaction. See `protocol.Store.renew`."""
        if not renewals:
            return []
        clock = self.database.clock
        try:
            return await self.database.run(
                lambda job, connection: swaps.renew_many(job, connection, clock, renewals), timeout
            )
        except (StoreUnavailable, StoreRefused) as err:
            return [_failure(err)] * len(renewals)

    async def release(self, release: Release, timeout: float) -> Result:
        """Put one release to the store. See `protocol.Store.release`."""
        return await self._swap_one(release, timeout)

    async def override(self, override: Override, timeout: float) -> Result:
        """Put one override to the store. See `protocol.Overridable.override`."""
        return await self._swap_one(override, timeout)

    async def retire(self, requests: Sequence[Retire], timeout: float) -> Sequence[bool]:
        """Delete rows that nobody needs. See `protocol.Retirable.retire`."""
        clock = self.database.clock
        return await self.database.run(
            lambda job, connection: swaps.retire(job, connection, clock, requests), timeout
        )

    async def swap_all(
        self, operations: Sequence[Claim | Release], timeout: float
    ) -> Sequence[Result]:
        """Put claims and releases to the store, in as few transactions as possible.

        See `protocol.Bulk.swap_all`.
        """
        loop, results = asyncio.get_running_loop(), list[Result]()
        deadline = loop.time() + timeout

        def swap(job: Job[Sequence[Result]], connection: Connection) -> Sequence[Result]:
            return swaps.swap_all(job, connection, self.database.clock, remaining)

        while remaining := operations[len(results) :]:
            seconds = max(deadline - loop.time(), 0.0)
            try:
                answers = await self.database.run(swap, seconds)
            except (StoreUnavailable, StoreRefused) as err:
                answers = [_failure(err)] * len(remaining)
            results += answers
        return results

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        """Read the leases of `roles` (None: of every role). See `protocol.Store.read`."""
        names, clock = None if roles is None else tuple(roles), self.database.clock
        return await self.database.run(
            lambda _, connection: swaps.read(connection, clock, names), timeout
        )

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        """Read the past terms of `roles` (None: of every role). See `protocol.Store.past`."""
        names = None if roles is None else tuple(roles)
        return await self.database.run(
            lambda _, connection: swaps.history(connection, names), timeout
        )

    async def kept(self, role: str, timeout: float) -> Kept:
        """Read the text that `role` keeps. See `protocol.HasKept.kept`."""
        return await self.database.run(lambda _, connection: swaps.kept(connection, role), timeout)

    def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        """Yield the leases of `roles` (None: of every role), and again whenever one changes.

        See `protocol.Store.watch`.
        """
        clock = self.database.clock
        return self.database.feed(lambda connection: LeaseFeed(connection, clock, roles))

    async def close(self) -> None:
        """Release the thread and the file. A store that is used again opens the file again."""
        await self.database.close()

    def abandon(self) -> None:
        """Forget everything that was inherited, in a forked child."""
        self.database.abandon()

    def announcements(self) -> SQLiteAnnouncements:
        """Return the announcements in this file; always the same instance."""
        if self._announcements is None:
            self._announcements = SQLiteAnnouncements(self.database)
        return self._announcements

    def records(self, table: str) -> SQLiteRecords:
        """Return the service records in `table`; always the same instance for a table."""
        if table not in self._records:
            self._records.setdefault(table, SQLiteRecords(self.database, table))
        return self._records[table]

    async def _swap_one(self, operation: swaps.Swap, timeout: float) -> Result:
        clock = self.database.clock
        try:
            return await self.database.run(
                lambda job, connection: swaps.swap(job, connection, clock, operation), timeout
            )
        except (StoreUnavailable, StoreRefused) as err:
            return _failure(err)


def _failure(err: StoreUnavailable | StoreRefused) -> Failure:
    """Return the result of a swap that an error ended."""
    if isinstance(err, StoreRefused):
        return Failure.of_refusal(err)
    unknown = isinstance(err, CommitUnknown) or (
        isinstance(err, TooLate) and err.stage is Stage.COMMITTING
    )
    return Failure(unknown=unknown, detail=str(err))


def open_url(url: str) -> SQLiteStore:
    """Return the store that `url` names. It opens nothing.

    Raises:
        BadArgument: The URL does not name a file.
    """
    location = parse_url(url)
    return SQLiteStore(location.path, url=url, local=location.local)
