"""The feed of leases: notifications, and a look at the rows now and then.

A notification says which roles changed, and the feed reads these rows. It is never believed: every
user who may connect to the database may send one. Renewals are not notified, since each
notification wakes every listener of the database. The feed sees them when it reads all its rows,
which it does several times within a ttl. That is also what works behind a connection pooler, which
does not pass notifications on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from coord.core.lease import Lease, Revision
from coord.errors import StoreUnavailable
from coord.stores.postgresql import rows, schema
from coord.stores.postgresql.connection import CONNECT_TIMEOUT, Connection, Pool, from_exception
from coord.stores.postgresql.errors import QueryError

MIN_INTERVAL, MAX_INTERVAL = 0.1, 1.0
"""Seconds between two looks at all rows."""
LOOKS_PER_TTL = 4
"""Looks at all rows within the shortest ttl of them."""
READ_TIMEOUT = 5.0
"""Seconds that a look may take. After that the server is taken for unreachable."""


class LeaseFeed:
    """The leases of `roles` (None: of every role), on a connection of its own.

    Args:
        pool: Opens the connection.
        roles: The roles to watch.
    """

    def __init__(self, pool: Pool, roles: Sequence[str] | None) -> None:
        self._pool, self._roles = pool, roles
        self._read = schema.calls(pool.url.schema)["read"]
        self._known: dict[str, Revision] = {}
        self._ttls: dict[str, float] = {}
        self._hints: set[str] | None = set()
        """Roles that a notification named; None: any role."""
        self._hinted = asyncio.Event()

    async def rows(self) -> AsyncGenerator[Lease, None]:
        """Yield the rows: first all that exist, then each as it changes.

        Raises:
            StoreUnavailable: The feed broke off.
        """
        try:
            connection = await self._pool.open(CONNECT_TIMEOUT)
        except QueryError as error:
            raise StoreUnavailable(f"the feed could not be opened: {error.detail}") from None
        try:
            await self._listen(connection)
            loop = asyncio.get_running_loop()
            due = 0.0
            while True:
                hints, self._hints = self._hints, set()
                self._hinted.clear()
                if hints is None or loop.time() >= due:
                    for lease in await self._look(connection, self._roles):
                        yield lease
                    due = loop.time() + self._interval()
                elif hints:
                    for lease in await self._look(connection, sorted(hints)):
                        yield lease
                await self._wait(max(due - loop.time(), 0.0))
        except QueryError as error:
            raise StoreUnavailable(f"the feed broke off: {error.detail}") from None
        finally:
            self._pool.drop(connection)

    async def _listen(self, connection: Connection) -> None:
        raw = connection.raw
        raw.add_termination_listener(lambda _: self._hinted.set())
        listening = asyncio.ensure_future(
            raw.add_listener(schema.channel(self._pool.url.schema), self._on_notification)
        )
        done, _ = await asyncio.wait({listening}, timeout=READ_TIMEOUT)
        if not done:
            connection.terminate()
        try:
            await listening
        except Exception as err:
            raise from_exception(err, self._pool.url) from None

    def _on_notification(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        named = schema.roles_in(payload)
        if named is None:
            self._hints = None
        elif self._hints is not None:
            watched = named if self._roles is None else named.intersection(self._roles)
            if not watched:
                return
            self._hints |= watched
        self._hinted.set()

    async def _look(self, connection: Connection, roles: Sequence[str] | None) -> list[Lease]:
        """Return the rows that have changed since the last look."""
        changed = []
        wanted = None if roles is None else list(roles)
        found = await connection.fetch(self._pool.url, self._read, (wanted,), READ_TIMEOUT)
        for row in found:
            lease = rows.lease(row, row["role"])
            if self._known.get(lease.role) != lease.revision:
                self._known[lease.role] = lease.revision
                changed.append(lease)
            self._ttls[lease.role] = 0.0 if lease.vacant else lease.ttl
        return changed

    def _interval(self) -> float:
        shortest = min((ttl for ttl in self._ttls.values() if ttl > 0), default=MAX_INTERVAL)
        return min(max(shortest / LOOKS_PER_TTL, MIN_INTERVAL), MAX_INTERVAL)

    async def _wait(self, seconds: float) -> None:
        """Wait for a notification, but not longer."""
        timer = asyncio.get_running_loop().call_later(seconds, self._hinted.set)
        try:
            await self._hinted.wait()
        finally:
            timer.cancel()
