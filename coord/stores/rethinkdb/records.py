"""Service records in RethinkDB, in doublethink's own table and form.

Clients of doublethink find the services of coord, and the other way round. `r.now()` decides what
is healthy: the clock of the server that the query reached. People may write any row into the table,
so every condition here must hold for rows of any form. Lookups use the index `role`, and create it
if it is missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from functools import cached_property
from typing import Any

from coord.core import records
from coord.core.records import Record, RecordWithRemaining
from coord.errors import CoordError, NotSetUp, command
from coord.stores.failures import RequestError
from coord.stores.rethinkdb import driver, errors
from coord.stores.rethinkdb.pool import Deadline, Pool
from coord.stores.rethinkdb.url import SERVICES_TABLE, RethinkURL

INDEX = "role"
"""The index of doublethink: by the field `role`."""
TOMBSTONE_TTL = 60
"""Seconds of the ttl of a tombstone whose record had no usable ttl."""


class _Terms:
    """The ReQL terms that queries on one table are made of. Nothing here talks to a server."""

    def __init__(self, database: str, table: str) -> None:
        self._database = database
        self._name = table

    @cached_property
    def _r(self) -> Any:
        return driver.reql()

    @property
    def _table(self) -> Any:
        return self._r.db(self._database).table(self._name)

    def _type_of(self, row: Any, name: str) -> Any:
        return row[name].default(None).type_of()

    def _has_heartbeat(self, row: Any) -> Any:
        """Whether the row says when it expires."""
        return self._r.and_(
            self._type_of(row, "ttl").eq("NUMBER"),
            row["ttl"].gt(0),
            self._type_of(row, "last_heartbeat").eq("PTYPE<TIME>"),
        )

    def _remaining(self, row: Any) -> Any:
        """The seconds until the row expires."""
        return row["ttl"] - (self._r.now() - row["last_heartbeat"])

    def _is_healthy(self, row: Any) -> Any:
        return self._r.branch(self._has_heartbeat(row), self._remaining(row).gt(0), False)

    def _is_leader(self, row: Any) -> Any:
        """Whether the row was written by `publish`."""
        return self._r.and_(
            self._type_of(row, "holder").eq("STRING"), self._type_of(row, "token").eq("NUMBER")
        )

    def _rows(self, role: str | None) -> Any:
        return self._table if role is None else self._table.get_all(role, index=INDEX)

    def _healthy_rows(self, role: str | None, key: str | None = None) -> Any:
        rows = self._rows(role) if key is None else self._table.get_all(key)
        return rows.filter(lambda row: self._is_healthy(row))  # noqa: PLW0108 # the driver counts self in

    def _row(self, record: Mapping[str, Any], old: Any, age: float = 0) -> Any:
        """The row to store for a record.

        Args:
            record: What the service says.
            old: The row that is stored, or an empty object.
            age: Seconds since its last heartbeat.
        """
        r = self._r
        fields = {name: value for name, value in record.items() if name != "first_heartbeat"}
        first = record.get("first_heartbeat")
        if_new = r.now() if first is None else r.json(records.encode_record(first))
        is_known = self._type_of(old, "first_heartbeat").eq("PTYPE<TIME>")
        # The record goes as one text: the driver limits how deep objects may be nested, and takes
        # longer to encode them.
        return r.json(records.encode_record(fields)).merge(
            {
                "first_heartbeat": r.branch(is_known, old["first_heartbeat"], if_new),
                "last_heartbeat": r.now() - age,
            }
        )


class RethinkDBRecords(_Terms):
    """The service records in one table.

    Implements `coord.stores.protocol.Records`.

    Args:
        pool: The connections to use, those of the store.
        url: Names the database.
        table: The name of the table.
    """

    def __init__(self, pool: Pool, url: RethinkURL, table: str) -> None:
        super().__init__(url.database, table)
        self._pool = pool
        self._url = url

    async def register(
        self, record: Mapping[str, Any], nonce: str, timeout: float
    ) -> Record | None:
        """Write a record, whether it exists or not.

        Returns:
            The record as stored; None if a `remove` with this `nonce` came first.
        """

        def replacement(row: Any, old: Any) -> Any:
            was_removed = old[records.TOMBSTONE].default(None).eq(nonce)
            return self._r.branch(was_removed, row, self._row(record, old))

        return _living(await self._replace(record["id"], replacement, timeout))

    async def refresh(self, record: Mapping[str, Any], timeout: float) -> Record | None:
        """Write a record if it exists. Returns it as stored; None if it does not exist."""

        def replacement(row: Any, old: Any) -> Any:
            is_missing = self._r.or_(row.eq(None), old.has_fields(records.TOMBSTONE))
            return self._r.branch(is_missing, row, self._row(record, old))

        # Soft durability: a heartbeat that a crash of the server loses is followed by another.
        row = await self._replace(record["id"], replacement, timeout, durability="soft")
        return _living(row)

    async def remove(self, key: str | int, nonce: str | None, timeout: float) -> bool:
        """Delete a record, and return whether there was one.

        With a `nonce`, a tombstone stays that rejects a late registration with that nonce.
        """
        r = self._r

        def tombstone(row: Any) -> Any:
            if nonce is None:
                return None
            # For doublethink this is a record without a role that has just expired. It does not
            # find it, and purges it in time.
            ttl = r.branch(self._has_heartbeat(row.default({})), row["ttl"], TOMBSTONE_TTL)
            heartbeat = r.now() - ttl
            return {"id": key, records.TOMBSTONE: nonce, "ttl": ttl, "last_heartbeat": heartbeat}

        write = self._table.get(key).replace(tombstone, return_changes="always")
        old, _ = await self._change(write, timeout)
        return _living(old) is not None

    async def purge(self, ttls: float, timeout: float) -> int:
        """Delete records without a heartbeat for more than `ttls` of their own ttls; count them."""
        r = self._r

        def is_stale(row: Any) -> Any:
            age = r.now() - row["last_heartbeat"]
            return r.branch(self._has_heartbeat(row), age.gt(row["ttl"] * ttls), False)

        # The row is judged again where it is deleted: a heartbeat may have come in between.
        deletion = self._table.filter(is_stale).replace(
            lambda row: r.branch(is_stale(row), None, row)
        )
        report = await self._run(deletion, timeout)
        with errors.decoding_read():
            _raise_error_of(report)
            return int(report["deleted"])

    async def publish(self, record: Mapping[str, Any], remaining: float, timeout: float) -> bool:
        """Write the record of a leader, under its role as the id.

        It does not replace a healthy record that is no leader's, nor one with a higher token.

        Args:
            record: The leader's record, with `role`, `holder`, `token` and `ttl`.
            remaining: Seconds until the lease expires.
            timeout: Seconds that it may take.

        Returns:
            Whether it was written.
        """
        r = self._r
        entry = {**record, "id": record["role"]}

        def replacement(row: Any, old: Any) -> Any:
            may_write = r.branch(
                self._is_leader(old), old["token"].le(record["token"]), self._is_healthy(old).not_()
            )
            return r.branch(may_write, self._row(entry, old, record["ttl"] - remaining), row)

        row = await self._replace(record["role"], replacement, timeout)
        return row is not None and all(
            row.get(name) == record[name] for name in ("token", "holder")
        )

    async def withdraw(self, role: str, token: int, timeout: float) -> bool:
        """Delete the leader's record of a role if its token is `token` or lower."""
        r = self._r

        def replacement(row: Any) -> Any:
            may_delete = r.branch(self._is_leader(row.default({})), row["token"].le(token), False)
            return r.branch(may_delete, None, row)

        write = self._table.get(role).replace(replacement, return_changes="always")
        old, new = await self._change(write, timeout)
        return old is not None and new is None

    async def least_loaded(self, role: str, timeout: float) -> Record | None:
        """Return the healthy record of a role with the lowest load."""
        r = self._r

        def by_load(row: Any) -> Any:
            is_number = self._type_of(row, "load").eq("NUMBER")
            return r.branch(is_number, [0, row["load"]], [1, 0])

        query = self._healthy_rows(role).min(by_load).default(None)
        return _record(await self._look_up(query, timeout))

    async def sample(self, role: str, count: int, timeout: float) -> list[Record]:
        """Return up to `count` healthy records of a role, chosen at random."""
        return _records(await self._look_up(self._healthy_rows(role).sample(count), timeout))

    async def healthy(
        self, role: str | None, timeout: float, *, key: str | None = None
    ) -> list[Record]:
        """Return the healthy records of a role, or of every role, or only the one with this id."""
        return _records(await self._look_up(self._healthy_rows(role, key), timeout))

    async def list_all(self, role: str | None, timeout: float) -> list[RecordWithRemaining]:
        """Return all records of a role, or of every role, that say when they expire."""
        rows = self._rows(role).filter(lambda row: self._has_heartbeat(row))  # noqa: PLW0108 # the driver counts self in
        query = rows.map(lambda row: {"row": row, "remaining": self._remaining(row)})
        answers = await self._look_up(query, timeout)
        with errors.decoding_read():
            return [
                RecordWithRemaining(dict(answer["row"]), float(answer["remaining"]))
                for answer in answers
            ]

    async def malformed(self, timeout: float) -> list[Record]:
        """Return the records that have a problem; see `coord.core.records.problems`."""
        r = self._r

        def has_problem(row: Any) -> Any:
            def has_wrong_type(name: str, expected: str) -> Any:
                return r.and_(row.has_fields(name), self._type_of(row, name).ne(expected))

            is_in_future = self._remaining(row).gt(row["ttl"] * 2)
            return r.and_(
                row.has_fields(records.TOMBSTONE).not_(),
                r.or_(
                    r.branch(self._has_heartbeat(row), is_in_future, True),
                    has_wrong_type("load", "NUMBER"),
                    has_wrong_type("role", "STRING"),
                ),
            )

        return _records(await self._look_up(self._table.filter(has_problem), timeout))

    async def watch(self, role: str) -> AsyncIterator[None]:
        """Yield when records of a role come or go, and once at the start.

        Raises:
            StoreUnavailable: The feed broke off. Open a new one.
        """
        yield  # a role without records has no initial rows that would tell of the start
        # The projection to the id hides heartbeats: a row whose id stays does not change.
        changes = self._rows(role).pluck("id").changes(include_initial=True)
        async with contextlib.aclosing(self._pool.feed(changes)) as feed:
            async for _ in feed:
                yield

    async def _replace(
        self, key: str | int, replacement: Any, timeout: float, **options: Any
    ) -> Record | None:
        """Put one row through `replacement(row, old)`, and return the row after it.

        `old` is the row, or an empty object where there is none.
        """
        write = self._table.get(key).replace(
            lambda row: replacement(row, row.default({})), return_changes="always", **options
        )
        _, new = await self._change(write, timeout)
        return new

    async def _change(self, write: Any, timeout: float) -> tuple[Record | None, Record | None]:
        """Return the row before and after a write of one row."""
        report = await self._run(write, timeout)
        with errors.decoding_read():
            _raise_error_of(report)
            change = report["changes"][0]
            return _record(change["old_val"]), _record(change["new_val"])

    async def _run(self, term: Any, timeout: float) -> Any:
        try:
            answer = await self._pool.query(term, timeout)
            with errors.decoding():
                return records.decode(answer)
        except RequestError as error:
            raise self._explained(error) from None

    def _explained(self, error: RequestError) -> CoordError:
        is_missing = error.refusal is NotSetUp and "does not exist" in error.detail
        if is_missing and self._name != SERVICES_TABLE:
            return NotSetUp(
                f"there is no table {self._name} in {self._url.redacted}: run "
                f"`{command(f'init --service-table {self._name} --url', self._url.redacted)}`"
            )
        return error.error()

    async def _look_up(self, term: Any, timeout: float) -> Any:
        """Read by the index, and create the index if the table lacks it (hazard 8)."""
        deadline = Deadline(timeout)
        try:
            answer = await self._pool.query(term, timeout)
            with errors.decoding():
                return records.decode(answer)
        except RequestError as error:
            if "ndex" not in error.detail:
                raise self._explained(error) from None
        await self._create_index(deadline)
        return await self._run(term, deadline.left())

    async def _create_index(self, deadline: Deadline) -> None:
        """Create the index, or wait until another client has done so."""
        creation = self._r.branch(
            self._table.index_list().contains(INDEX),
            None,
            self._table.index_create(INDEX).default(None),
        )
        try:
            await self._pool.query(creation, deadline.left())
        except RequestError as error:
            # Only one `index_create` of a table succeeds.
            if "already exists" not in error.detail:
                raise error.error() from None
        await self._run(self._table.index_wait(INDEX), deadline.left())


def _raise_error_of(report: Mapping[str, Any]) -> None:
    """Raise what the server's report on a write says about a row that it could not write."""
    if report["errors"]:
        raise errors.from_row(report["first_error"]).error()


def _record(answer: Any) -> Record | None:
    """Return the record in an answer.

    Raises:
        StoreUnavailable: The answer is not a record.
    """
    with errors.decoding_read():
        return None if answer is None else dict(answer)


def _records(answer: Any) -> list[Record]:
    """Do the same as `_record`, for a list of them."""
    with errors.decoding_read():
        return [dict(record) for record in answer]


def _living(row: Record | None) -> Record | None:
    """Return the record in a row; None for a tombstone."""
    return None if row is None or records.TOMBSTONE in row else row
