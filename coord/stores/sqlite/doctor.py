"""What `coord doctor` checks of a SQLite file.

It changes nothing that a first use would not change.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator

from coord.errors import CoordError, NotSetUp, StoreRefused
from coord.runtime import clock
from coord.stores.protocol import Finding
from coord.stores.sqlite import containers, files, filesystems, locks, schema
from coord.stores.sqlite.connection import Connection
from coord.stores.sqlite.errors import Busy, classify
from coord.stores.sqlite.growth import MIN_TRANSACTION, name_readers
from coord.stores.sqlite.identity import look
from coord.stores.sqlite.lease_clock import LeaseClock

MAX_BUSY = 1.0
"""Time in seconds that another process may lock the file before that is an error."""
RETRY_DELAY = 0.02
"""Time in seconds between two tries to open a locked file."""


def check(path: str, *, local: bool = False) -> Iterator[Finding]:
    """Yield what was found about the file at the absolute `path`, the most important first.

    Args:
        path: Absolute path of the file.
        local: Whether the user states that the file system is local.
    """
    yield from _clocks()
    in_container = containers.check(path, containers.find_engine())
    if in_container is not None:
        yield in_container
    if not os.path.exists(path):
        yield Finding(
            "warn",
            "file",
            f"{path} does not exist yet",
            "run coord init; any first use creates it, too",
        )
        return
    try:
        files.prepare(path, local=local)
    except CoordError as err:
        yield Finding(
            "error",
            "file",
            str(err),
            "use another path in --url or COORD_URL, or give this user the rights to it",
        )
        return
    yield _mode(path)
    yield _restart(path)
    try:
        yield from _database(path, local)
    except NotSetUp as err:
        yield Finding("error", "database", str(err), "do one of the two")
    except CoordError as err:
        yield Finding("error", "database", str(err), "give coord a file of its own")
    except sqlite3.Error as err:
        yield Finding(
            "error",
            "database",
            f"{path}: {err}",
            "restore it from a copy, or stop all users and delete it",
        )


def _clocks() -> Iterator[Finding]:
    yield _lease_clock()
    if clock.COUNTS_SUSPEND:
        yield Finding("ok", "clock", "the leader's clock counts suspend")
    else:
        yield Finding(
            "warn",
            "clock",
            "no clock counts suspend: after a sleep a leader notices at its next renewal",
            "keep the machine from sleeping while it leads",
        )


def _lease_clock() -> Finding:
    """Return which clock decides for this process whether a lease has expired."""
    what, judge = "lease clock", clock.machine_clock()
    if judge.name == clock.WALL:
        return Finding(
            "warn",
            what,
            "the wall clock, because this system has no boot id",
            "do not set the clock forward by hand while leaders run",
        )
    kernel = clock.kernel_clock()
    if not kernel.boot_id:
        return Finding(
            "warn",
            what,
            f"none that other processes share: {kernel.problem}",
            "this process waits for a whole ttl before it takes over from another process, and "
            "others wait for it; show it the boot id of the kernel",
        )
    offset = kernel.total_offset
    note = f", {offset:+g} s in this time namespace" if offset else ""
    return Finding("ok", what, f"the kernel's CLOCK_BOOTTIME{note}, boot id {kernel.boot_id}")


def _restart(path: str) -> Finding:
    """Return whether a restart of the machine can be proven, so that leases expire at once."""
    proof = LeaseClock(path)
    try:
        if proof.can_prove_restart():
            detail = f"proven by a lock on {proof.lock_path}: leases then expire at once"
            return Finding("ok", "restart", detail)
    finally:
        proof.close()
    return Finding(
        "warn",
        "restart",
        "cannot be proven: after a restart of the machine candidates wait for a whole ttl",
        f"see the lease clock above, or let this user read {proof.lock_path}",
    )


def _mode(path: str) -> Finding:
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o022:
        advice = f"chmod 600 {path}, unless these users share it on purpose"
        return Finding("warn", "file", f"{path}: others may write it (mode {mode:03o})", advice)
    kind = filesystems.file_system(path)
    return Finding("ok", "file", f"{path} (mode {mode:03o}, {kind or 'file system unknown'})")


def _database(path: str, local: bool) -> Iterator[Finding]:
    connection = Connection(path, local=local)
    with connection:
        try:
            conn = _connect(connection)
            (journal,) = conn.execute("PRAGMA journal_mode").fetchone()
            yield Finding("ok" if journal == "wal" else "error", "journal", journal)
            (synchronous,) = conn.execute("PRAGMA synchronous").fetchone()
            durable = synchronous >= 2
            yield Finding(
                "ok" if durable else "error",
                "synchronous",
                "full" if durable else f"level {synchronous}",
            )
            (sound,) = conn.execute("PRAGMA quick_check(1)").fetchone()
            advice = "stop all users, and restore the file from a copy, or delete it"
            yield (
                Finding("ok", "content", "sound")
                if sound == "ok"
                else Finding("error", "content", sound, advice)
            )
            yield from _damaged_rows(conn, path)
            yield _log(connection)
            yield _write(conn, path)
        except Busy as err:
            advice = f"find the processes that use it: fuser {path}"
            yield Finding("error", "lock", f"not usable for {MAX_BUSY:g} s: {err}", advice)
        finally:
            connection.close()


def _damaged_rows(connection: sqlite3.Connection, path: str) -> Iterator[Finding]:
    advice = (
        "stop the candidates for the role, and set the columns of the row to what coord writes: "
        "holder NULL, beat 0, ttl 0, renewed_at 0, runs_out 0, info '{}', since 0"
    )
    lease_clock = LeaseClock(path)
    try:
        for row in schema.select_leases(connection, None):
            try:
                schema.decode_lease(row, 0.0, lease_clock)
            except StoreRefused as err:
                yield Finding("error", "content", f"{err}: nobody can claim the role", advice)
    finally:
        lease_clock.close()


def _connect(connection: Connection) -> sqlite3.Connection:
    """Connect as the store does, and try again for a moment while the file is locked."""
    until = time.monotonic() + MAX_BUSY
    while True:
        try:
            return _open(connection)
        except Busy:
            if time.monotonic() > until:
                raise
            time.sleep(RETRY_DELAY)


def _open(connection: Connection) -> sqlite3.Connection:
    try:
        return connection.sqlite()
    except sqlite3.Error as err:
        error = classify(err, connection.path)
        raise (error if isinstance(error, Busy) else err) from None


def _log(connection: Connection) -> Finding:
    """Report the size of the log, and who keeps it from being used again."""
    connection.check_file()
    files = look(connection.path, os.path.realpath(connection.path))
    size = f"{files.wal_size / 2**20:.1f} MiB"
    if readers := locks.readers(files.shm):
        time.sleep(MIN_TRANSACTION)
        readers &= locks.readers(files.shm)
    if readers:
        return Finding(
            "warn",
            "log",
            f"{size}, and grows: a transaction that reads is open in {name_readers(readers)}",
            "end the transaction: commit, or close the cursor or the connection",
        )
    return Finding("ok", "log", size)


def _write(connection: sqlite3.Connection, path: str) -> Finding:
    """Try a transaction that writes, and measure how long it takes."""
    connection.execute(f"PRAGMA busy_timeout={int(MAX_BUSY * 1000)}")
    started = time.perf_counter()
    try:
        connection.execute("BEGIN IMMEDIATE")
        # The same number as before, but SQLite writes it.
        connection.execute(f"PRAGMA user_version={schema.VERSION}")
        connection.execute("COMMIT")
    except sqlite3.OperationalError as err:
        pid = locks.writer(path)
        holder, advice = (
            ("", f"find the process that locks it: fuser {path}")
            if pid is None
            else (f" by {locks.describe(pid)}", "let the process continue, or end it")
        )
        return Finding("error", "write", f"{path}: {err}{holder}", advice)
    return Finding(
        "ok", "write", f"{(time.perf_counter() - started) * 1000:.1f} ms for a durable transaction"
    )
