"""By which clock the leases in a file expire, and how a restart of the machine is proven.

Every row says which clock its end was written by. Equal, known names compare. Anything else is
unknown, and a lease whose end is unknown is not taken by its end: a challenger watches it for a
whole ttl. Two names may differ without a restart, because a container can show its processes
another boot id.

A restart is proven by a lock that no process survives. A process that writes rows keeps a shared
lock on one byte of a file beside the database; the name of its clock chooses the byte. If no
process on this kernel has a lock on the byte of another name, then nobody lives who wrote under
that name. The locks are open-file-description locks: a POSIX lock would be dropped when any other
descriptor of the file is closed. The file is not the database, whose descriptors must not be closed
while SQLite has locks on it (sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import sys
import threading
from collections.abc import Callable
from math import inf

from coord.runtime.clock import StoreClock, is_known, machine_clock

if sys.platform == "linux":
    import fcntl

    _FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

SUFFIX = "-lock"
"""What the name of the file of locks has more than that of the database."""
_BYTES = 2**56 - 5
"""How many bytes the locks are on: a prime number, so that all of a name decides."""
_FLOCK = "hhqqi0q"
"""`struct flock` of Linux: type, whence, start, length and process; and its padding."""


class LeaseClock:
    """The clock of the leases in one file, for one `Database`. Any thread may use it."""

    def __init__(self, path: str, clock: StoreClock | None = None) -> None:
        """Create a clock; it opens nothing.

        Args:
            path: Path of the database.
            clock: A clock for tests; None means the clock of the machine.
        """
        self._path, self._fixed = path, clock
        self._start()

    def _start(self) -> None:
        self._mutex = threading.Lock()
        self._lock_fd, self._lock_file, self._locked_name = -1, 0, ""

    def __del__(self) -> None:
        if getattr(self, "_lock_fd", -1) >= 0:
            self._close_lock()

    @property
    def lock_path(self) -> str:
        """Path of the file of locks. All symbolic links to the database have the same one."""
        return os.path.realpath(self._path) + SUFFIX

    @property
    def store_clock(self) -> StoreClock:
        """The clock of the machine, or that of the tests."""
        return machine_clock() if self._fixed is None else self._fixed

    @property
    def name(self) -> str:
        """The name of the clock."""
        return self.store_clock.name

    @property
    def total(self) -> Callable[[], float]:
        """Reads the clock by which leases expire, in seconds."""
        return self.store_clock.total

    @property
    def wall(self) -> Callable[[], float]:
        """Reads the wall clock (seconds since 1970), for people."""
        return self.store_clock.wall

    def read(self) -> tuple[float, float]:
        """Return the time by which leases expire, and the wall time."""
        clock = self.store_clock
        return clock.total(), clock.wall()

    def stamp(self) -> str:
        """Return what a row says about its clock, to be called before the row is written.

        It is the name of the clock. If this process has a lock that shows that it lives, the number
        of the file of locks follows. It keeps the lock until `close`.
        """
        name = self.name
        if name != self._locked_name and is_known(name):
            with self._mutex:
                if name != self._locked_name and self._open_and_lock(name):
                    self._locked_name = name
        return f"{name} {self._lock_file}" if name == self._locked_name else name

    def remaining(self, stamp: object, expires: float, ttl: float, now: float) -> float:
        """Return how many seconds a lease lasts from `now` on.

        Args:
            stamp: What its row says about its clock.
            expires: When the lease expires, on the clock of its row.
            ttl: The ttl of the row.
            now: The time on this clock.

        Returns:
            A whole ttl if nothing is known, and minus infinity if the machine has restarted since
            the row was written.
        """
        own = self.name
        name, _, lock_file = stamp.partition(" ") if isinstance(stamp, str) else ("", "", "")
        if name == own and own:
            return expires - now
        if lock_file and is_known(name) and is_known(own) and self._nobody_lives(name, lock_file):
            return -inf
        return ttl

    def can_prove_restart(self) -> bool:
        """Return whether the locks work for this file. Takes the lock."""
        return " " in self.stamp()

    def close(self) -> None:
        """Let go of the lock. The next `stamp` takes it again."""
        with self._mutex:
            self._close_lock()

    def abandon(self) -> None:
        """Close the inherited descriptor, in a forked child. The parent keeps its lock."""
        # Its own mutex may be locked forever in the child.
        self._close_lock()
        self._start()

    def _close_lock(self) -> None:
        fd, self._lock_fd, self._locked_name = self._lock_fd, -1, ""
        if fd >= 0:
            # A program that becomes a daemon closes all files, and the number may have another one.
            with contextlib.suppress(OSError):
                if not self._lock_file or os.fstat(fd).st_ino == self._lock_file:
                    os.close(fd)

    def _open_and_lock(self, name: str) -> bool:
        """Take the lock of `name`, and return whether that was possible."""
        if sys.platform != "linux":
            return False
        self._close_lock()
        try:
            self._lock_fd = self._open_for_locks()
            status = os.fstat(self._lock_fd)
            if stat.S_ISREG(status.st_mode):
                lock = _lock(fcntl.F_RDLCK, name)
                fcntl.fcntl(self._lock_fd, fcntl.F_OFD_SETLK, lock)
                self._lock_file = status.st_ino
                return True
        except OSError:
            pass  # the row says nothing about a lock then
        self._close_lock()
        return False

    def _open_for_locks(self) -> int:
        """Open the file of locks; create it for all who may use the database."""
        try:
            return os.open(self.lock_path, _FLAGS)
        except FileNotFoundError:
            owner = os.stat(self._path)
        try:
            fd = os.open(self.lock_path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(self.lock_path, _FLAGS)
        os.fchmod(fd, stat.S_IMODE(owner.st_mode) & 0o666)
        if os.geteuid() == 0:
            os.fchown(fd, owner.st_uid, owner.st_gid)
        _sync_directory(self.lock_path)
        return fd

    def _nobody_lives(self, name: str, lock_file: str) -> bool:
        """Return whether no process on this kernel has the lock of `name`."""
        if sys.platform != "linux":
            return False
        with self._mutex:  # without it, the number could belong to another file by now
            if self._locked_name and str(self._lock_file) == lock_file:
                return _is_free(self._lock_fd, name)
        try:
            fd = os.open(self.lock_path, _FLAGS)
        except OSError:
            return False
        try:
            # A file that was deleted and created again has none of the locks.
            return str(os.fstat(fd).st_ino) == lock_file and _is_free(fd, name)
        finally:
            os.close(fd)


def _sync_directory(path: str) -> None:
    """Make a new file survive a power failure: after the boot it proves the restart."""
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


if sys.platform == "linux":

    def _lock(kind: int, name: str) -> bytes:
        # Two names on one byte err to the safe side.
        start = int.from_bytes(name.encode(), "big") % _BYTES
        return struct.pack(_FLOCK, kind, os.SEEK_SET, start, 1, 0)

    def _is_free(fd: int, name: str) -> bool:
        """Return whether an exclusive lock of `name` could be had."""
        try:
            answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, name))
        except OSError:
            return False
        return bool(struct.unpack(_FLOCK, answer)[0] == fcntl.F_UNLCK)
