"""A role's terms as its row keeps them: a JSON list, a term to each line, so that a swap touches
but the last of them.

Even that one is not parsed where its end is as coord writes it while a term lasts: parsing it and
writing it anew would take as long as a claim's SQL."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from coord.core.history import MAX_TERMS, Entry, close_last
from coord.core.lease import Lease
from coord.errors import StoreRefused

_BETWEEN = ",\n"
_LASTS = '"until":null,"reason":"","by":""}'
"""How the line of a term ends that lasts (`past.begun`)."""
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class History:
    """What `said`, a row's `history`, says. It is for people: what somebody damaged there is
    nothing, and stops nobody.

    `last` are the terms on its last line: one, or all where it has but one line.
    """

    __slots__ = ("_before", "_last")

    def __init__(self, said: object = "[]") -> None:
        # A text within JSON has no plain line break in it, so this stands only between two terms.
        self._before, _, self._last = (
            said[1:-1].rpartition(_BETWEEN) if isinstance(said, str) else ("", "", "")
        )

    @property
    def last(self) -> list[Entry]:
        return _parsed(self._last)

    def close(self, until: float, reason: str, by: str) -> None:
        """The term that lasts, if there is one, has ended."""
        last = self._last
        if last.endswith(_LASTS) and "},{" not in last:  # one term, whatever is said in it
            end = f'"until":{until!r},"reason":{_encode(reason)},"by":{_encode(by)}}}'
            self._last = last[: -len(_LASTS)] + end
        else:
            self._last = _BETWEEN.join(map(_encode, close_last(_parsed(last), until, reason, by)))

    def begin(self, entry: Entry) -> None:
        """A new term (`past.begun`). Call `close` before."""
        info = _encode(entry["info"]) if entry["info"] else "{}"
        who = f'{{"token":{entry["token"]},"holder":{_encode(entry["holder"])},"info":{info}'
        self._before = self._lines()
        self._last = f'{who},"since":{entry["since"]!r},{_LASTS}'

    def _lines(self) -> str:
        return (
            f"{self._before}{_BETWEEN}{self._last}"
            if self._before and self._last
            else self._before or self._last
        )

    def text(self) -> str:
        lines = self._lines()
        for _ in range(lines.count(_BETWEEN) + 1 - MAX_TERMS):
            lines = lines.partition(_BETWEEN)[2]
        return f"[{lines}]"

    def all(self) -> list[Entry]:
        """All its terms, oldest first."""
        return [one for line in self._lines().split(_BETWEEN) for one in _parsed(line)]


def _parsed(line: str) -> list[Any]:
    try:
        found = json.loads(f"[{line}]")
    except (ValueError, RecursionError):
        return []
    return [one for one in found if isinstance(one, dict) and "until" in one]


# -- The table: how it is made, how a row becomes a `Lease`, and how it is written.

VERSION = 2
CHUNK = 500
"""Roles to one SELECT. SQLite before 3.32 takes 999 parameters."""

# A person with a shell on the file cannot break fencing by a slip: tokens do not fall, and rows
# stay (rule 3). Neither trigger costs a renewal anything: it does not set the token.
TABLE = (
    """CREATE TABLE IF NOT EXISTS coord_leases (
        role TEXT NOT NULL PRIMARY KEY,
        holder TEXT,
        token INTEGER NOT NULL CHECK (token BETWEEN 0 AND 9007199254740992),
        beat INTEGER NOT NULL,
        ttl REAL NOT NULL,
        renewed_at REAL NOT NULL, -- wall time, for people
        runs_out REAL NOT NULL, -- on the machine's clock, within boot_id
        boot_id TEXT NOT NULL,
        info TEXT NOT NULL, -- JSON
        since REAL NOT NULL DEFAULT 0, -- wall time, for people
        history TEXT NOT NULL DEFAULT '[]' -- JSON: coord/core/history.py
    )""",
    """CREATE TRIGGER IF NOT EXISTS coord_token_never_falls BEFORE UPDATE OF token ON coord_leases
        WHEN new.token < old.token BEGIN SELECT RAISE(ABORT, 'coord: a fencing token never falls');
        END""",
    """CREATE TRIGGER IF NOT EXISTS coord_rows_stay BEFORE DELETE ON coord_leases
        BEGIN SELECT RAISE(ABORT, 'coord: a lease keeps its token, so its row stays'); END""",
)
# Not in VERSION: an older coord works on beside it, and a newer one adds it to a file that has
# none.
BOARD = (
    """CREATE TABLE IF NOT EXISTS coord_board (
        key TEXT NOT NULL PRIMARY KEY,
        role TEXT NOT NULL,
        kind TEXT NOT NULL,
        body TEXT NOT NULL, -- JSON
        ttl REAL NOT NULL,
        loud INTEGER NOT NULL,
        posted_at REAL NOT NULL, -- wall time, for people
        runs_out REAL NOT NULL, -- on the machine's clock, within boot_id
        boot_id TEXT NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS coord_board_role ON coord_board (role)",
    "CREATE INDEX IF NOT EXISTS coord_board_loud ON coord_board (key) WHERE loud",
)
# What a file of an earlier version lacks, by that version.
UPGRADES = {
    1: (
        "ALTER TABLE coord_leases ADD COLUMN since REAL NOT NULL DEFAULT 0",
        "ALTER TABLE coord_leases ADD COLUMN history TEXT NOT NULL DEFAULT '[]'",
    ),
}
SELECT = "SELECT role, holder, token, beat, ttl, renewed_at, runs_out, boot_id, info, since FROM coord_leases"
PUT = """INSERT INTO coord_leases (holder, token, beat, ttl, renewed_at, runs_out, boot_id, info, since, history, role)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (role) DO UPDATE SET
    holder = excluded.holder, token = excluded.token, beat = excluded.beat, ttl = excluded.ttl,
    renewed_at = excluded.renewed_at, runs_out = excluded.runs_out, boot_id = excluded.boot_id, info = excluded.info,
    since = excluded.since, history = excluded.history"""
RENEW = """UPDATE coord_leases SET holder = ?, beat = ?, ttl = ?, renewed_at = ?, runs_out = ?, boot_id = ?
    WHERE role = ?"""

SET_INFO = "UPDATE coord_leases SET info = ? WHERE role = ?"
SELECT_ROW = SELECT.replace("since", "since, history") + " WHERE role = ?"
SELECT_HISTORY = "SELECT role, history FROM coord_leases"

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode

Row = tuple[str, "str | None", int, int, float, float, float, str, str, float]


def connect(path: str) -> sqlite3.Connection:
    """A connection to a database that has the table. Raises `sqlite3.Error`, or `StoreRefused`.

    Safe when many do it at once on a fresh file; some of them then find it busy, and are to try
    again. There is no
    busy_timeout: waiting is the worker's, who must be able to stop waiting (and who may then be in
    a fork)."""
    # The thread check is off because a fork closes from the thread that forks (forks.py).
    conn = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        check_owner(conn, path)
        switch_to_wal(conn, path)
        # The schema and every token must survive a power cut; for what need not, `Handle.begin`
        # takes it back.
        conn.execute("PRAGMA synchronous=FULL")
        conn.execute(
            "PRAGMA fullfsync=ON"
        )  # on macOS fsync does not reach the disk; elsewhere this does nothing
        found = version(conn)
        if found < VERSION or not has_board(conn):
            conn.execute("BEGIN IMMEDIATE")
            found = version(
                conn
            )  # once more, under the lock: another process may have done it meanwhile
            lacks = (
                [line for old in range(found, VERSION) for line in UPGRADES[old]] if found else []
            )
            for statement in (*TABLE, *BOARD, *lacks):
                conn.execute(statement)
            conn.execute(f"PRAGMA user_version={VERSION}")
            conn.execute("COMMIT")
    except BaseException:
        conn.close()
        raise
    return conn


def switch_to_wal(conn: sqlite3.Connection, path: str) -> None:
    if (mode := conn.execute("PRAGMA journal_mode=WAL").fetchone()[0]) != "wal":
        raise StoreRefused(
            f"{path}: SQLite cannot keep a write-ahead log there (journal_mode is {mode})"
        )


def version(conn: sqlite3.Connection) -> int:
    return int(conn.execute("PRAGMA user_version").fetchone()[0])


def has_board(conn: sqlite3.Connection) -> bool:
    """Whether the last thing that is made for the board is there."""
    found = conn.execute("SELECT count(*) FROM sqlite_master WHERE name = 'coord_board_loud'")
    return bool(found.fetchone()[0])


def check_owner(conn: sqlite3.Connection, path: str) -> None:
    """Refuse another program's file before anything in it is changed, and one that a newer coord
    has changed."""
    # One statement, so that both are of one moment: another process may be making the table.
    found, tables, ours = conn.execute(
        "SELECT (SELECT user_version FROM pragma_user_version), count(*), total(name = 'coord_leases') "
        "FROM sqlite_master WHERE type = 'table'"
    ).fetchone()
    if tables and not ours:
        raise StoreRefused(f"{path}: is another program's database; give coord a file of its own")
    if found > VERSION:
        raise StoreRefused(
            f"{path}: was written by a newer coord (schema {found}, this one knows {VERSION}); upgrade"
        )


def select(conn: sqlite3.Connection, roles: Iterable[str] | None) -> list[Row]:
    """The rows of these roles (None: of all). A list: a cursor that is left open keeps a read
    transaction open."""
    return _rows(conn, SELECT, roles)


def _rows(conn: sqlite3.Connection, query: str, roles: Iterable[str] | None) -> list[Any]:
    if roles is None:
        return conn.execute(query).fetchall()
    wanted, rows = list(roles), []
    for start in range(0, len(wanted), CHUNK):
        some = wanted[start : start + CHUNK]
        marks = ",".join("?" * len(some))
        rows += conn.execute(f"{query} WHERE role IN ({marks})", some).fetchall()
    return rows


def lease(row: Row, now: float, boot: str) -> Lease:
    """The row as it stands at `now` of the boot `boot`. Raises `StoreRefused` for one that coord
    did not write."""
    role, holder, token, beat, ttl, renewed_at, runs_out, row_boot, info, since = row
    try:
        left = (
            runs_out - now if row_boot == boot else -math.inf
        )  # another boot: the machine started anew since
        told = json.loads(info) if info != "{}" else {}
        _ = (
            runs_out - renewed_at - ttl - beat
        )  # the rules count with them, and SQLite keeps a text there, too
    except (TypeError, ValueError, RecursionError):
        raise StoreRefused(f"the row of {role!r} is damaged") from None
    remaining = 0.0 if holder is None else left
    said = (
        told if isinstance(told, dict) else {}
    )  # as on RethinkDB: what somebody wrote there tells nothing
    return Lease(role, holder, token, beat, ttl, renewed_at, remaining, said, since)


def put_values(after: Lease, now: float, boot: str, history: str) -> tuple[object, ...]:
    """For `PUT`: the whole row."""
    seen = (
        after.holder,
        after.token,
        after.beat,
        after.ttl,
        after.renewed_at,
        now + after.remaining,
        boot,
    )
    return *seen, text(after.info), after.since, history, after.role


def change_values(after: Lease, now: float, boot: str) -> tuple[object, ...]:
    """For `CHANGE`: what a renewal changes."""
    return (
        after.holder,
        after.beat,
        after.ttl,
        after.renewed_at,
        now + after.remaining,
        boot,
        after.role,
    )


def past(conn: sqlite3.Connection, roles: Iterable[str] | None) -> list[tuple[str, History]]:
    """What the rows of these roles (None: of all) say of their terms."""
    return [(role, History(said)) for role, said in _rows(conn, SELECT_HISTORY, roles)]


def whole(conn: sqlite3.Connection, role: str, now: float, boot: str) -> tuple[Lease, History]:
    """The role as it stands at `now` of the boot `boot`, with its history."""
    row = conn.execute(SELECT_ROW, (role,)).fetchone()
    return (
        (Lease(role), History()) if row is None else (lease(row[:-1], now, boot), History(row[-1]))
    )


def text(info: Mapping[str, Any]) -> str:
    return _encode(dict(info)) if info else "{}"
