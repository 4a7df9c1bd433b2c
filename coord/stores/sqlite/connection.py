"""One thread's connection to a SQLite file, and what keeps connections safe when a process forks.

A connection to SQLite must not be used across a fork. Every connection is closed before a fork and
opened again after it, in the parent and in the child alike. It is not enough that a child leaves
the connections of its parent alone: SQLite notes per process which locks it has on a file
(`inodeList` and `unixShmNode` in os_unix.c), and the child has a copy of these notes without having
the locks. A new connection in the child trusts the notes and takes no lock of its own. Then the
parent closes its connection, believes that it was the last one, and deletes the log, so nobody sees
what the child commits. If the parent was writing at the fork, the child finds the file locked
forever. And a thread that was inside SQLite may leave a locked mutex in the child.

Therefore threads enter SQLite through `enter` and `leave` (`with connection:`). A fork waits until
all threads have left, and closes the open connections.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from types import TracebackType
from typing import Protocol

from coord.errors import StoreRefused
from coord.stores.sqlite import schema
from coord.stores.sqlite.errors import FileReplaced
from coord.stores.sqlite.files import prepare
from coord.stores.sqlite.filesystems import MOUNTS
from coord.stores.sqlite.growth import WalGrowth
from coord.stores.sqlite.identity import (
    Directory,
    Files,
    look,
    refuse_second_log,
    wal_size_if_same,
)

MISSING = (0, 0)
"""What no existing file equals."""
FORK_WAIT = 1.0
"""Maximum time in seconds that a fork waits for threads inside SQLite; their disk may be slow."""


class Closable(Protocol):
    """Something that owns a connection to SQLite."""

    def close(self) -> None:
        """Close the connection. Any thread may call it."""


class _State:
    def __init__(self) -> None:
        # Each use of SQLite takes the lock twice, which takes half as long as by the condition.
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.forks_running = 0
        self.inside: set[Closable] = set()
        self.open: set[Closable] = set()


_state = _State()
_inherited: list[object] = []
"""Nobody reads it: it keeps what a child inherited from being collected, and so from being
closed."""
_fork_unsafe = False


def enter(user: Closable) -> None:
    """Announce that this thread is about to use SQLite, and wait while a fork is running.

    Raises:
        StoreRefused: This process was forked while another thread was inside SQLite.
    """
    if _fork_unsafe:
        raise StoreRefused(
            "this process was forked while a thread of its parent was inside SQLite, and cannot "
            "use SQLite safely: fork before you use coord, or start a new program"
        )
    with _state.lock:
        while _state.forks_running:
            _state.changed.wait()
        _state.inside.add(user)


def leave(user: Closable) -> None:
    """Announce that this thread does not use SQLite for now."""
    with _state.lock:
        _state.inside.discard(user)
        if _state.forks_running and not _state.inside:
            _state.changed.notify_all()


def leak(thing: object) -> None:
    """Keep `thing` from ever being collected as garbage."""
    _inherited.append(thing)


def _before_fork() -> None:
    with _state.changed:
        _state.forks_running += 1
        _state.changed.wait_for(lambda: not _state.inside, FORK_WAIT)
        for owner in _state.open - _state.inside:
            owner.close()


def _after_fork_in_parent() -> None:
    with _state.changed:
        _state.forks_running -= 1
        _state.changed.notify_all()


def _after_fork_in_child() -> None:
    global _state, _fork_unsafe
    if _state.open or _state.inside:
        _fork_unsafe = True
        leak(_state)
    _state = _State()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


def _close_idle(now: Files) -> None:
    """Close the connections that no thread uses at the moment and whose files were replaced.

    No process can use the files that are there `now` before all these connections are closed.
    """
    with _state.changed:
        for owner in _state.open - _state.inside:
            if isinstance(owner, Connection) and owner.files.uses_old(now):
                owner.close()


class Connection:
    """One thread's connection to a file.

    It is opened at the first use, and closed when anything about it is in doubt. Enter it
    (`with connection:`) around every use, so that no fork happens in between.

    Attributes:
        path: Absolute path of the file.
        times_opened: How often the connection was opened. It tells a feed that it has a new one.
        files: The files that it has open, and the size that the log had then.
        directory: Their directory; None before the first use.
    """

    def __init__(self, path: str, mounts: str = MOUNTS, *, local: bool = False) -> None:
        self.path, self._mounts, self._local = path, mounts, local
        self.times_opened = 0
        self._conn: sqlite3.Connection | None = None
        self._synced = False
        self._real = path
        self._paths = ("", "", "")
        self.files = Files(None, None, None)
        self.directory: Directory | None = None
        self._growth = WalGrowth(path)

    def __enter__(self) -> Connection:
        enter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        leave(self)

    def sqlite(self, *, create: bool = False) -> sqlite3.Connection:
        """Return the connection of the sqlite3 module; open it if necessary.

        Args:
            create: Whether to create a missing file. What only reads must not create one: an
                empty database looks as if nobody led, although the URL is wrong.

        Raises:
            NotSetUp: The file does not exist, and `create` is False.
            sqlite3.Error: SQLite could not open the file.
            CoordError: As `files.prepare` and `schema.connect`.
        """
        if self._conn is None:
            prepare(self.path, self._mounts, local=self._local, create=create)
            self._real = os.path.realpath(self.path)
            self._paths = (self.path, f"{self._real}-wal", f"{self._real}-shm")
            before = look(self.path, self._real)
            self._refuse_old_files(before)
            refuse_second_log(self.path, before)
            self._conn, self._synced = schema.connect(self.path), True
            _state.open.add(self)
            self.times_opened += 1
            self.files = look(self.path, self._real)
            # What was missing before was created by SQLite just now, here or in another process.
            after = self.files
            wal, shm = before.wal or after.wal or MISSING, before.shm or after.shm or MISSING
            Files(before.main, wal, shm).check(after, self.path)
            self._growth.opened(after)
            self.directory = Directory(self.path, self._real, self._mounts)
        return self._conn

    @property
    def is_open(self) -> bool:
        """Whether it has the file open."""
        return self._conn is not None

    def begin(self, *, synced: bool, create: bool = True) -> sqlite3.Connection:
        """Begin a transaction that writes, and return the connection.

        Args:
            synced: Whether COMMIT waits until everything is on the disk.
            create: Whether to create a missing file.
        """
        # A claim must be synced, because no token may be given twice, whatever happens. Other
        # writes only have to outlive every process, and they do so once the operating system has
        # them: the holder of a lease stops together with the machine, and after a boot the lease
        # has expired. A busy disk then also does not keep a leader from renewing. In WAL mode
        # NORMAL may lose the last commits at a power failure and nothing else; a later commit that
        # is synced keeps them (sqlite.org/pragma.html#pragma_synchronous).
        conn = self.sqlite(create=create)
        if synced is not self._synced:
            conn.execute("PRAGMA synchronous=FULL" if synced else "PRAGMA synchronous=NORMAL")
            self._synced = synced
        conn.execute("BEGIN IMMEDIATE")
        return conn

    def check_file(self) -> None:
        """Raise `FileReplaced` if the database, its log or its index was deleted or replaced.

        Other processes would elect a second leader with the new files.
        """
        directory = self.directory
        if directory is not None:
            if directory.is_unchanged():
                return
            state = directory.look()
        wal_size = wal_size_if_same(self.files, self._paths)
        if wal_size is not None:
            if directory is not None:
                directory.remember(state)
            self._growth.check(self.files, wal_size)
            return
        now = look(self.path, self._real)
        try:
            self.files.check(now, self.path)
        except FileReplaced:
            _close_idle(now)
            raise
        self._growth.check(now, now.wal_size)

    def close_if_replaced(self) -> None:
        """Close if the files were replaced, so that others can open the new ones."""
        if self.is_open:
            try:
                self.check_file()
            except FileReplaced:
                self.close()

    def _refuse_old_files(self, now: Files) -> None:
        """Raise `FileReplaced` if a connection of this process has the database with an old log.

        SQLite would use the new log with the old index, because it shares the index among all
        connections of a process.
        """
        for other in tuple(_state.open):
            if isinstance(other, Connection) and other.files.uses_old(now):
                _close_idle(now)
                other.files.check(now, self.path)

    def roll_back(self) -> None:
        """End the transaction, if there is one. If even that fails, close: closing rolls back."""
        if self._conn is not None and self._conn.in_transaction:
            try:
                self._conn.execute("ROLLBACK")
            except sqlite3.Error:
                self.close()

    def close(self) -> None:
        """Close. The next use opens a new connection."""
        conn, self._conn = self._conn, None
        _state.open.discard(self)
        if conn is not None:
            with contextlib.suppress(sqlite3.Error):
                conn.close()
