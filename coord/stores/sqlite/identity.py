"""Whether all processes that use a SQLite file use the same log.

A database in WAL mode consists of three files: the database, the log (`-wal`) and the index of the
log (`-shm`). A connection opens each of them once. If somebody removes the log or the index, old
connections continue with the removed files, and a new connection would create new ones: two groups
of processes, each with a leader of its own and with the same tokens.

Two checks prevent that. Before each commit a connection looks whether the names still lead to the
files that it has open. And no connection creates a log or an index while another process has the
database open: a connection in WAL mode keeps a shared lock on the database as long as it lives
(`pagerUseWal` in SQLite's pager.c). The connection that closes last moves the removed log into the
database, so nothing is lost, and then new connections are possible.
"""

from __future__ import annotations

import os
import sqlite3
import time
from typing import NamedTuple

from coord.stores.sqlite import locks
from coord.stores.sqlite.errors import BUSY, FileReplaced, LogRemoved, classify_os, code
from coord.stores.sqlite.filesystems import MOUNTS, file_system

NAMES_INTERVAL = 1.0
"""Time in seconds after which the names are read even if their directory did not change."""
# fmt: off
DATED_FILE_SYSTEMS = frozenset((
    "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs",
))
# fmt: on
"""File systems of Linux that give a directory a new time of change whenever a name in it leads to
another file, as POSIX asks."""
_COARSE_CLOCK = 5
"""CLOCK_REALTIME_COARSE of Linux: the clock that file systems take these times from."""
_TIME_UNIT = 1_000_000
"""Nanoseconds. A file system whose times are multiples of this may give two changes one time."""

Number = tuple[int, int]
"""The device and the inode of a file."""


class Files(NamedTuple):
    """The files behind the names of one database; None for a file that does not exist.

    Attributes:
        main: The database.
        wal: The write-ahead log.
        shm: The index of the log, which is shared memory.
        wal_size: The size of the log in bytes; it tells nothing about the identity.
    """

    main: Number | None
    wal: Number | None
    shm: Number | None
    wal_size: int = 0

    def uses_old(self, now: Files) -> bool:
        """Return whether these are the database of `now` with another log or index."""
        return self.main == now.main and self[:3] != now[:3]

    def check(self, now: Files, path: str) -> None:
        """Raise `FileReplaced` if `now` are other files than these."""
        if now[:3] == self[:3]:
            return
        if now.main != self.main:
            raise FileReplaced(f"{path} was deleted or replaced while it was open")
        name = f"{path}-wal" if now.wal != self.wal else f"{path}-shm"
        raise FileReplaced(
            f"{name} was deleted or replaced while {path} was open; delete it only when no process "
            "uses the database"
        )


def look(path: str, real: str) -> Files:
    """Return the files that the names lead to now.

    Args:
        path: The path of the database.
        real: The same without symbolic links. SQLite keeps the log and the index beside it.

    Raises:
        CoordError: The file system does not answer.
    """
    try:
        main, wal, shm = _stat(path), _stat(f"{real}-wal"), _stat(f"{real}-shm")
    except OSError as err:
        raise classify_os(err, path) from None
    return Files(
        main and (main.st_dev, main.st_ino),
        wal and (wal.st_dev, wal.st_ino),
        shm and (shm.st_dev, shm.st_ino),
        wal.st_size if wal else 0,
    )


def wal_size_if_same(files: Files, paths: tuple[str, str, str]) -> int | None:
    """Return the size of the log if the names lead to these files; else None.

    It is `look` for every commit, in two thirds of the time.

    Args:
        files: The files.
        paths: The paths of the database, the log and the index.
    """
    try:
        main, wal, shm = map(os.stat, paths)
    except OSError:
        return None
    same = (
        (main.st_dev, main.st_ino) == files.main
        and (wal.st_dev, wal.st_ino) == files.wal
        and (shm.st_dev, shm.st_ino) == files.shm
    )
    return wal.st_size if same else None


class Directory:
    """The directory of a database. Its time of change tells whether its names are the same.

    A commit looks once at the directory instead of at each of the three files. A process that
    removes, replaces or adds a name changes the directory, and nobody can set its time of change
    back. Only a file that is mounted over a name does not change it: the names are read every
    second, too.

    Args:
        path: The path of the database.
        real: The same without symbolic links.
        mounts: File that lists the mounted file systems.
    """

    def __init__(self, path: str, real: str, mounts: str = MOUNTS) -> None:
        self._path = os.path.dirname(path)
        # If the name is a symbolic link, another directory may decide where it leads. The directory
        # itself may be reached by links: then it is another one once they lead elsewhere.
        same = os.path.join(os.path.realpath(self._path), os.path.basename(path)) == real
        try:
            self._dated = same and file_system(real, mounts) in DATED_FILE_SYSTEMS
        except OSError:  # no descriptor is left to read the list of mounts
            self._dated = False
        self._known: tuple[int, int, int] | None = None
        self._until = 0.0

    def is_unchanged(self) -> bool:
        """Return whether the names lead to the same files as when `remember` was called."""
        if self._known is None or time.monotonic() >= self._until:
            return False
        try:
            now = os.stat(self._path)
        except OSError:
            return False
        return (now.st_ctime_ns, now.st_ino, now.st_dev) == self._known

    def look(self) -> tuple[int, int, int] | None:
        """Return the state of the directory, for `remember`; None if it would prove nothing.

        Call it before the names are read, so that a change between the two is noticed later.
        """
        if not self._dated:
            return None
        coarse = time.clock_gettime_ns(_COARSE_CLOCK)
        try:
            now = os.stat(self._path)
        except OSError:
            return None
        changed = now.st_ctime_ns
        # A change within the same tick of the clock as the last would have the same time.
        if changed % _TIME_UNIT == 0 or coarse - changed < _TIME_UNIT:
            return None
        return changed, now.st_ino, now.st_dev

    def remember(self, state: tuple[int, int, int] | None) -> None:
        """Note that the names led to the right files after `look` had returned `state`."""
        self._known, self._until = state, time.monotonic() + NAMES_INTERVAL


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def refuse_second_log(path: str, files: Files) -> None:
    """Raise `LogRemoved` if a process uses the database with another log than a new connection.

    Several processes that open a new file at the same time may get this error for a moment, and
    try again.

    Args:
        path: The path of the database.
        files: Its files as they are now.

    Raises:
        LogRemoved: A process uses a log that was removed.
        sqlite3.Error: SQLite cannot open the file.
    """
    if files.wal is not None and files.shm is not None:
        removed = locks.users_of_another_index(files.main, files.shm)
    else:
        removed = os.path.getsize(path) > 0 and _in_use(path)
    if removed:
        raise LogRemoved(
            f"cannot use {path}: its log ({path}-wal) or the index of the log ({path}-shm) was "
            "deleted while other processes had the database open. Processes of coord notice that "
            f"within seconds and close it; if others do not (see fuser {path}), end them"
        )


def _in_use(path: str) -> bool:
    """Return whether another connection, of any process, has the database open."""
    conn = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        # In this mode the first read needs an exclusive lock on a database in WAL mode, and SQLite
        # creates no index.
        conn.execute("PRAGMA locking_mode=EXCLUSIVE")
        conn.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as err:
        if code(err) == BUSY:
            return True
        raise
    finally:
        conn.close()
    return False
