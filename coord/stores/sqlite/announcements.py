"""Announcements in a SQLite file, in the table `coord_announcements` beside the leases.

They expire by the same clock as the leases.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from coord.core.announcements import (
    CANDIDATE,
    MAX_COUNTED,
    REQUEST,
    Announcement,
    counted_roles,
    decode_announcement,
    encode_body,
)
from coord.core.validation import is_number
from coord.runtime.clock import WALL_SKEW
from coord.stores.sqlite import schema
from coord.stores.sqlite.connection import Connection
from coord.stores.sqlite.database import Database
from coord.stores.sqlite.feed import Feed
from coord.stores.sqlite.lease_clock import LeaseClock
from coord.stores.sqlite.worker import Job

Row = tuple[Any, ...]

SELECT = """SELECT key, role, kind, body, ttl, urgent, posted_at, runs_out, clock
    FROM coord_announcements"""
PUT = """INSERT OR REPLACE INTO coord_announcements
    (key, role, kind, body, ttl, urgent, posted_at, runs_out, clock)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
DELETE = "DELETE FROM coord_announcements WHERE key = ?"
COUNT = """SELECT count(*) FROM
    (SELECT 1 FROM coord_announcements WHERE role = ? AND kind = ? LIMIT ?)"""
# A row whose clock has another name was written before the machine restarted, or by a process that
# reads another clock. The wall clock decides about it, because a wrong decision costs a hint only.
EXPIRED = f"""CASE clock WHEN :clock THEN runs_out <= :now
    ELSE posted_at NOT BETWEEN :wall - ttl AND :wall + {WALL_SKEW} END"""
DELETE_EXPIRED = f"DELETE FROM coord_announcements WHERE {EXPIRED}"  # noqa: S608 # constants
# Every post deletes a few, so that nobody has to call `purge`.
DELETE_SOME_EXPIRED = f"""DELETE FROM coord_announcements WHERE key IN
    (SELECT key FROM coord_announcements WHERE {EXPIRED} LIMIT 100)"""  # noqa: S608 # constants


class SQLiteAnnouncements:
    """The announcements in a `Database`. Implements `protocol.Announcements`."""

    def __init__(self, database: Database) -> None:
        self._database, self._clock = database, database.clock

    async def post(self, notices: Sequence[Announcement], timeout: float) -> dict[str, int]:
        """Write announcements, and count the candidates of their roles.

        See `protocol.Announcements.post`.
        """

        def work(conn: sqlite3.Connection) -> dict[str, int]:
            times = _times(self._clock)
            now, wall, name = times["now"], times["wall"], times["clock"]
            conn.execute(DELETE_SOME_EXPIRED, times)
            rows = [
                (key, role, kind, body, ttl, urgent, wall, now + ttl, name)
                for key, role, kind, body, ttl, urgent in columns
            ]
            conn.executemany(PUT, rows)
            return {
                role: conn.execute(COUNT, (role, CANDIDATE, MAX_COUNTED)).fetchone()[0]
                for role in roles
            }

        # Encoded on the caller's thread: an error about the body belongs to the caller.
        columns = [
            (item.key, item.role, item.kind, encode_body(item.body), item.ttl, item.urgent)
            for item in notices
        ]
        roles = counted_roles(notices)
        return await self._database.write(work, timeout) if notices else {}

    async def withdraw(self, keys: Collection[str], timeout: float) -> None:
        """Delete the announcements with these keys, if they exist."""
        parameters = [(key,) for key in keys]

        def work(conn: sqlite3.Connection) -> None:
            conn.executemany(DELETE, parameters)

        if parameters:
            await self._database.write(work, timeout, create=False)

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Announcement]:
        """Return the announcements about `roles` (None: about every role), in any order."""
        names = None if roles is None else sorted(set(roles))

        def work(_: Job[list[Announcement]], connection: Connection) -> list[Announcement]:
            conn = connection.sqlite()
            connection.check_file()
            return _unexpired(schema.select_roles(conn, SELECT, names), self._clock)

        return [] if names == [] else await self._database.run(work, timeout)

    def watch(self) -> AsyncIterator[Announcement]:
        """Yield the urgent announcements, and again whenever one is posted.

        See `protocol.Announcements.watch`.
        """
        return self._database.feed(lambda connection: UrgentFeed(connection, self._clock))

    async def purge(self, timeout: float) -> int:
        """Delete all expired announcements, and return how many they were."""

        def work(conn: sqlite3.Connection) -> int:
            return conn.execute(DELETE_EXPIRED, _times(self._clock)).rowcount

        return await self._database.write(work, timeout, create=False)


MAX_CHANGES = 400
"""Announcements of candidates that a feed reports at a time, so that a great many of them need
little memory. Requests do not wait for them."""


class UrgentFeed(Feed[Announcement]):
    """The urgent announcements that have not expired: first all, then each that was posted."""

    # Every leader has this feed for its whole term, and it reports what people do. So it need not
    # look as often as the feed of a candidate that waits for a lease.
    poll_interval = 0.1

    def __init__(self, connection: Connection, clock: LeaseClock) -> None:
        super().__init__(connection, clock)
        # The hashes of the rows that were read last, sorted. The rows would take 60 times the
        # memory, and a set of hashes 10 times.
        self._known = array("q")

    def read_changes(self, conn: sqlite3.Connection) -> dict[str, Announcement]:
        """Return the announcements whose rows changed since the last call, by key."""
        numbers, posted = array("q"), list[Row]()
        self.incomplete = False
        for row in conn.execute(f"{SELECT} WHERE urgent"):
            number = hash(row)
            place = bisect_left(self._known, number)
            if place == len(self._known) or self._known[place] != number:
                if len(posted) >= MAX_CHANGES and row[2] != REQUEST:
                    self.incomplete = True
                    continue
                posted.append(row)
            numbers.append(number)
        self._known = array("q", sorted(numbers))
        return {item.key: item for item in _unexpired(posted, self._clock)}


def _times(clock: LeaseClock) -> dict[str, Any]:
    return {"now": clock.total(), "wall": clock.wall(), "clock": clock.name}


def _unexpired(rows: Sequence[Row], clock: LeaseClock) -> list[Announcement]:
    now, wall, name = clock.total(), clock.wall(), clock.name
    result = []
    for key, role, kind, body, ttl, urgent, posted_at, runs_out, row_clock in rows:
        if not (is_number(runs_out) and is_number(posted_at) and is_number(ttl)):
            continue
        remaining = runs_out - now if row_clock == name else posted_at + ttl - wall
        if row_clock != name and posted_at > wall + WALL_SKEW:
            continue
        if remaining > 0:
            item = decode_announcement(
                key,
                role,
                kind,
                body,
                ttl=ttl,
                urgent=urgent,
                posted_at=posted_at,
                seconds_left=remaining,
            )
            if item is not None:
                result.append(item)
    return result
