"""Announcements in PostgreSQL, in a table that is not logged: a crash of the server deletes them.

They expire by the server's clock. People may write any row into the table, so what is malformed is
ignored.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from coord.core.announcements import (
    Announcement,
    counted_roles,
    decode_announcement,
    encode_body,
)
from coord.stores.failures import RequestError
from coord.stores.postgresql import schema
from coord.stores.postgresql.connection import Connection, Pool
from coord.stores.postgresql.feed import READ_TIMEOUT, Feed


class PostgreSQLAnnouncements:
    """The announcements of one database. Implements `coord.stores.protocol.Announcements`.

    Args:
        pool: The connections to use, those of the store.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._calls = schema.calls(pool.url.schema)

    async def post(self, notices: Sequence[Announcement], timeout: float) -> dict[str, int]:
        """Write announcements, and count the candidates of their roles."""
        if not notices:
            return {}
        by_key = {notice.key: notice for notice in notices}  # The last one of a key counts.
        written = [by_key[key] for key in sorted(by_key)]
        parameters = (
            [notice.key for notice in written],
            [notice.role for notice in written],
            [notice.kind for notice in written],
            [encode_body(notice.body) for notice in written],
            [float(notice.ttl) for notice in written],
            [notice.urgent for notice in written],
            counted_roles(notices),
        )
        rows = await self._run("post", parameters, timeout)
        return {row["role"]: row["candidates"] for row in rows}

    async def withdraw(self, keys: Collection[str], timeout: float) -> None:
        """Delete the announcements with these keys, if they exist."""
        if keys:
            await self._run("withdraw", (sorted(keys),), timeout)

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Announcement]:
        """Return the announcements about `roles` (None: about every role), in any order."""
        names = None if roles is None else sorted(set(roles))
        if names == []:
            return []
        rows = await self._run("posted", (names, False), timeout)
        decoded = (_announcement(row) for row in rows)
        return [announcement for announcement in decoded if announcement is not None]

    async def watch(self) -> AsyncIterator[Announcement]:
        """Yield the urgent announcements that exist, then each one when it is posted.

        Raises:
            StoreUnavailable: The feed broke off. Open a new one.
            StoreRefused: There are no announcements, or access is denied.
        """
        async with contextlib.aclosing(UrgentFeed(self._pool).items()) as posted:
            async for announcement in posted:
                yield announcement

    async def purge(self, timeout: float) -> int:
        """Delete the expired announcements, and return how many there were."""
        rows = await self._run("purge_announcements", (), timeout)
        return int(rows[0][0])

    async def _run(self, name: str, parameters: Sequence[Any], timeout: float) -> Any:
        try:
            return await self._pool.run(self._calls[name], parameters, timeout)
        except RequestError as error:
            raise error.error() from None


class UrgentFeed(Feed[Announcement]):
    """The urgent announcements that have not expired: first all, then each that is posted."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool, schema.urgent_channel(pool.url.schema), refusals=True)
        self._query = schema.calls(pool.url.schema)["posted"]
        self._known: dict[str, float] = {}

    async def look(self, connection: Connection, hints: set[str] | None) -> list[Announcement]:
        """Return what was posted since the last look."""
        rows = await connection.fetch(self.pool.url, self._query, (None, True), READ_TIMEOUT)
        posted = [row for row in rows if self._known.get(row["key"]) != row["posted_at"]]
        self._known = {row["key"]: row["posted_at"] for row in rows}
        decoded = (_announcement(row) for row in posted)
        return [announcement for announcement in decoded if announcement is not None]


def _announcement(row: Mapping[str, Any]) -> Announcement | None:
    """Return the announcement in a row; None if the row holds none."""
    key, role, kind, body, ttl, urgent, posted_at, remaining = (
        row[name]
        for name in ("key", "role", "kind", "body", "ttl", "urgent", "posted_at", "remaining")
    )
    return decode_announcement(
        key,
        role,
        kind,
        body,
        ttl=ttl,
        urgent=urgent,
        posted_at=posted_at,
        seconds_left=remaining,
    )
