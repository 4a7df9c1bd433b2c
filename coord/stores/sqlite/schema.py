"""The tables of a SQLite file: how they are created, and how a row is read and written."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from math import inf
from typing import Any

from coord.core.history import MAX_TERMS, Entry, close_last
from coord.core.kept import Kept
from coord.core.lease import Lease, shared_info
from coord.core.validation import is_number
from coord.errors import StoreRefused
from coord.runtime import log
from coord.stores.sqlite.errors import table_is_missing
from coord.stores.sqlite.growth import MAX_WAL_SIZE
from coord.stores.sqlite.lease_clock import LeaseClock

_SEPARATOR = ",\n"
_LASTS = '"until":null,"reason":"","by":""}'
"""The end of the line of a term that has not ended, as `coord.core.history.new_entry` makes it."""
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class History:
    """The terms of one role, as its row keeps them.

    They are a JSON list with one term on each line, so that a swap changes only the last line. Even
    the last term is not parsed if its end is as coord writes it while a term lasts: to parse it and
    encode it again would take as long as the SQL of a claim.

    The history is for people. Damaged text counts as no terms, and keeps nobody from leading.
    """

    __slots__ = ("_before", "_last")

    def __init__(self, text: object = "[]") -> None:
        """Create a history from the column `history` of a row."""
        # A string in JSON contains no plain line break, so the separator is only between terms.
        self._before, _, self._last = (
            text[1:-1].rpartition(_SEPARATOR) if isinstance(text, str) else ("", "", "")
        )

    @property
    def last(self) -> list[Entry]:
        """The terms on the last line: one, or all if there is only one line."""
        return _parse_terms(self._last)

    def close(self, until: float, reason: str, by: str) -> None:
        """Record that the current term, if there is one, has ended."""
        last = self._last
        if last.endswith(_LASTS) and "},{" not in last:  # exactly one term
            end = f'"until":{until!r},"reason":{_encode(reason)},"by":{_encode(by)}}}'
            self._last = last[: -len(_LASTS)] + end
        else:
            self._last = _SEPARATOR.join(
                map(_encode, close_last(_parse_terms(last), until, reason, by))
            )

    def begin(self, entry: Entry) -> None:
        """Add a new term (`coord.core.history.new_entry`). Call `close` before."""
        info = _encode(entry["info"]) if entry["info"] else "{}"
        start = f'{{"token":{entry["token"]},"holder":{_encode(entry["holder"])},"info":{info}'
        self._before = self._lines()
        self._last = f'{start},"since":{entry["since"]!r},{_LASTS}'

    def _lines(self) -> str:
        return (
            f"{self._before}{_SEPARATOR}{self._last}"
            if self._before and self._last
            else self._before or self._last
        )

    def text(self) -> str:
        """Return the text for the column `history`, with at most `MAX_TERMS` lines."""
        lines = self._lines()
        # To look for one character takes a third of the time, and there is no other line break.
        for _ in range(lines.count("\n") + 1 - MAX_TERMS):
            lines = lines.partition(_SEPARATOR)[2]
        return f"[{lines}]"

    def all(self) -> list[Entry]:
        """Return all terms, oldest first."""
        return [term for line in self._lines().split(_SEPARATOR) for term in _parse_terms(line)]


def _parse_terms(line: str) -> list[Any]:
    try:
        terms = json.loads(f"[{line}]")
    except (ValueError, RecursionError):
        return []
    return [term for term in terms if isinstance(term, dict) and "until" in term]


VERSION = 6
"""The number of this schema, in `PRAGMA user_version`. 1 to 5 were used before the first
release."""
NAMES = ("coord_leases", "coord_announcements", "coord_floors")
"""The tables that every file has."""
MAX_WAIT_FOR_LOCK = 5.0
"""Seconds that `create_missing_tables` waits for other processes."""
MAX_TIME = 253_402_300_799.0
"""Seconds since 1970 at the end of the year 9999, the last that Python can show."""
MAX_ROLES_PER_SELECT = 500
"""SQLite before 3.32 allows 999 parameters in a statement."""

# The triggers keep a person with a shell on the file from breaking fencing by mistake: tokens never
# decrease, and a row is deleted only if it is vacant and the floor has reached its token (rule 12).
# They cost a renewal nothing, because a renewal does not set the token.
TABLES = (
    """CREATE TABLE IF NOT EXISTS coord_leases (
        role TEXT NOT NULL PRIMARY KEY,
        holder TEXT,
        token INTEGER NOT NULL CHECK (token BETWEEN 0 AND 9007199254740992),
        beat INTEGER NOT NULL,
        ttl REAL NOT NULL,
        renewed_at REAL NOT NULL, -- wall time, for people
        runs_out REAL NOT NULL, -- on the clock that the column clock names
        clock TEXT NOT NULL, -- LeaseClock.stamp
        info TEXT NOT NULL, -- JSON
        since REAL NOT NULL DEFAULT 0, -- wall time, for people
        history TEXT NOT NULL DEFAULT '[]', -- JSON: coord/core/history.py
        kept TEXT NOT NULL DEFAULT '' -- coord/core/kept.py; the last column, as it may be long
    )""",
    """CREATE TRIGGER IF NOT EXISTS coord_token_never_falls BEFORE UPDATE OF token ON coord_leases
        WHEN new.token < old.token BEGIN SELECT RAISE(ABORT, 'coord: a fencing token never falls');
        END""",
    """CREATE TABLE IF NOT EXISTS coord_floors (
        prefix TEXT NOT NULL PRIMARY KEY, -- of roles whose rows were deleted
        token INTEGER NOT NULL CHECK (token BETWEEN 0 AND 9007199254740992)
    )""",
    """CREATE TRIGGER IF NOT EXISTS coord_floors_never_fall BEFORE UPDATE ON coord_floors
        WHEN new.token < old.token
        BEGIN SELECT RAISE(ABORT, 'coord: the floor of the tokens never falls'); END""",
    """CREATE TRIGGER IF NOT EXISTS coord_floors_stay BEFORE DELETE ON coord_floors
        BEGIN SELECT RAISE(ABORT, 'coord: the floor of the tokens never falls'); END""",
    """CREATE TRIGGER IF NOT EXISTS coord_rows_stay BEFORE DELETE ON coord_leases
        WHEN old.holder IS NOT NULL OR old.token > coalesce((SELECT max(token) FROM coord_floors
            WHERE substr(old.role, 1, length(prefix)) = prefix), 0)
        BEGIN SELECT RAISE(ABORT, 'coord: a lease keeps its token, so its row stays'); END""",
    """CREATE TABLE IF NOT EXISTS coord_announcements (
        key TEXT NOT NULL PRIMARY KEY,
        role TEXT NOT NULL,
        kind TEXT NOT NULL,
        body TEXT NOT NULL, -- JSON
        ttl REAL NOT NULL,
        urgent INTEGER NOT NULL,
        posted_at REAL NOT NULL, -- wall time, for people
        runs_out REAL NOT NULL, -- on the clock that the column clock names
        clock TEXT NOT NULL -- its name
    )""",
    "CREATE INDEX IF NOT EXISTS coord_announcements_role ON coord_announcements (role)",
    """CREATE INDEX IF NOT EXISTS coord_announcements_urgent ON coord_announcements (key)
        WHERE urgent""",
)
SELECT = """SELECT role, holder, token, beat, ttl, renewed_at, runs_out, clock, info, since
    FROM coord_leases"""
PUT = """INSERT INTO coord_leases
    (holder, token, beat, ttl, renewed_at, runs_out, clock, info, since, history, role)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (role) DO UPDATE SET
    holder = excluded.holder, token = excluded.token, beat = excluded.beat, ttl = excluded.ttl,
    renewed_at = excluded.renewed_at, runs_out = excluded.runs_out, clock = excluded.clock,
    info = excluded.info, since = excluded.since, history = excluded.history"""
RENEW = """UPDATE coord_leases
    SET holder = ?, beat = ?, ttl = ?, renewed_at = ?, runs_out = ?, clock = ? WHERE role = ?"""
SET_INFO = "UPDATE coord_leases SET info = ? WHERE role = ?"
SET_KEPT = "UPDATE coord_leases SET kept = ? WHERE role = ?"
SELECT_KEPT = "SELECT token, kept FROM coord_leases WHERE role = ?"
SELECT_FLOOR = """SELECT coalesce(max(token), 0) FROM coord_floors
    WHERE substr(?, 1, length(prefix)) = prefix"""
RAISE_FLOOR = """INSERT INTO coord_floors (prefix, token) VALUES (?, ?)
    ON CONFLICT (prefix) DO UPDATE SET token = max(token, excluded.token)"""
RAISE_FLOORS = "UPDATE coord_floors SET token = ? WHERE token < ?"
DELETE = "DELETE FROM coord_leases WHERE role = ?"
SELECT_ROW = SELECT.replace("since", "since, history") + " WHERE role = ?"
SELECT_HISTORY = "SELECT role, history FROM coord_leases"

_reported: set[tuple[str, object]] = set()
"""The damaged rows that are in the log already: path and role."""

Row = tuple[str, "str | None", int, int, float, float, float, str, str, float]


def connect(path: str) -> sqlite3.Connection:
    """Return a connection to the file, and create the tables if it has none.

    Many processes may do this at the same time with a new file; some of them then find it busy, and
    have to try again. There is no busy_timeout: the worker waits itself, because it must be able to
    stop waiting.

    Raises:
        sqlite3.Error: SQLite could not open the file.
        StoreRefused: The file belongs to another program or to another version of coord.
    """
    # The check of the thread is off because a fork closes connections from the thread that forks.
    conn = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        check_owner(conn, path)
        switch_to_wal(conn, path)
        # The schema and every token must survive a power failure. `Connection.begin` lowers this
        # for writes that need not survive it.
        conn.execute("PRAGMA synchronous=FULL")
        conn.execute(f"PRAGMA journal_size_limit={MAX_WAL_SIZE}")
        # On macOS fsync does not reach the disk without this; elsewhere it does nothing.
        conn.execute("PRAGMA fullfsync=ON")
        if version(conn) != VERSION:
            conn.execute("BEGIN IMMEDIATE")
            # Another process may have created tables meanwhile. If they are those of this version,
            # the statements change nothing.
            check_owner(conn, path)
            for statement in TABLES:
                conn.execute(statement)
            conn.execute(f"PRAGMA user_version={VERSION}")
            conn.execute("COMMIT")
    except BaseException:
        conn.close()
        raise
    return conn


def create_missing_tables(path: str) -> list[str]:
    """Create again the tables that somebody dropped, and return their names.

    A file that is not coord's, or that is new, is not changed. Only `coord init` does this: the
    fencing tokens of a new table of leases start at 1.

    Raises:
        sqlite3.Error: SQLite could not open the file, or it is busy.
    """
    conn = sqlite3.connect(path, timeout=MAX_WAIT_FOR_LOCK, isolation_level=None)
    try:
        conn.execute("BEGIN IMMEDIATE")
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        tables = {name for (name,) in conn.execute(query)}
        missing = [name for name in NAMES if name not in tables]
        is_ours = version(conn) == VERSION and (not tables or tables.intersection(NAMES))
        if not missing or not is_ours:
            conn.execute("ROLLBACK")
            return []
        for statement in TABLES:
            conn.execute(statement)
        conn.execute("COMMIT")
        return missing
    finally:
        conn.close()


def switch_to_wal(conn: sqlite3.Connection, path: str) -> None:
    """Switch the file to a write-ahead log. Raises `StoreRefused` if SQLite cannot."""
    if (mode := conn.execute("PRAGMA journal_mode=WAL").fetchone()[0]) != "wal":
        raise StoreRefused(
            f"{path}: SQLite cannot keep a write-ahead log there (journal_mode is {mode})"
        )


def version(conn: sqlite3.Connection) -> int:
    """Return the number of the schema in the file; 0 if it has no tables yet."""
    return int(conn.execute("PRAGMA user_version").fetchone()[0])


def check_owner(conn: sqlite3.Connection, path: str) -> None:
    """Raise `StoreRefused` if the file is not one that this version of coord may change."""
    # One statement, so that all values are of one moment: another process may be creating the
    # tables.
    number, tables, leases, others = conn.execute(
        "SELECT (SELECT user_version FROM pragma_user_version), count(*), "
        "total(name = 'coord_leases'), total(name IN ('coord_announcements', 'coord_floors')) "
        "FROM sqlite_master WHERE type = 'table'"
    ).fetchone()
    if not leases and number == VERSION and (others or not tables):
        raise table_is_missing(path, "coord_leases")
    if tables and not leases:
        raise StoreRefused(f"{path}: is another program's database; give coord a file of its own")
    if number > VERSION:
        raise StoreRefused(
            f"{path}: was written by a newer coord (schema {number}, this version needs "
            f"{VERSION}); upgrade coord"
        )
    if tables and number != VERSION:
        raise StoreRefused(
            f"{path}: was written by a coord from before the first release (schema {number}, this "
            f"version needs {VERSION}); use a new file"
        )


def select_leases(conn: sqlite3.Connection, roles: Collection[str] | None) -> list[Row]:
    """Return the rows of these roles (None: of every role)."""
    return select_roles(conn, SELECT, roles)


def select_roles(conn: sqlite3.Connection, query: str, roles: Collection[str] | None) -> list[Any]:
    """Return the rows of `query`, a SELECT without WHERE, for these roles (None: for all)."""
    # A list, because an open cursor would keep a read transaction open.
    if roles is None:
        return conn.execute(query).fetchall()
    names, rows = list(roles), list[Any]()
    for start in range(0, len(names), MAX_ROLES_PER_SELECT):
        part = names[start : start + MAX_ROLES_PER_SELECT]
        marks = ",".join("?" * len(part))
        rows += conn.execute(f"{query} WHERE role IN ({marks})", part).fetchall()
    return rows


def decode_lease(row: Row, now: float, clock: LeaseClock) -> Lease:
    """Return the lease in a row.

    Args:
        row: A row of `SELECT`.
        now: The time in seconds on `clock`.
        clock: The clock that tells how long the lease lasts.

    Raises:
        StoreRefused: The row holds values that coord does not write.
    """
    role, holder, token, beat, ttl, renewed_at, runs_out, stamp, info, since = row
    try:
        remaining = clock.remaining(stamp, runs_out, ttl, now)
        decoded = json.loads(info) if info != "{}" else {}
        # SQLite accepts any value in these columns, and the rules calculate with them. It returns
        # no NaN and no int that a float cannot hold.
        sound = (
            type(role) is str
            and (holder is None or type(holder) is str)
            and type(token) is int
            and type(beat) is int
            and type(ttl) is float
            and type(runs_out) is float
            and type(renewed_at) is float
            and type(since) is float
            and -inf < ttl < inf
            and -inf < runs_out < inf
            and -MAX_TIME <= renewed_at <= MAX_TIME
            and -MAX_TIME <= since <= MAX_TIME
        )
    except (TypeError, ValueError, RecursionError):
        sound = False
    if not sound:
        raise StoreRefused(f"the row of {role!r} is damaged")
    if holder is None:
        remaining = 0.0
    # As on RethinkDB: what a person wrote there instead of an object counts as no info.
    valid_info = decoded if isinstance(decoded, dict) else {}
    return Lease(role, holder, token, beat, ttl, renewed_at, remaining, valid_info, since)


def decode_readable(
    rows: Iterable[Row], now: float, clock: LeaseClock, path: str
) -> Iterator[tuple[Row, Lease]]:
    """Yield the rows with their leases, without those that are damaged, which are logged once."""
    for row in rows:
        try:
            lease = decode_lease(row, now, clock)
        except StoreRefused:
            if (path, row[0]) not in _reported:
                _reported.add((path, row[0]))
                log.warning("store.damaged_row", path=path, role=row[0])
        else:
            _reported.discard((path, row[0]))
            yield row, lease


def row_values(lease: Lease, now: float, stamp: str, history: str) -> tuple[object, ...]:
    """Return the parameters of `PUT`, which writes the whole row."""
    # A lease that a restart of the machine has ended has run out, and nobody knows when. An
    # operator's override keeps it, and a row with an infinite number would be a damaged one.
    remaining = -lease.ttl if lease.remaining == -inf else lease.remaining
    return (
        lease.holder,
        lease.token,
        lease.beat,
        lease.ttl,
        lease.renewed_at,
        now + remaining,
        stamp,
        encode_info(shared_info(lease)),
        lease.since,
        history,
        lease.role,
    )


def renewal_values(lease: Lease, now: float, stamp: str) -> tuple[object, ...]:
    """Return the parameters of `RENEW`, which writes what a renewal changes."""
    return (
        lease.holder,
        lease.beat,
        lease.ttl,
        lease.renewed_at,
        now + lease.remaining,
        stamp,
        lease.role,
    )


def select_histories(
    conn: sqlite3.Connection, roles: Collection[str] | None
) -> list[tuple[str, History]]:
    """Return the histories of these roles (None: of every role)."""
    rows = select_roles(conn, SELECT_HISTORY, roles)
    return [(role, History(text)) for role, text in rows]


def read_row(
    conn: sqlite3.Connection, role: str, now: float, clock: LeaseClock
) -> tuple[Lease, History]:
    """Return the lease of a role and its history; empty ones if there is no row."""
    row = conn.execute(SELECT_ROW, (role,)).fetchone()
    if row is None:
        return Lease(role), History()
    return decode_lease(row[:-1], now, clock), History(row[-1])


def select_floor(conn: sqlite3.Connection, role: str) -> int:
    """Return the highest floor of a prefix of a role; 0 if no such role was ever retired."""
    return int(conn.execute(SELECT_FLOOR, (role,)).fetchone()[0])


def has_row(conn: sqlite3.Connection, role: str) -> bool:
    """Return whether a role has a row."""
    query = "SELECT 1 FROM coord_leases WHERE role = ?"
    return conn.execute(query, (role,)).fetchone() is not None


def select_kept(conn: sqlite3.Connection, role: str) -> Kept:
    """Return the text that a role keeps.

    Raises:
        StoreRefused: The row holds values that coord does not write.
    """
    token, text = conn.execute(SELECT_KEPT, (role,)).fetchone() or (0, "")
    if not isinstance(text, str) or not is_number(token):
        raise StoreRefused(f"the row of {role!r} is damaged")
    return Kept(int(token), text)


def encode_info(info: Mapping[str, Any]) -> str:
    """Return the text for the column `info`."""
    return _encode(dict(info)) if info else "{}"
