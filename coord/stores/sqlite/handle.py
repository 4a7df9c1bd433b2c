"""One thread's connection to the file, opened when it is wanted and closed when anything is doubtful about it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from types import TracebackType

from coord.stores.sqlite import forks, place, schema
from coord.stores.sqlite.trouble import Moved, sort_os


class Handle:
    """Enter it (`with handle:`) around every use, so that no fork comes in between."""

    def __init__(self, path: str, mounts: str = place.MOUNTS) -> None:
        self.path, self._mounts = path, mounts
        self.opened = 0
        """How often it was opened: a feed sees by it that its connection is a new one."""
        self._conn: sqlite3.Connection | None = None
        self._syncs = False
        self._file: tuple[int, int] = (0, 0)

    def __enter__(self) -> Handle:
        forks.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        forks.leave(self)

    def connection(self) -> sqlite3.Connection:
        """The connection. Raises `sqlite3.Error`, and what `place.prepare` and `schema.connect` raise."""
        if self._conn is None:
            place.prepare(self.path, self._mounts)
            before = self._identity()
            self._conn, self._syncs = schema.connect(self.path), True
            self._file = before
            self.opened += 1
            forks.opened(self)
            self.check_place()
        return self._conn

    def begin(self, *, synced: bool) -> sqlite3.Connection:
        """Begin a transaction that writes, and give the connection.

        synced: whether its COMMIT waits until all is on the disk. A claim must: no token may be given twice, whatever
            happens. What else is written need only outlive every process, which it does once it is in the system's
            hands: who holds a lease goes down with the machine, and after a boot the lease has run out. Nor does a busy
            disk then keep a leader from renewing. (sqlite.org/pragma.html#pragma_synchronous: in WAL mode NORMAL may
            lose the last commits with the power, and nothing else; a later commit that is synced keeps them.)
        """
        conn = self.connection()
        if synced is not self._syncs:
            conn.execute("PRAGMA synchronous=FULL" if synced else "PRAGMA synchronous=NORMAL")
            self._syncs = synced
        conn.execute("BEGIN IMMEDIATE")
        return conn

    def check_place(self) -> None:
        """Raise `Moved` if the file was deleted or replaced: others would elect a second leader in the new one."""
        if self._identity() != self._file:
            raise Moved(f"{self.path}: was deleted or replaced while it was open")

    def _identity(self) -> tuple[int, int]:
        try:
            stat = os.stat(self.path)
        except FileNotFoundError:
            return (0, -1)
        except OSError as err:
            raise sort_os(err, self.path) from None
        return stat.st_dev, stat.st_ino

    def roll_back(self) -> None:
        """End the transaction, if there is one. If even that fails, close: closing rolls back."""
        if self._conn is not None and self._conn.in_transaction:
            try:
                self._conn.execute("ROLLBACK")
            except sqlite3.Error:
                self.drop()

    def drop(self) -> None:
        """Close. Whoever needs a connection next opens a new one."""
        conn, self._conn = self._conn, None
        forks.closed(self)
        if conn is not None:
            with contextlib.suppress(sqlite3.Error):
                conn.close()
