"""Which processes have locks on the files of a database, as Linux lists them in /proc/locks.

The list serves messages and one additional check. It is empty on other systems, and does not show
the processes of other PID namespaces.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

LOCKS = "/proc/locks"

# The locks of SQLite: `SHARED_FIRST` in os.h, and `WAL_WRITE_LOCK`, `WAL_READ_LOCK` and
# `UNIX_SHM_DMS` in wal.c and os_unix.c.
SHARED = 0x40000002
"""Byte of the database that each connection in WAL mode has locked."""
WRITER = 120
"""Byte of the index that the connection which writes has locked."""
READERS = range(123, 128)
"""Bytes of the index, of which a connection that reads has locked one."""
USER = 128
"""Byte of the index that each connection has locked."""


class Lock(NamedTuple):
    """A lock that a process has on a file, from the byte `first` to the byte `last`."""

    pid: int
    file: tuple[int, int]
    first: int
    last: int
    exclusive: bool

    def covers(self, byte: int) -> bool:
        """Return whether the byte is locked."""
        return self.first <= byte <= self.last


def held(source: str = LOCKS) -> Iterator[Lock]:
    """Yield the locks that processes have. Locks that a process waits for are left out."""
    try:
        with open(source, encoding="ascii") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split()
        # "1: POSIX  ADVISORY  READ 16388 fe:00:2154744 128 128"
        if len(fields) < 8 or fields[1] != "POSIX":
            continue
        with contextlib.suppress(ValueError):
            major, minor, inode = fields[5].split(":")
            device = os.makedev(int(major, 16), int(minor, 16))
            last = 2**63 if fields[7] == "EOF" else int(fields[7])
            yield Lock(
                int(fields[4]), (device, int(inode)), int(fields[6]), last, fields[3] == "WRITE"
            )


def users_of_another_index(
    main: tuple[int, int] | None, index: tuple[int, int], source: str = LOCKS
) -> bool:
    """Return whether a process has the database open, but not this index."""
    locks = list(held(source))
    users = {lock.pid for lock in locks if lock.file == main and lock.first == SHARED}
    return bool(users - {lock.pid for lock in locks if lock.file == index and lock.first == USER})


def writer(path: str, source: str = LOCKS) -> int | None:
    """Return the process that has the write lock of a database; None if it is not known."""
    try:
        files = os.stat(path), os.stat(f"{os.path.realpath(path)}-shm")
    except OSError:
        return None
    main, shm = ((file.st_dev, file.st_ino) for file in files)
    for lock in held(source):
        if lock.exclusive and (
            (lock.file == shm and lock.covers(WRITER))
            or (lock.file == main and lock.covers(SHARED))
        ):
            return lock.pid
    return None


def readers(shm: tuple[int, int] | None, source: str = LOCKS) -> set[tuple[int, int]]:
    """Return the processes that read the database now, and for each the byte that it has locked.

    A transaction of coord takes milliseconds. A process that is found again after a second keeps a
    transaction open.
    """
    return {
        (lock.pid, lock.first)
        for lock in held(source)
        if lock.file == shm and lock.first in READERS and lock.pid != os.getpid()
    }


def describe(pid: int) -> str:
    """Return the process, its program and whether it is stopped, for people."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name of the program is in parentheses, and may contain some.
            program, _, rest = file.read().partition("(")[2].rpartition(")")
    except OSError:
        return f"pid {pid}"
    stopped = rest.split()[:1] in (["T"], ["t"]) or _is_frozen(pid)
    return f"pid {pid} ({program}{', stopped' if stopped else ''})"


def _is_frozen(pid: int) -> bool:
    """Return whether the control group of the process is frozen, as by `docker pause`."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            groups = [line.rstrip("\n").split(":", 2) for line in file]
        for number, controllers, path in groups:
            if number == "0":
                state, frozen = f"/sys/fs/cgroup{path}/cgroup.events", "frozen 1"
            elif controllers == "freezer":
                state, frozen = f"/sys/fs/cgroup/freezer{path}/freezer.state", "FROZEN"
            else:
                continue
            with contextlib.suppress(OSError), open(state, encoding="ascii") as file:
                if frozen in file.read().splitlines():
                    return True
    return False
