"""Raising the tokens of a file that was restored from a backup: `coord init --token-floor`."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Collection, Iterator
from typing import Any

from coord.core import validation
from coord.errors import CoordError
from coord.runtime import clock
from coord.stores.protocol import Finding
from coord.stores.sqlite import connection as files
from coord.stores.sqlite import schema
from coord.stores.sqlite.connection import Connection
from coord.stores.sqlite.store import SQLiteStore
from coord.stores.sqlite.worker import Job

RAISE = "UPDATE coord_leases SET token = ? WHERE token < ?"
MAKE = """INSERT INTO coord_leases (role, token, beat, ttl, renewed_at, runs_out, boot_id, info)
    VALUES (?, ?, 0, 0, 0, 0, '', '{}') ON CONFLICT (role) DO NOTHING"""


async def raise_token_floor(
    store: SQLiteStore, token_floor: int, roles: Collection[str] = (), timeout: float = 60.0
) -> tuple[int, int]:
    """Lift every token below `token_floor` to it, and make a vacant lease for each of `roles` that
    has none.

    How many were (lifted, made); all in one transaction. Nothing else of a lease changes: a leader
    whose token was lifted finds its renewal refused, loses its term (`LossReason.TAKEN`), and
    nobody takes its place any sooner. Doing it again does nothing. `timeout` is in seconds. Raises
    `BadArgument`, `StoreUnavailable` or `StoreRefused`."""
    floor, named = validation.token_floor(token_floor), [validation.role(role) for role in roles]

    def work(job: Job[Any], connection: Connection) -> tuple[int, int]:
        conn = connection.begin(synced=True)
        lifted = conn.execute(RAISE, (floor, floor)).rowcount
        made = conn.executemany(MAKE, [(role, floor) for role in named]).rowcount if named else 0
        job.commit(connection)
        return lifted, made

    return await store._ask(work, timeout)


# -- What `coord doctor` looks at for a SQLite file. Changes nothing that a first use would not
# change.

BUSY = 1.0
"""Seconds that somebody else may hold the file for before that is an error."""


def check(path: str) -> Iterator[Finding]:
    """The findings, in the order in which they matter."""
    yield from _clocks()
    if not os.path.exists(path):
        yield Finding(
            "warn", "file", f"{path} is not there yet", "coord init, or any first use, makes it"
        )
        return
    try:
        files.prepare(path)
    except CoordError as err:
        yield Finding(
            "error",
            "file",
            str(err),
            "give --url or COORD_URL another path, or this user the rights to it",
        )
        return
    yield _mode(path)
    try:
        yield from _database(path)
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
    boot = clock.boot_id()
    if boot:
        yield Finding("ok", "boot id", boot)
    else:
        yield Finding(
            "warn",
            "boot id",
            "this system has none: leases run out by the wall clock",
            "do not set the clock forward by hand while leaders run",
        )
    if clock.COUNTS_SUSPEND:
        yield Finding("ok", "clock", "the leader's clock counts suspend")
    else:
        yield Finding(
            "warn",
            "clock",
            "no clock here counts suspend: after a sleep a leader finds out at its next renewal",
            "let the machine not sleep while it leads",
        )


def _mode(path: str) -> Finding:
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o022:
        advice = f"chmod 600 {path}, unless these users share it on purpose"
        return Finding("warn", "file", f"{path}: others may write it (mode {mode:03o})", advice)
    return Finding(
        "ok",
        "file",
        f"{path} (mode {mode:03o}, {files.file_system(os.path.realpath(path)) or 'unknown'})",
    )


def _database(path: str) -> Iterator[Finding]:
    connection = _connect(path)
    if connection is None:
        advice = f"see who holds it: fuser {path}"
        yield Finding(
            "error", "lock", f"{path} has been locked by another process for {BUSY:g} s", advice
        )
        return
    try:
        (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
        yield Finding("ok" if journal == "wal" else "error", "journal", journal)
        (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
        durable = synchronous >= 2
        yield Finding(
            "ok" if durable else "error",
            "synchronous",
            "full" if durable else f"level {synchronous}",
        )
        (sound,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        advice = "stop all users, and restore the file from a copy, or delete it"
        yield (
            Finding("ok", "content", "sound")
            if sound == "ok"
            else Finding("error", "content", sound, advice)
        )
        yield _write(connection, path)
    finally:
        connection.close()


def _connect(path: str) -> sqlite3.Connection | None:
    """As the store connects; None when somebody holds the file all the while."""
    until = time.monotonic() + BUSY
    while True:
        try:
            return schema.connect(path)
        except sqlite3.OperationalError as err:
            if "locked" not in str(err) and "busy" not in str(err):
                raise
            if time.monotonic() > until:
                return None
            time.sleep(0.02)


def _write(connection: sqlite3.Connection, path: str) -> Finding:
    """Whether a transaction that writes can be had, and how long that takes."""
    connection.execute(f"PRAGMA busy_timeout={int(BUSY * 1000)}")
    begun = time.perf_counter()
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            f"PRAGMA user_version={schema.VERSION}"
        )  # the same as before, but written
        connection.execute("COMMIT")
    except sqlite3.OperationalError as err:
        return Finding("error", "write", f"{path}: {err}", f"see who holds it: fuser {path}")
    return Finding(
        "ok", "write", f"{(time.perf_counter() - begun) * 1000:.1f} ms for a durable transaction"
    )
