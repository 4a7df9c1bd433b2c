"""The board in a SQLite file, in the table `coord_board` beside the leases; it runs out by the same
clock as they."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any, TypeVar

from coord.core.announcements import (
    CANDIDATE,
    MAX_COUNTED,
    Announcement,
    counted_roles,
    decode_announcement,
    encode_body,
)
from coord.core.validation import is_number
from coord.runtime.clock import StoreClock
from coord.stores.sqlite.connection import Connection
from coord.stores.sqlite.feed import Feed
from coord.stores.sqlite.schema import CHUNK
from coord.stores.sqlite.store import SQLiteStore
from coord.stores.sqlite.worker import Job

T = TypeVar("T")

SELECT = "SELECT key, role, kind, body, ttl, loud, posted_at, runs_out, boot_id FROM coord_board"
PUT = """INSERT OR REPLACE INTO coord_board (key, role, kind, body, ttl, loud, posted_at, runs_out, boot_id)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
COUNT = "SELECT count(*) FROM (SELECT 1 FROM coord_board WHERE role = ? AND kind = ? LIMIT ?)"
# A row of another boot was written before the machine started anew.
PURGE = "DELETE FROM coord_board WHERE boot_id <> ? OR runs_out <= ?"
SWEEP = """DELETE FROM coord_board WHERE key IN
    (SELECT key FROM coord_board WHERE boot_id <> ? OR runs_out <= ? LIMIT 100)"""


class SQLiteAnnouncements:
    """The board of a `SQLiteStore`: on its thread, over its connection."""

    def __init__(self, store: SQLiteStore) -> None:
        self._store, self._clock = store, store._clock

    async def post(self, notices: Sequence[Announcement], timeout: float) -> dict[str, int]:
        def work(conn: sqlite3.Connection) -> dict[str, int]:
            now, wall, boot = self._clock.total(), self._clock.wall(), self._clock.boot
            conn.execute(SWEEP, (boot, now))
            conn.executemany(
                PUT,
                [
                    (
                        one.key,
                        one.role,
                        one.kind,
                        text,
                        one.ttl,
                        one.urgent,
                        wall,
                        now + one.ttl,
                        boot,
                    )
                    for one, text in zip(notices, bodies, strict=True)
                ],
            )
            return {
                role: conn.execute(COUNT, (role, CANDIDATE, MAX_COUNTED)).fetchone()[0]
                for role in roles
            }

        bodies, roles = [encode_body(one.body) for one in notices], counted_roles(notices)
        return await self._write(work, timeout) if notices else {}

    async def withdraw(self, keys: Collection[str], timeout: float) -> None:
        def work(conn: sqlite3.Connection) -> None:
            conn.executemany("DELETE FROM coord_board WHERE key = ?", given)

        if given := [(key,) for key in keys]:
            await self._write(work, timeout)

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Announcement]:
        wanted = None if roles is None else sorted(set(roles))

        def work(_: Job[list[Announcement]], handle: Connection) -> list[Announcement]:
            conn = handle.connection()
            handle.check_place()
            rows = _select(conn, wanted)
            return _standing(rows, self._clock)

        return [] if wanted == [] else await self._store._ask(work, timeout)

    def watch(self) -> AsyncIterator[Announcement]:
        return self._store._hear(lambda: UrgentFeed(self._store._handle(), self._clock))

    async def purge(self, timeout: float) -> int:
        def work(conn: sqlite3.Connection) -> int:
            return conn.execute(PURGE, (self._clock.boot, self._clock.total())).rowcount

        return await self._write(work, timeout)

    async def _write(self, work: Callable[[sqlite3.Connection], T], timeout: float) -> T:
        def write(job: Job[T], handle: Connection) -> T:
            conn = handle.begin(synced=False)
            result = work(conn)
            job.commit(handle)
            return result

        return await self._store._ask(write, timeout)


class UrgentFeed(Feed[Announcement]):
    """Loud notices that have not run out: all at first, then each that was posted, anew too."""

    # every leader listens, always, and for what people do: it need not look as often as who waits
    # for a role
    poll = 0.1

    def __init__(self, handle: Connection, clock: StoreClock) -> None:
        super().__init__(handle, clock)
        self._known: dict[str, tuple[Any, ...]] = {}

    def fresh(self, conn: sqlite3.Connection) -> dict[str, Announcement]:
        rows = {row[0]: row for row in conn.execute(f"{SELECT} WHERE loud").fetchall()}
        posted = [row for key, row in rows.items() if self._known.get(key) != row]
        self._known = rows
        return {one.key: one for one in _standing(posted, self._clock)}


def _select(conn: sqlite3.Connection, roles: Sequence[str] | None) -> list[tuple[Any, ...]]:
    if roles is None:
        return conn.execute(SELECT).fetchall()
    rows: list[tuple[Any, ...]] = []
    for start in range(0, len(roles), CHUNK):
        some = roles[start : start + CHUNK]
        rows += conn.execute(
            f"{SELECT} WHERE role IN ({','.join('?' * len(some))})", some
        ).fetchall()
    return rows


def _standing(rows: Sequence[tuple[Any, ...]], clock: StoreClock) -> list[Announcement]:
    """The notices of those rows that have not run out."""
    now = clock.total()
    found = (
        decode_announcement(key, role, kind, body, ttl, loud, posted_at, runs_out - now)
        for key, role, kind, body, ttl, loud, posted_at, runs_out, boot in rows
        if boot == clock.boot and is_number(runs_out) and runs_out > now
    )
    return [one for one in found if one is not None]
