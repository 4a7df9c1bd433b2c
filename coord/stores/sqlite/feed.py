"""A thread that notices the commits of other connections, and reads the rows that they changed.

Many times a second it reads `PRAGMA data_version`. The number changes when another connection of
any process has committed (sqlite.org/pragma.html), and reading it reads no page of the file. The
watched rows are read only after such a change.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Collection
from typing import Generic, TypeVar

from coord.core.lease import Lease, Revision
from coord.errors import CoordError, NotSetUp, StoreUnavailable
from coord.stores.sqlite import schema
from coord.stores.sqlite.connection import Connection
from coord.stores.sqlite.errors import Busy, FileReplaced, classify
from coord.stores.sqlite.lease_clock import LeaseClock

T = TypeVar("T")
POLL_INTERVAL = 0.005
"""Time in seconds between two reads of the number."""
IDLE_FACTOR = 9
"""The thread is idle for this many times the processor time of its last read, so that it uses a
tenth of a core at most."""
MAX_IDLE = 0.25
"""Maximum idle time in seconds that follows from `IDLE_FACTOR`."""
MAX_BUSY = 2.0
"""Time in seconds after which a file that is always busy ends the feed."""
FILE_CHECK_INTERVAL = 1.0
"""Time in seconds between two checks that the file at the path is still the same."""


class Feed(Generic[T]):
    """The base class of the feeds. A subclass says which rows it reads.

    Several changes of a row may be reported as one.

    Attributes:
        stopped: Whether the feed must end. It is a plain flag without a lock, so that a forked
            child may set it, too.
        ended: Whether the thread has closed the file.
        incomplete: Whether `read_changes` has left changes for its next call.
        poll_interval: Time in seconds between two reads of the number.
    """

    poll_interval = POLL_INTERVAL

    def __init__(self, connection: Connection, clock: LeaseClock) -> None:
        self.stopped = False
        self.ended = self.incomplete = False
        # The thread waits for this lock instead of sleeping; `stop` releases it.
        self._stop_signal = threading.Lock()
        self._stop_signal.acquire()
        self._connection, self._clock = connection, clock
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._pending: dict[str, T] = {}
        self._error: str | None = None
        self._version = (0, 0)
        self._file_checked = time.monotonic()

    def read_changes(self, conn: sqlite3.Connection) -> dict[str, T]:
        """Return the rows that changed since the last call, by key; at first all rows.

        Called on the thread of the feed.
        """
        raise NotImplementedError

    def start(self) -> None:
        """Start the thread. Raises `StoreUnavailable` if no thread can be started."""
        try:
            threading.Thread(target=self._run, name="coord sqlite feed", daemon=True).start()
        except RuntimeError as err:
            self.ended = True
            raise StoreUnavailable(
                f"no thread could be started for {self._connection.path}: {err}"
            ) from None

    async def next_rows(self) -> list[T]:
        """Wait for changes, and return at least one row.

        Raises:
            StoreUnavailable: The feed failed.
        """
        while not self._pending:
            if self._error is not None:
                raise StoreUnavailable(self._error)
            self._arrived.clear()
            await self._arrived.wait()
        rows = list(self._pending.values())
        self._pending.clear()
        return rows

    def stop(self) -> None:
        """End the feed. Call it on the loop."""
        self.stopped = True
        with contextlib.suppress(RuntimeError):  # it was released before
            self._stop_signal.release()

    def fail(self, detail: str) -> None:
        """End the feed with an error, which `next_rows` raises. Call it on the loop."""
        self.stop()
        self._error = detail
        self._arrived.set()

    def _run(self) -> None:
        busy_since: float | None = None
        while not self._must_end():
            started, used = time.monotonic(), time.thread_time()
            try:
                with self._connection:
                    rows = self._poll()
            except Busy as err:
                rows, busy_since = {}, started if busy_since is None else busy_since
                if started - busy_since > MAX_BUSY:
                    self._report({}, str(err))
                    break
            except Exception as err:  # whatever it is, the listener must learn that the feed ended
                self._report({}, str(err) if isinstance(err, CoordError) else type(err).__name__)
                break
            else:
                busy_since = None
            if rows:
                self._report(rows, None)
            self._stop_signal.acquire(
                timeout=max(
                    self.poll_interval, min(IDLE_FACTOR * (time.thread_time() - used), MAX_IDLE)
                )
            )
        with contextlib.suppress(CoordError), self._connection:  # a forked child may not use SQLite
            self._connection.close()
        self.ended = True

    def _must_end(self) -> bool:
        return self.stopped or self._loop.is_closed()

    def _poll(self) -> dict[str, T]:
        connection = self._connection
        try:
            conn = connection.sqlite()
            if (now := time.monotonic()) - self._file_checked > FILE_CHECK_INTERVAL:
                self._file_checked = now
                connection.check_file()
            # The number is read first: a commit between the two reads is then read now, and at
            # worst once more.
            version = (connection.times_opened, conn.execute("PRAGMA data_version").fetchone()[0])
            if version == self._version:
                return {}
            rows = self.read_changes(conn)
        except NotSetUp:
            return {}  # the first claim creates the file
        except FileReplaced:
            connection.close()
            raise
        except sqlite3.Error as err:
            raise classify(err, connection.path) from err
        if not self.incomplete:
            self._version = version
        return rows

    def _report(self, rows: dict[str, T], error: str | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._receive, rows, error)
        except RuntimeError:
            self.stopped = True  # the loop is closed

    def _receive(self, rows: dict[str, T], error: str | None) -> None:
        self._pending.update(rows)
        if error is not None:
            self.fail(error)
        self._arrived.set()


class LeaseFeed(Feed[Lease]):
    """The leases of `roles` (None: of every role): first all, then each whose revision changed."""

    def __init__(
        self, connection: Connection, clock: LeaseClock, roles: Collection[str] | None
    ) -> None:
        super().__init__(connection, clock)
        self._roles = None if roles is None else tuple(roles)
        self._known: dict[str, Revision] = {}

    def read_changes(self, conn: sqlite3.Connection) -> dict[str, Lease]:
        """Return the leases whose revision changed since the last call, by role."""
        rows = schema.select_leases(conn, self._roles)
        now, changed = self._clock.total(), {}
        path = self._connection.path
        news = [row for row in rows if self._known.get(row[0]) != (row[1], row[2], row[3])]
        for row, lease in schema.decode_readable(news, now, self._clock, path):
            self._known[row[0]] = lease.revision
            changed[row[0]] = lease
        if len(self._known) > len(rows):  # roles were retired
            present = {row[0] for row in rows}
            self._known = {role: last for role, last in self._known.items() if role in present}
        return changed
