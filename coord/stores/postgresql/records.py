"""Service records in PostgreSQL, in one table for all registries. The server's clock judges health.

A record is stored as one JSON text, and beside it those of its fields that queries need. Such a
column is NULL if the field does not have the right type, and the text keeps what it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from coord.core import records
from coord.core.records import Record, RecordWithRemaining
from coord.core.validation import is_number
from coord.stores.failures import RequestError
from coord.stores.postgresql import schema
from coord.stores.postgresql.connection import Connection, Pool
from coord.stores.postgresql.feed import READ_TIMEOUT, Feed

POLL_INTERVAL = 0.25
"""Seconds between two reads of which services a role has."""
_TIMES = ("first_heartbeat", "last_heartbeat")


class PostgreSQLRecords:
    """The service records of one registry. Implements `coord.stores.protocol.Records`.

    Args:
        pool: The connections to use, those of the store.
        table: The name of the registry. All registries are in one table.
    """

    def __init__(self, pool: Pool, table: str) -> None:
        self._pool, self._registry = pool, table
        self._calls = schema.calls(pool.url.schema)

    async def register(
        self, record: Mapping[str, Any], nonce: str, timeout: float
    ) -> Record | None:
        """Write the record, and return it as stored. See `protocol.Records.register`."""
        first = record.get("first_heartbeat")
        rows = await self._run("register", (*_columns(record), first, nonce), timeout)
        return _stored(record, rows)

    async def refresh(self, record: Mapping[str, Any], timeout: float) -> Record | None:
        """Write the record if it exists, and return it as stored; None if it does not exist."""
        return _stored(record, await self._run("refresh", _columns(record), timeout))

    async def remove(self, key: str | int, nonce: str | None, timeout: float) -> bool:
        """Delete the record, and return whether it existed. See `protocol.Records.remove`."""
        rows = await self._run("remove", (records.encode_record(key), nonce), timeout)
        return bool(rows[0][0])

    async def least_loaded(self, role: str, timeout: float) -> Record | None:
        """Return the healthy record of `role` with the lowest load; None if there is none."""
        rows = await self._find("least", role, timeout, limit=1)
        return rows[0].record if rows else None

    async def sample(self, role: str, count: int, timeout: float) -> list[Record]:
        """Return at most `count` healthy records of `role`, drawn at random."""
        rows = await self._find("sample", role, timeout, limit=count)
        return [row.record for row in rows]

    async def healthy(
        self, role: str | None, timeout: float, *, key: str | None = None
    ) -> list[Record]:
        """Return the healthy records of `role` (None: of every role), or the one with id `key`."""
        return [row.record for row in await self._find("healthy", role, timeout, key=key)]

    async def list_all(self, role: str | None, timeout: float) -> list[RecordWithRemaining]:
        """Return the records of `role` (None: of every role), healthy or not."""
        return await self._find("judged", role, timeout)

    async def purge(self, ttls: float, timeout: float) -> int:
        """Delete the records that were silent for more than `ttls` of their own ttls."""
        rows = await self._run("purge_records", (float(ttls),), timeout)
        return int(rows[0][0])

    async def malformed(self, timeout: float) -> list[Record]:
        """Return the records that have a problem."""
        rows = await self._run("find", (None, None, "every", None), timeout)
        bad = []
        for row in rows:
            record = _record(row)
            if record is None:
                bad.append({"id": row["id"]})
            elif records.problems(record, row["clock"]):
                bad.append(record)
        return bad

    async def publish(self, record: Mapping[str, Any], remaining: float, timeout: float) -> bool:
        """Write the record of a leader under its role. See `protocol.Records.publish`."""
        entry = {**record, "id": record["role"]}
        first = record.get("first_heartbeat")
        rows = await self._run("publish", (*_columns(entry), first, float(remaining)), timeout)
        return bool(rows[0][0])

    async def withdraw(self, role: str, token: int, timeout: float) -> bool:
        """Delete the record of a leader, unless a later leader wrote it."""
        parameters = (records.encode_record(role), float(token))
        rows = await self._run("unpublish", parameters, timeout)
        return bool(rows[0][0])

    async def watch(self, role: str) -> AsyncIterator[None]:
        """Yield at once, and whenever a service of `role` appears or disappears.

        Raises:
            StoreUnavailable: The feed broke off. Open a new one.
        """
        feed = PresenceFeed(self._pool, self._registry, role)
        async with contextlib.aclosing(feed.items()) as changes:
            async for _ in changes:
                yield

    async def _find(
        self,
        mode: str,
        role: str | None,
        timeout: float,
        *,
        key: str | None = None,
        limit: int | None = None,
    ) -> list[RecordWithRemaining]:
        identity = None if key is None else records.encode_record(key)
        rows = await self._run("find", (role, identity, mode, limit), timeout)
        return [
            RecordWithRemaining(record, row["remaining"])
            for row in rows
            if (record := _record(row)) is not None
        ]

    async def _run(self, name: str, parameters: Sequence[Any], timeout: float) -> Any:
        try:
            return await self._pool.run(self._calls[name], (self._registry, *parameters), timeout)
        except RequestError as error:
            raise error.error() from None


class PresenceFeed(Feed[None]):
    """Something once, and whenever the ids of the services of a role have changed."""

    def __init__(self, pool: Pool, registry: str, role: str) -> None:
        super().__init__(pool, schema.channel(pool.url.schema))
        self._query = schema.calls(pool.url.schema)["find"]
        self._parameters = (registry, role, None, "every", None)
        self._known: set[str] | None = None

    def relevant(self, payload: str) -> set[str] | None:
        """Return nothing: the notifications of leases are not about services."""
        return set()

    def next_look(self, looked_at: float, longest: float) -> float:
        """Return when to look again: soon, because no notification says that a service is new."""
        return looked_at + min(longest, POLL_INTERVAL)

    async def look(self, connection: Connection, hints: set[str] | None) -> list[None]:
        """Return something if the ids have changed since the last look."""
        rows = await connection.fetch(self.pool.url, self._query, self._parameters, READ_TIMEOUT)
        present = {row["id"] for row in rows}
        before, self._known = self._known, present
        return [] if present == before else [None]


def _columns(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the columns of a record, from `id` to `token`."""
    fields = {name: value for name, value in record.items() if name not in _TIMES}
    role, load, ttl = record.get("role"), record.get("load"), record.get("ttl")
    holder, token = record.get("holder"), record.get("token")
    return (
        records.encode_record(record["id"]),
        records.encode_record(fields),
        role if isinstance(role, str) else None,
        float(load) if is_number(load) else None,
        float(ttl) if is_number(ttl) else None,
        holder if isinstance(holder, str) and "\0" not in holder else None,
        float(token) if is_number(token) else None,
    )


def _stored(record: Mapping[str, Any], rows: Any) -> Record | None:
    """Return the record as it is stored, with the times that the server answered with."""
    if not rows:
        return None
    times = {name: rows[0][name].astimezone(timezone.utc) for name in _TIMES}
    fields = {name: value for name, value in record.items() if name not in _TIMES}
    return {**records.decode_record(records.encode_record(fields)), **times}


def _record(row: Mapping[str, Any]) -> Record | None:
    """Return the record in a row; None if its JSON is damaged."""
    try:
        record = records.decode_record(row["body"])
        key = records.decode_record(row["id"])
    except (TypeError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    record["id"] = key
    for name in _TIMES:
        if isinstance(row[name], datetime):
            record[name] = row[name].astimezone(timezone.utc)
    return record
