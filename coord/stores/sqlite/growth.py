"""A log that grows, because a process keeps a transaction open that reads.

SQLite begins the log again from its start once all of it is in the database and nobody reads from
it. While somebody does, every write makes the log longer, a renewal by at least one page of 4 KiB.
"""

from __future__ import annotations

import time

from coord.runtime import log
from coord.stores.sqlite import locks
from coord.stores.sqlite.identity import Files

MAX_WAL_SIZE = 16 * 2**20
"""Bytes by which the log may grow before it is worth a warning. SQLite tries to begin it again
whenever it has 4 MiB, and cuts a longer one off then."""
MIN_TRANSACTION = 1.0
"""Time in seconds after which a transaction that reads counts as kept open."""


class WalGrowth:
    """Warns when the log of one connection grows, and says which processes read it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._limit = MAX_WAL_SIZE
        self._since = 0.0
        self._readers: set[tuple[int, int]] | None = None

    def opened(self, files: Files) -> None:
        """Begin again with a new connection. The log may be long from before."""
        self._limit = files.wal_size + MAX_WAL_SIZE
        self._readers = None

    def check(self, files: Files, wal_size: int) -> None:
        """Warn if the log has grown too much. Call it every second while somebody writes.

        Args:
            files: The files of the database.
            wal_size: The present size of the log, in bytes.
        """
        if wal_size < self._limit:
            self._readers = None
            return
        now = time.monotonic()
        if self._readers is None:
            self._readers, self._since = locks.readers(files.shm), now
        elif now - self._since >= MIN_TRANSACTION:
            readers = self._readers & locks.readers(files.shm)
            log.warning(
                "sqlite.log_grows",
                path=self._path,
                mebibytes=wal_size // 2**20,
                readers=name_readers(readers),
            )
            self._limit, self._readers = 2 * wal_size, None


def name_readers(readers: set[tuple[int, int]]) -> str:
    """Return the processes for people; "unknown" if there are none."""
    return (
        ", ".join(locks.describe(pid) for pid in sorted({pid for pid, _ in readers})) or "unknown"
    )
