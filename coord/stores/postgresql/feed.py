"""Feeds: notifications, and a look at the rows now and then.

A notification says what changed, and the feed reads these rows. It is never believed: every user
who may connect to the database may send one. Renewals are notified only if they carry an info,
since each notification wakes every listener of the database. A feed sees the others when it reads
all its rows, which it does several times within a ttl, mostly just after a renewal
(`LookSchedule`). That is also what works behind a connection pooler, which does not pass
notifications on.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Generic, TypeVar

from coord.core.lease import Lease, Revision
from coord.errors import StoreRefused, StoreUnavailable
from coord.runtime.retry import rng
from coord.stores.failures import RequestError
from coord.stores.postgresql import rows, schema
from coord.stores.postgresql.connection import (
    CONNECT_TIMEOUT,
    Connection,
    Pool,
    from_exception,
    retrieve,
)
from coord.stores.postgresql.looks import LookSchedule

T = TypeVar("T")

MIN_INTERVAL, MAX_INTERVAL = 0.1, 1.0
"""Seconds between two looks at all rows."""
POOLED_INTERVAL = 0.25
"""Seconds between two looks at most where a pooler passes no notifications on."""
LOOKS_PER_TTL = 4
"""Looks at all rows within the shortest ttl of them."""
MIN_SLACK, MAX_SLACK = 0.015, 0.04
"""Seconds between a renewal and the look that shows it. Each feed draws its own."""
READ_TIMEOUT = 5.0
"""Seconds that a look may take. After that the server is taken for unreachable."""


class Feed(Generic[T]):
    """The base class of the feeds. A feed has a connection of its own.

    Args:
        pool: Opens the connection.
        channel: The channel to listen on.
        refusals: Whether to raise `StoreRefused` when the server refuses; otherwise that is a
            `StoreUnavailable`, too.
    """

    def __init__(self, pool: Pool, channel: str, *, refusals: bool = False) -> None:
        self.pool, self._channel, self._refusals = pool, channel, refusals
        self._hints: set[str] | None = set()
        """What notifications named; None: anything."""
        self._hinted = asyncio.Event()
        self._pooled = False

    async def look(self, connection: Connection, hints: set[str] | None) -> list[T]:
        """Return what has changed since the last look: of all rows for None, or of those that the
        hints name."""
        raise NotImplementedError

    def relevant(self, payload: str) -> set[str] | None:
        """Return what a notification names of what this feed shows; None means anything."""
        return None

    def next_look(self, looked_at: float, longest: float) -> float:
        """Return when to look at all rows again, by the clock of the loop.

        Args:
            looked_at: When it looked at all rows last.
            longest: Seconds between two looks at most, as a rule.
        """
        return looked_at + longest

    async def items(self) -> AsyncGenerator[T, None]:
        """Yield what exists, then each change.

        Raises:
            StoreUnavailable: The feed broke off.
            StoreRefused: The server refuses.
        """
        try:
            connection = await self.pool.open(CONNECT_TIMEOUT)
        except RequestError as error:
            raise self._error(error) from None
        try:
            await self._listen(connection)
            loop = asyncio.get_running_loop()
            longest = POOLED_INTERVAL if self._pooled else MAX_INTERVAL
            looked_at = due = float("-inf")
            while True:
                hints, self._hints = self._hints, set()
                self._hinted.clear()
                if loop.time() >= due:
                    hints = None
                if hints is None or hints:
                    rows = await self.look(connection, hints)
                    if hints is None:
                        looked_at = loop.time()
                    for item in rows:
                        yield item
                    due = self.next_look(looked_at, longest)
                await self._wait(max(due - loop.time(), 0.0))
        except RequestError as error:
            raise self._error(error) from None
        finally:
            self.pool.drop(connection)

    def _error(self, error: RequestError) -> StoreUnavailable | StoreRefused:
        if self._refusals and error.refusal is not None:
            return error.refusal(error.detail)
        return StoreUnavailable(f"the feed broke off: {error.detail}")

    async def _listen(self, connection: Connection) -> None:
        raw = connection.raw
        raw.add_termination_listener(lambda _: self._hinted.set())
        self._pooled = connection.pooled
        if self._pooled:  # Another client would hear the notifications, or nobody.
            return
        # A task of its own, as in `Connection.fetch`. If this coroutine is cancelled, the
        # connection is closed, and nobody needs to know how the task ends.
        listening = asyncio.ensure_future(raw.add_listener(self._channel, self._on_notification))
        listening.add_done_callback(retrieve)
        done, _ = await asyncio.wait({listening}, timeout=READ_TIMEOUT)
        if not done:
            connection.terminate()
        try:
            await listening
        except Exception as err:
            raise from_exception(err, self.pool.url) from None

    def _on_notification(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        named = self.relevant(payload)
        if named is None:
            self._hints = None
        elif not named:
            return
        elif self._hints is not None:
            self._hints |= named
        self._hinted.set()

    async def _wait(self, seconds: float) -> None:
        """Wait for a notification, but not longer."""
        timer = asyncio.get_running_loop().call_later(seconds, self._hinted.set)
        try:
            await self._hinted.wait()
        finally:
            timer.cancel()


class LeaseFeed(Feed[Lease]):
    """The leases of `roles` (None: of every role).

    Args:
        pool: Opens the connection.
        roles: The roles to watch.
    """

    def __init__(self, pool: Pool, roles: Sequence[str] | None) -> None:
        super().__init__(pool, schema.channel(pool.url.schema))
        self._roles = roles
        self._read = schema.calls(pool.url.schema)["read"]
        self._known: dict[str, Revision] = {}
        self._ttls: dict[str, float] = {}
        self._schedule = LookSchedule(rng.uniform(MIN_SLACK, MAX_SLACK))
        self._looked_at = float("-inf")

    def relevant(self, payload: str) -> set[str] | None:
        """Return the roles that a notification names and that are watched."""
        named = schema.roles_in(payload)
        return named if named is None or self._roles is None else named.intersection(self._roles)

    async def look(self, connection: Connection, hints: set[str] | None) -> list[Lease]:
        """Return the leases that have changed since the last look."""
        changed = []
        names = self._roles if hints is None else sorted(hints)
        records = await connection.fetch(self.pool.url, self._read, (names,), READ_TIMEOUT)
        now = asyncio.get_running_loop().time()
        for row in records:
            lease = rows.lease(row, row["role"])
            self._schedule.saw(lease, now)
            if self._known.get(lease.role) != lease.revision:
                self._known[lease.role] = lease.revision
                changed.append(lease)
            self._ttls[lease.role] = 0.0 if lease.vacant else lease.ttl
        if hints is None and len(self._known) > len(records):  # roles were retired
            for role in self._known.keys() - {row["role"] for row in records}:
                del self._known[role], self._ttls[role]
                self._schedule.forget(role)
        return changed

    def next_look(self, looked_at: float, longest: float) -> float:
        """Return when to look at all rows again: after the next renewal, or after a fraction of the
        shortest ttl."""
        # A claim of a vacant role is notified. An early look would only delay it.
        shortest = min((ttl for ttl in self._ttls.values() if ttl > 0), default=math.inf)
        interval = min(max(shortest / LOOKS_PER_TTL, MIN_INTERVAL), longest)
        if looked_at > self._looked_at:
            self._schedule.looked(looked_at, interval)
            self._looked_at = looked_at
        return self._schedule.next_look(interval)
