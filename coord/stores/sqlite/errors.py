"""The errors of SQLite and of the file system, sorted by what the caller should do about them."""

from __future__ import annotations

import errno
import os
import sqlite3

from coord.errors import AccessDenied, CoordError, NotSetUp, StoreRefused, StoreUnavailable


class Busy(StoreUnavailable):
    """Another connection has the lock: try again within the time that is left.

    Attributes:
        pause: Minimum and maximum time in seconds until the next try. It is random, so that many
            processes do not try at the same moments.
    """

    pause = (0.0005, 0.004)


class WriteLocked(Busy):
    """Another process has had the write lock for the whole time. The message names it."""


class FileReplaced(Busy):
    """The files at the path are not those that are open: try again with the current ones."""


class LogRemoved(Busy):
    """Other processes use a log or an index that was removed: wait until they have closed it."""

    pause = (0.005, 0.02)  # each try opens the database


class CommitUnknown(StoreUnavailable):
    """COMMIT itself failed.

    Its frames may be in the log, where a later recovery may find them (rule 8).
    """


class Abandoned(StoreUnavailable):
    """The caller does not wait any longer; nothing was written."""


PERM, BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR = 3, 5, 6, 7, 8, 9, 10
CORRUPT, FULL, CANTOPEN, PROTOCOL, AUTH, FORMAT, NOTADB = 11, 13, 14, 15, 23, 24, 26

DESCRIPTORS = 4
"""Files that SQLite has open at most for one connection: the database, the log, its index, and the
directory while it is synced."""

# Python 3.11 and later report SQLite's code. Earlier versions have only its text (sqlite3ErrStr in
# main.c).
_TEXTS = {
    "database is locked": BUSY,
    "database table is locked": LOCKED,
    "out of memory": NOMEM,
    "attempt to write a readonly database": READONLY,
    "interrupted": INTERRUPT,
    "disk I/O error": IOERR,
    "database disk image is malformed": CORRUPT,
    "database or disk is full": FULL,
    "unable to open database file": CANTOPEN,
    "locking protocol": PROTOCOL,
    "file is not a database": NOTADB,
    "access permission denied": PERM,
}
_NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}
_NO_TABLE = "no such table: "
_TEMPORARY = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ENOMEM,
    errno.EINTR,
    errno.EAGAIN,
}


def code(err: sqlite3.Error) -> int:
    """Return SQLite's primary result code; 0 for an error of the sqlite3 module itself."""
    extended = getattr(err, "sqlite_errorcode", None)
    if extended is not None:
        return int(extended) & 0xFF
    return next((number for text, number in _TEXTS.items() if str(err).startswith(text)), 0)


def classify(err: sqlite3.Error, path: str) -> CoordError:
    """Return the exception for an error of SQLite.

    Its message holds the path and SQLite's short text, and never the content of a row.
    """
    number, text = code(err), f"{path}: {err}"
    if number in (CANTOPEN, IOERR) and out_of_descriptors():
        return _no_descriptor(path)
    if number in (BUSY, LOCKED, PROTOCOL):
        return Busy(text)
    if number in (IOERR, FULL, NOMEM, INTERRUPT):
        return StoreUnavailable(text)
    if number in (PERM, READONLY, CANTOPEN, AUTH):
        return AccessDenied(f"{text} (the file and its directory must be writable)")
    if (table := str(err).removeprefix(_NO_TABLE)) != str(err) and table.startswith("coord_"):
        return table_is_missing(path, table)
    if number == NOTADB:
        return StoreRefused(
            f"cannot use {path}: it is not a SQLite file; name another file in the URL"
        )
    return StoreRefused(text)


def table_is_missing(path: str, table: str) -> NotSetUp:
    """Return the error for a table of coord that somebody dropped."""
    return NotSetUp(
        f"{path}: the table {table} was dropped: restore the file from a copy, or stop all "
        f"candidates, run `coord init` and give a --token-floor above every earlier token"
    )


def classify_os(err: OSError, path: str) -> CoordError:
    """Return the exception for an error of the file system."""
    if err.errno in _NO_DESCRIPTOR:
        return _no_descriptor(path)
    text = f"{path}: {err.strerror or err}"
    return StoreUnavailable(text) if err.errno in _TEMPORARY else AccessDenied(text)


def out_of_descriptors() -> bool:
    """Return whether this process has too few file descriptors left to open a database."""
    files: list[int] = []
    try:
        # SQLite reports only that it could not open a file, and has closed the others by then.
        for _ in range(DESCRIPTORS):
            files.append(os.open(os.devnull, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)))
    except OSError as err:
        return err.errno in _NO_DESCRIPTOR
    finally:
        for file in files:
            os.close(file)
    return False


def _no_descriptor(path: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"cannot open {path}: no file descriptor is left; raise the limit (ulimit -n), or find what"
        " keeps files open"
    )
