"""Service records in a SQLite file, beside the leases: for the processes of one machine.

The age of a record is measured by the machine's clock (`coord.runtime.clock`), so setting the wall
clock changes the health of no service. `last_heartbeat` is wall time, for people. A record that was
written before the machine restarted is not healthy.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import datetime, timezone
from itertools import islice
from typing import Any, TypeVar

from coord.core import records
from coord.core.records import Record, RecordWithRemaining
from coord.core.validation import is_number
from coord.runtime.clock import UNKNOWN, is_known
from coord.stores.sqlite.connection import Connection
from coord.stores.sqlite.database import Database
from coord.stores.sqlite.worker import Job

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

POLL_INTERVAL = 0.25
"""Time in seconds between two reads of which services a role has; each searches one index."""
WATCH_TIMEOUT = 5.0
"""Maximum time in seconds for one such read."""
TOMBSTONE_TTL = 60.0
"""The ttl in seconds of the tombstone of a record that had no valid ttl."""

# The columns role, load, ttl and the times have no type: a value that a person wrote by hand is
# read as it is, and `bad` reports it.
TABLE = """CREATE TABLE IF NOT EXISTS "{table}" (
    id TEXT NOT NULL PRIMARY KEY, -- JSON: a string or an integer
    role,
    load,
    ttl, -- seconds
    last_heartbeat, -- wall time, seconds since 1970, for people
    beat_at, -- the same on the machine's clock
    clock TEXT, -- the name of that clock
    body TEXT NOT NULL DEFAULT '{{}}' -- JSON: all the other fields
)"""
INDEX = 'CREATE INDEX IF NOT EXISTS "{table}_role" ON "{table}" (role)'
PUT = """INSERT OR REPLACE INTO "{table}"
    (id, role, load, ttl, last_heartbeat, beat_at, clock, body)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
SELECT = 'SELECT id, role, load, ttl, last_heartbeat, beat_at, clock, body FROM "{table}"'
DELETE = 'DELETE FROM "{table}"'
JUDGED = "typeof(ttl) IN ('integer', 'real') AND ttl > 0 AND typeof(beat_at) IN ('integer', 'real')"
# A row whose clock has another name was written before the machine restarted, unless the name says
# that it compares with no other: then the wall clock decides.
HEALTHY = f"""{JUDGED} AND (CASE WHEN clock = :clock THEN :now - beat_at
    WHEN clock LIKE '{UNKNOWN}%' OR :clock LIKE '{UNKNOWN}%' THEN :wall - last_heartbeat
    END) < ttl"""
BY_LOAD = "typeof(load) NOT IN ('integer', 'real'), load"


class SQLiteRecords:
    """The service records in one table of a `Database`. Implements `protocol.Records`.

    The table is created at the first use.
    """

    def __init__(self, database: Database, table: str) -> None:
        """Create an instance; it opens nothing.

        Args:
            database: The file that the records are in.
            table: Name of the table for users; in the file it is `coord_records_<table>`.
        """
        self._database, self._table = database, f"coord_records_{table}"
        self._clock = database.clock
        self._table_checked: tuple[Connection | None, int] = (None, 0)
        """The connection in which the table is known to exist, and how often it had been opened."""

    async def register(
        self, record: Mapping[str, Any], nonce: str, timeout: float
    ) -> Record | None:
        """Write the record, and return it as stored. See `protocol.Records.register`."""

        def work(conn: sqlite3.Connection) -> Record | None:
            row = self._get(conn, record["id"])
            return (
                None
                if row is not None and row.get(records.TOMBSTONE) == nonce
                else self._put(conn, record, row)
            )

        return await self._write(work, timeout)

    async def refresh(self, record: Mapping[str, Any], timeout: float) -> Record | None:
        """Write the record if it exists, and return it as stored; None if it does not exist."""

        def work(conn: sqlite3.Connection) -> Record | None:
            row = self._get(conn, record["id"])
            return None if row is None or records.TOMBSTONE in row else self._put(conn, record, row)

        return await self._write(work, timeout)

    async def remove(self, key: str | int, nonce: str | None, timeout: float) -> bool:
        """Delete the record, and return whether it existed. See `protocol.Records.remove`."""

        def work(conn: sqlite3.Connection) -> bool:
            row = self._get(conn, key)
            self._sql(conn, f"{DELETE} WHERE id = ?", records.encode_record(key))
            if nonce is not None:
                ttl = (
                    row["ttl"]
                    if row is not None and records.has_valid_times(row)
                    else TOMBSTONE_TTL
                )
                self._put(
                    conn,
                    {"id": key, records.TOMBSTONE: nonce, "ttl": ttl, "role": None, "load": None},
                    None,
                    0.0,
                )
            return row is not None and records.TOMBSTONE not in row

        return await self._write(work, timeout, create=False)

    async def least_loaded(self, role: str, timeout: float) -> Record | None:
        """Return the healthy record of `role` with the lowest load; None if there is none."""

        where = f"role = :role AND {HEALTHY} ORDER BY {BY_LOAD}"
        return await self._read(
            lambda conn: next(self._select(conn, where, role=role), None), timeout
        )

    async def sample(self, role: str, count: int, timeout: float) -> list[Record]:
        """Return at most `count` healthy records of `role`, drawn at random."""

        where = f"role = :role AND {HEALTHY} ORDER BY random()"
        return await self._read(
            lambda conn: list(islice(self._select(conn, where, role=role), count)), timeout
        )

    async def healthy(
        self, role: str | None, timeout: float, *, key: str | None = None
    ) -> list[Record]:
        """Return the healthy records of `role` (None: of every role), or the one with id `key`."""

        where = (
            HEALTHY
            + ("" if role is None else " AND role = :role")
            + ("" if key is None else " AND id = :id")
        )
        parameters = {"role": role, "id": None if key is None else records.encode_record(key)}
        return await self._read(lambda conn: list(self._select(conn, where, **parameters)), timeout)

    async def list_all(self, role: str | None, timeout: float) -> list[RecordWithRemaining]:
        """Return the records of `role` (None: of every role), healthy or not."""

        def work(conn: sqlite3.Connection) -> list[RecordWithRemaining]:
            now, wall, name = self._clock.total(), self._clock.wall(), self._clock.name
            roles = [] if role is None else [role]

            def silence(row: tuple[Any, ...]) -> float:
                if row[6] == name:
                    return float(now - row[5])
                if is_number(row[4]) and not (is_known(row[6] or "") and is_known(name)):
                    return float(wall - row[4])
                return records.silence_by_wall_clock(row[3], row[4], wall)

            rows = self._sql(
                conn, f"{SELECT} WHERE {JUDGED}{' AND role = ?' if roles else ''}", *roles
            )
            return [
                RecordWithRemaining(record, row[3] - silence(row))
                for row in rows
                if (record := _record(row)) is not None and records.TOMBSTONE not in record
            ]

        return await self._read(work, timeout)

    async def purge(self, ttls: float, timeout: float) -> int:
        """Delete the records that were silent for more than `ttls` of their own ttls."""

        # Only the wall clock shows the age of a record that was written before a restart.
        silent = "CASE clock WHEN ? THEN ? - beat_at ELSE ? - last_heartbeat END"

        def work(conn: sqlite3.Connection) -> int:
            times = (self._clock.name, self._clock.total(), self._clock.wall())
            return self._sql(
                conn, f"{DELETE} WHERE {JUDGED} AND {silent} > ttl * ?", *times, ttls
            ).rowcount

        return await self._write(work, timeout, create=False)

    async def malformed(self, timeout: float) -> list[Record]:
        """Return the records that have a problem."""

        def work(conn: sqlite3.Connection) -> list[Record]:
            now = datetime.fromtimestamp(self._clock.wall(), timezone.utc)
            bad = []
            for row in self._sql(conn, SELECT):
                record = _record(row)
                if record is None:
                    bad.append({"id": row[0], "role": row[1]})
                elif records.problems(record, now):
                    bad.append(record)
            return bad

        return await self._read(work, timeout)

    async def publish(self, record: Mapping[str, Any], remaining: float, timeout: float) -> bool:
        """Write the record of a leader under its role. See `protocol.Records.publish`."""

        def work(conn: sqlite3.Connection) -> bool:
            row = self._get(conn, record["role"])
            if row is not None and records.TOMBSTONE not in row:
                published = records.is_published(row)
                if published and row["token"] > record["token"]:
                    return False
                alive = f"id = :id AND {HEALTHY}"
                if not published and list(
                    self._select(conn, alive, id=records.encode_record(record["role"]))
                ):
                    return False
            self._put(conn, {"load": None, **record, "id": record["role"]}, row, remaining)
            return True

        return await self._write(work, timeout)

    async def withdraw(self, role: str, token: int, timeout: float) -> bool:
        """Delete the record of a leader, unless a later leader wrote it."""

        def work(conn: sqlite3.Connection) -> bool:
            row = self._get(conn, role)
            if row is None or not records.is_published(row) or row["token"] > token:
                return False
            self._sql(conn, f"{DELETE} WHERE id = ?", records.encode_record(role))
            return True

        return await self._write(work, timeout, create=False)

    async def watch(self, role: str) -> AsyncIterator[None]:
        """Yield at once, and whenever a service of `role` appears or disappears."""

        def ids(conn: sqlite3.Connection) -> set[str]:
            return {
                row[0] for row in self._sql(conn, 'SELECT id FROM "{table}" WHERE role = ?', role)
            }

        before: set[str] | None = None
        while True:
            present = await self._read(ids, WATCH_TIMEOUT)
            if present != before:
                before = present
                yield
            await asyncio.sleep(POLL_INTERVAL)

    async def _read(self, work: Work[T], timeout: float) -> T:
        def read(job: Job[T], connection: Connection) -> T:
            conn = self._with_table(job, connection)
            connection.check_file()
            return work(conn)

        return await self._database.run(read, timeout)

    async def _write(self, work: Work[T], timeout: float, *, create: bool = True) -> T:
        def write(job: Job[T], connection: Connection) -> T:
            self._with_table(job, connection, create=create)
            conn = connection.begin(synced=False)
            result = work(conn)
            job.commit(connection)
            return result

        return await self._database.run(write, timeout)

    def _with_table(
        self, job: Job[Any], connection: Connection, *, create: bool = False
    ) -> sqlite3.Connection:
        """Return the connection, and create the table if it does not exist.

        `create` says whether to create a missing file, too.
        """
        conn = connection.sqlite(create=create)
        if self._table_checked != (connection, connection.times_opened):
            tables = conn.execute(
                "SELECT count(*) FROM sqlite_master WHERE name IN (?, ?)",
                (self._table, f"{self._table}_role"),
            )
            if tables.fetchone()[0] != 2:
                connection.begin(synced=False)
                self._sql(conn, TABLE)
                self._sql(conn, INDEX)
                job.commit(connection)
            self._table_checked = (connection, connection.times_opened)
        return conn

    def _sql(self, conn: sqlite3.Connection, statement: str, *parameters: object) -> sqlite3.Cursor:
        return conn.execute(statement.format(table=self._table), parameters)

    def _select(
        self, conn: sqlite3.Connection, where: str, **parameters: object
    ) -> Iterator[Record]:
        clock = self._clock
        times = {"now": clock.total(), "wall": clock.wall(), "clock": clock.name}
        rows = conn.execute(
            f"{SELECT} WHERE {where}".format(table=self._table), {**times, **parameters}
        )
        for row in rows:
            record = _record(row)
            if record is not None:
                yield record

    def _get(self, conn: sqlite3.Connection, key: str | int) -> Record | None:
        rows = self._sql(conn, f"{SELECT} WHERE id = ?", records.encode_record(key)).fetchall()
        return (_record(rows[0]) or {"id": key}) if rows else None

    def _put(
        self,
        conn: sqlite3.Connection,
        record: Mapping[str, Any],
        row: Record | None,
        remaining: float | None = None,
    ) -> Record:
        ago = 0.0 if remaining is None else record["ttl"] - remaining
        wall = int((self._clock.wall() - ago) * 1000) / 1000
        first = None if row is None else row.get("first_heartbeat")
        if not isinstance(first, datetime):
            first = record.get("first_heartbeat") or datetime.fromtimestamp(wall, timezone.utc)
        body = {
            name: value
            for name, value in record.items()
            if name not in ("id", "role", "load", "ttl")
        }
        body["first_heartbeat"] = first
        columns = (
            records.encode_record(record["id"]),
            record["role"],
            record["load"],
            record["ttl"],
        )
        written = (
            *columns,
            wall,
            self._clock.total() - ago,
            self._clock.name,
            records.encode_record(body),
        )
        self._sql(conn, PUT, *written)
        stored = _record(written)
        assert stored is not None
        return stored


def _record(row: tuple[Any, ...]) -> Record | None:
    """Return the record in a row of `SELECT`; None if its JSON is damaged."""
    key, role, load, ttl, beat, beat_at, _, body = row
    try:
        record: Record = records.decode_record(body)
        record["id"] = records.decode_record(key)
    except (TypeError, ValueError):
        return None
    columns = {"role": role, "load": load, "ttl": ttl}
    record.update((name, value) for name, value in columns.items() if value is not None)
    if is_number(beat_at) and is_number(beat):
        record["last_heartbeat"] = datetime.fromtimestamp(beat, timezone.utc)
    elif beat is not None or beat_at is not None:
        record["last_heartbeat"] = beat if not is_number(beat) else str(beat)
    return record
