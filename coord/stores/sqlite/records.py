"""Service records in a SQLite file, beside the leases: for the processes of one machine.

A record's age is by the machine's own clock (`stores/sqlite/machine.py`), so setting the wall clock
changes nobody's health; `last_heartbeat` is wall time, for people. What was written before the
machine started anew is down."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import datetime, timezone
from itertools import islice
from typing import Any, TypeVar

from coord.core import records
from coord.core.records import Record, RecordWithRemaining
from coord.stores.sqlite.connection import Connection
from coord.stores.sqlite.store import SQLiteStore
from coord.stores.sqlite.worker import Job

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

POLL = 0.25
"""Seconds between looks at who of a role is there; one search of an index each."""

# role, ttl, load and the times have no type here: what somebody wrote by hand is read as it is, and
# judged.
TABLE = """CREATE TABLE IF NOT EXISTS "{table}" (
    id TEXT NOT NULL PRIMARY KEY, -- JSON: a string or an integer
    role,
    load,
    ttl, -- seconds
    last_heartbeat, -- wall time, seconds since 1970, for people
    beat_at, -- the same on the machine's clock, within boot_id
    boot_id TEXT,
    body TEXT NOT NULL DEFAULT '{{}}' -- JSON: all the other fields
)"""
INDEX = 'CREATE INDEX IF NOT EXISTS "{table}_role" ON "{table}" (role)'
PUT = """INSERT OR REPLACE INTO "{table}" (id, role, load, ttl, last_heartbeat, beat_at, boot_id, body)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
SELECT = 'SELECT id, role, load, ttl, last_heartbeat, beat_at, boot_id, body FROM "{table}"'
DELETE = 'DELETE FROM "{table}"'
JUDGED = "typeof(ttl) IN ('integer', 'real') AND ttl > 0 AND typeof(beat_at) IN ('integer', 'real')"
HEALTHY = f"{JUDGED} AND boot_id = :boot AND :now - beat_at < ttl"
BY_LOAD = "typeof(load) NOT IN ('integer', 'real'), load"


class SQLiteRecords:
    """The records of one table of a `SQLiteStore`; on its thread, over its connection. The table is
    made on the way."""

    def __init__(self, store: SQLiteStore, table: str) -> None:
        self._store, self._table = store, f"coord_records_{table}"
        self._clock = store._clock
        self._made: tuple[Connection | None, int] = (None, 0)

    async def register(
        self, record: Mapping[str, Any], nonce: str, timeout: float
    ) -> Record | None:
        def work(conn: sqlite3.Connection) -> Record | None:
            row = self._get(conn, record["id"])
            return (
                None
                if row is not None and row.get(records.TOMBSTONE) == nonce
                else self._put(conn, record, row)
            )

        return await self._write(work, timeout)

    async def keep(self, record: Mapping[str, Any], timeout: float) -> Record | None:
        def work(conn: sqlite3.Connection) -> Record | None:
            row = self._get(conn, record["id"])
            return None if row is None or records.TOMBSTONE in row else self._put(conn, record, row)

        return await self._write(work, timeout)

    async def remove(self, key: str | int, nonce: str | None, timeout: float) -> bool:
        def work(conn: sqlite3.Connection) -> bool:
            row = self._get(conn, key)
            self._sql(conn, f"{DELETE} WHERE id = ?", records.encode_record(key))
            if nonce is not None:
                ttl = row["ttl"] if row is not None and records.has_valid_times(row) else 60.0
                self._put(
                    conn,
                    {"id": key, records.TOMBSTONE: nonce, "ttl": ttl, "role": None, "load": None},
                    None,
                    0.0,
                )
            return row is not None and records.TOMBSTONE not in row

        return await self._write(work, timeout)

    async def least(self, role: str, timeout: float) -> Record | None:
        where = f"role = :role AND {HEALTHY} ORDER BY {BY_LOAD}"
        return await self._read(
            lambda conn: next(self._select(conn, where, role=role), None), timeout
        )

    async def sample(self, role: str, count: int, timeout: float) -> list[Record]:
        where = f"role = :role AND {HEALTHY} ORDER BY random()"
        return await self._read(
            lambda conn: list(islice(self._select(conn, where, role=role), count)), timeout
        )

    async def healthy(
        self, role: str | None, timeout: float, *, key: str | None = None
    ) -> list[Record]:
        where = (
            HEALTHY
            + ("" if role is None else " AND role = :role")
            + ("" if key is None else " AND id = :id")
        )
        given = {"role": role, "id": None if key is None else records.encode_record(key)}
        return await self._read(lambda conn: list(self._select(conn, where, **given)), timeout)

    async def roster(self, role: str | None, timeout: float) -> list[RecordWithRemaining]:
        def work(conn: sqlite3.Connection) -> list[RecordWithRemaining]:
            now, wall, boot = self._clock.total(), self._clock.wall(), self._clock.boot
            given = [] if role is None else [role]
            rows = self._sql(
                conn, f"{SELECT} WHERE {JUDGED}{' AND role = ?' if given else ''}", *given
            )
            return [
                RecordWithRemaining(
                    record,
                    row[3]
                    - (
                        now - row[5]
                        if row[6] == boot
                        else records.silence_by_wall_clock(row[3], row[4], wall)
                    ),
                )
                for row in rows
                if (record := _record(row)) is not None and records.TOMBSTONE not in record
            ]

        return await self._read(work, timeout)

    async def purge(self, ttls: float, timeout: float) -> int:
        # Of a record from before a reboot only wall time tells how old it is.
        silent = "CASE boot_id WHEN ? THEN ? - beat_at ELSE ? - last_heartbeat END"

        def work(conn: sqlite3.Connection) -> int:
            times = (self._clock.boot, self._clock.total(), self._clock.wall())
            return self._sql(
                conn, f"{DELETE} WHERE {JUDGED} AND {silent} > ttl * ?", *times, ttls
            ).rowcount

        return await self._write(work, timeout)

    async def bad(self, timeout: float) -> list[Record]:
        def work(conn: sqlite3.Connection) -> list[Record]:
            now = datetime.fromtimestamp(self._clock.wall(), timezone.utc)
            found = []
            for row in self._sql(conn, SELECT):
                record = _record(row)
                if record is None:
                    found.append({"id": row[0], "role": row[1]})
                elif records.problems(record, now):
                    found.append(record)
            return found

        return await self._read(work, timeout)

    async def publish(self, record: Mapping[str, Any], remaining: float, timeout: float) -> bool:
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
        def work(conn: sqlite3.Connection) -> bool:
            row = self._get(conn, role)
            if row is None or not records.is_published(row) or row["token"] > token:
                return False
            self._sql(conn, f"{DELETE} WHERE id = ?", records.encode_record(role))
            return True

        return await self._write(work, timeout)

    async def watch(self, role: str) -> AsyncIterator[None]:
        def ids(conn: sqlite3.Connection) -> set[str]:
            return {
                row[0] for row in self._sql(conn, 'SELECT id FROM "{table}" WHERE role = ?', role)
            }

        known: set[str] | None = None
        while True:
            present = await self._read(ids, 5.0)
            if present != known:
                known = present
                yield
            await asyncio.sleep(POLL)

    # -- on the store's thread
    # ---------------------------------------------------------------------------------

    async def _read(self, work: Work[T], timeout: float) -> T:
        def read(job: Job[T], handle: Connection) -> T:
            conn = self._connection(job, handle)
            handle.check_place()
            return work(conn)

        return await self._store._ask(read, timeout)

    async def _write(self, work: Work[T], timeout: float) -> T:
        def write(job: Job[T], handle: Connection) -> T:
            self._connection(job, handle)
            conn = handle.begin(synced=False)
            result = work(conn)
            job.commit(handle)
            return result

        return await self._store._ask(write, timeout)

    def _connection(self, job: Job[Any], handle: Connection) -> sqlite3.Connection:
        conn = handle.connection()
        if self._made != (handle, handle.opened):
            found = conn.execute(
                "SELECT count(*) FROM sqlite_master WHERE name IN (?, ?)",
                (self._table, f"{self._table}_role"),
            )
            if found.fetchone()[0] != 2:
                handle.begin(synced=False)
                self._sql(conn, TABLE)
                self._sql(conn, INDEX)
                job.commit(handle)
            self._made = (handle, handle.opened)
        return conn

    def _sql(self, conn: sqlite3.Connection, statement: str, *given: object) -> sqlite3.Cursor:
        return conn.execute(statement.format(table=self._table), given)

    def _select(self, conn: sqlite3.Connection, where: str, **given: object) -> Iterator[Record]:
        times = {"now": self._clock.total(), "boot": self._clock.boot}
        rows = conn.execute(f"{SELECT} WHERE {where}".format(table=self._table), {**times, **given})
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
            self._clock.boot,
            records.encode_record(body),
        )
        self._sql(conn, PUT, *written)
        stored = _record(written)
        assert stored is not None
        return stored


def _record(row: tuple[Any, ...]) -> Record | None:
    """The record that a row of `SELECT` stands for; None where its JSON is damaged."""
    key, role, load, ttl, beat, beat_at, _, body = row
    try:
        record: Record = records.decode_record(body)
        record["id"] = records.decode_record(key)
    except (TypeError, ValueError):
        return None
    known = {"role": role, "load": load, "ttl": ttl}
    record.update((name, value) for name, value in known.items() if value is not None)
    if records.is_number(beat_at) and records.is_number(beat):
        record["last_heartbeat"] = datetime.fromtimestamp(beat, timezone.utc)
    elif beat is not None or beat_at is not None:
        record["last_heartbeat"] = beat if not records.is_number(beat) else str(beat)
    return record
