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
            yield Lock(int(fields[4]), (device, int(inode)), int(fields[6]), last)


def users_of_another_index(
    main: tuple[int, int] | None, index: tuple[int, int], source: str = LOCKS
) -> bool:
    """Return whether a process has the database open, but not this index."""
    locks = list(held(source))
    users = {lock.pid for lock in locks if lock.file == main and lock.first == SHARED}
    return bool(users - {lock.pid for lock in locks if lock.file == index and lock.first == USER})
