"""A thread that notices other connections' commits: it asks SQLite for one number, many times a
second.

`PRAGMA data_version` changes when another connection has committed, of this process or of any
(sqlite.org/pragma.html), and reads no page of the file. Only then are the watched rows read."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Collection
from typing import Generic, TypeVar

from coord.core.lease import Lease, Revision
from coord.errors import CoordError, StoreUnavailable
from coord.runtime.clock import StoreClock
from coord.stores.sqlite import schema
from coord.stores.sqlite.connection import Connection
from coord.stores.sqlite.errors import Busy, FileReplaced, classify

T = TypeVar("T")
POLL = 0.005
"""Seconds between looks."""
REST = 9
"""It rests so many times as long as its last look took of the processor: a tenth of a core at
most."""
REST_AT_MOST = 0.25
BUSY_FOR = 2.0
"""Seconds after which a file that is busy all the time is an error."""
CHECK_PLACE = 1.0
"""Seconds between looks at whether the file is still the one at the path."""


class Feed(Generic[T]):
    """What `fresh` finds in the file, whenever somebody has committed. Several changes of a row may
    come as one.

    `stopped` is a plain flag, without a lock, so that a forked child may set it too. `poll` is in
    seconds."""

    poll = POLL

    def __init__(self, handle: Connection, clock: StoreClock) -> None:
        self.stopped = False
        self.ended = False
        """Whether the thread has let go of the file."""
        self._bell = (
            threading.Lock()
        )  # taken while nobody rings: the thread waits for it instead of sleeping
        self._bell.acquire()
        self._handle, self._clock, self._loop = handle, clock, asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._pending: dict[str, T] = {}
        self._error: str | None = None
        self._version = (0, 0)
        self._checked = time.monotonic()

    def fresh(self, conn: sqlite3.Connection) -> dict[str, T]:
        """On the thread: the rows that are not as they were told last, by their keys; at first, all
        of them."""
        raise NotImplementedError

    def start(self) -> None:
        try:
            threading.Thread(target=self._run, name="coord sqlite feed", daemon=True).start()
        except RuntimeError as err:
            self.ended = True
            raise StoreUnavailable(
                f"no thread could be started for {self._handle.path}: {err}"
            ) from None

    async def take(self) -> list[T]:
        """What has come since the last time, at least one row. Raises `StoreUnavailable`."""
        while not self._pending:
            if self._error is not None:
                raise StoreUnavailable(self._error)
            self._arrived.clear()
            await self._arrived.wait()
        rows = list(self._pending.values())
        self._pending.clear()
        return rows

    def stop(self) -> None:
        """On the loop: end, now."""
        self.stopped = True
        with contextlib.suppress(RuntimeError):  # it was rung already
            self._bell.release()

    def fail(self, detail: str) -> None:
        """On the loop: end, and have `take` raise."""
        self.stop()
        self._error = detail
        self._arrived.set()

    # -- on the thread
    # ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        busy_since: float | None = None
        while not self._over():
            begun, used = time.monotonic(), time.thread_time()
            try:
                with self._handle:
                    rows = self._look()
            except Busy as err:
                rows, busy_since = {}, begun if busy_since is None else busy_since
                if begun - busy_since > BUSY_FOR:
                    self._tell({}, str(err))
                    break
            except (
                Exception
            ) as err:  # whatever it is, the listener must hear that nothing more comes
                self._tell({}, str(err) if isinstance(err, CoordError) else type(err).__name__)
                break
            else:
                busy_since = None
            if rows:
                self._tell(rows, None)
            self._bell.acquire(
                timeout=max(self.poll, min(REST * (time.thread_time() - used), REST_AT_MOST))
            )
        with contextlib.suppress(CoordError), self._handle:  # a child that may not touch SQLite
            self._handle.drop()
        self.ended = True

    def _over(self) -> bool:
        return self.stopped or self._loop.is_closed()

    def _look(self) -> dict[str, T]:
        handle = self._handle
        try:
            conn = handle.connection()
            if (now := time.monotonic()) - self._checked > CHECK_PLACE:
                self._checked = now
                handle.check_place()
            # The number first: a commit that comes in between is read now and, at worst, looked for
            # once more.
            version = (handle.opened, conn.execute("PRAGMA data_version").fetchone()[0])
            if version == self._version:
                return {}
            rows = self.fresh(conn)
        except FileReplaced:
            handle.drop()
            raise
        except sqlite3.Error as err:
            raise classify(err, handle.path) from err
        self._version = version
        return rows

    def _tell(self, rows: dict[str, T], error: str | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._hear, rows, error)
        except RuntimeError:
            self.stopped = True  # the loop is closed

    def _hear(self, rows: dict[str, T], error: str | None) -> None:
        self._pending.update(rows)
        if error is not None:
            self.fail(error)
        self._arrived.set()


class LeaseFeed(Feed[Lease]):
    """Rows of `roles` (None: of every role): all at first, then each whose sight has changed."""

    def __init__(
        self, handle: Connection, clock: StoreClock, roles: Collection[str] | None
    ) -> None:
        super().__init__(handle, clock)
        self._roles = None if roles is None else tuple(roles)
        self._known: dict[str, Revision] = {}

    def fresh(self, conn: sqlite3.Connection) -> dict[str, Lease]:
        rows = schema.select(conn, self._roles)
        store_now, fresh = self._clock.total(), {}
        for row in rows:
            revision = Revision(row[1], row[2], row[3])
            if self._known.get(row[0]) != revision:
                self._known[row[0]] = revision
                fresh[row[0]] = schema.lease(row, store_now, self._clock.boot)
        return fresh
