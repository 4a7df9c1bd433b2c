"""What the queries on service records in RethinkDB are made of. Every condition is total: a row may
hold anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from functools import cached_property
from typing import Any

from coord.core import records
from coord.core.records import Record, RecordWithRemaining
from coord.errors import CoordError, NotSetUp, StoreUnavailable
from coord.stores.rethinkdb import driver, errors
from coord.stores.rethinkdb.errors import QueryError
from coord.stores.rethinkdb.store import RethinkDBStore

INDEX = "role"


class Terms:
    """On one table of one database. Nothing here talks to a server."""

    def __init__(self, database: str, table: str) -> None:
        self._database, self._name = database, table

    @cached_property
    def _r(self) -> Any:
        return driver.reql()

    @property
    def _table(self) -> Any:
        return self._r.db(self._database).table(self._name)

    def _kind(self, row: Any, name: str) -> Any:
        return row[name].default(None).type_of()

    def _can_be_judged(self, row: Any) -> Any:
        return self._r.and_(
            self._kind(row, "ttl").eq("NUMBER"),
            row["ttl"].gt(0),
            self._kind(row, "last_heartbeat").eq("PTYPE<TIME>"),
        )

    def _remaining(self, row: Any) -> Any:
        return row["ttl"] - (self._r.now() - row["last_heartbeat"])

    def _is_published(self, row: Any) -> Any:
        return self._r.and_(
            self._kind(row, "holder").eq("STRING"), self._kind(row, "token").eq("NUMBER")
        )

    def _healthy(self, role: str | None, key: str | None = None) -> Any:
        rows = self._table
        if key is not None:
            rows = rows.get_all(key)
        elif role is not None:
            rows = rows.get_all(role, index=INDEX)
        return rows.filter(
            lambda row: self._r.branch(self._can_be_judged(row), self._remaining(row).gt(0), False)
        )

    def _written(self, record: Mapping[str, Any], old: Any, ago: float = 0) -> Any:
        r = self._r
        given = {name: value for name, value in record.items() if name != "first_heartbeat"}
        before = record.get("first_heartbeat")
        else_first = r.now() if before is None else r.json(records.encode_record(before))
        known = self._kind(old, "first_heartbeat").eq("PTYPE<TIME>")
        first = r.branch(known, old["first_heartbeat"], else_first)
        # As one text: deeper than the driver lets us nest, and quicker to make.
        return r.json(records.encode_record(given)).merge(
            {"first_heartbeat": first, "last_heartbeat": r.now() - ago}
        )


# -- Service records in RethinkDB: in the ancestor's own table and shape, so that its clients find
# ours, and ours theirs. Health is judged by `r.now()` in the query, the clock of the server that
# the query reached. Rows that anybody wrote may
# hold anything: every condition here is total. Lookups go by the index `role`; one that is missing
# is made.
#

SERVICES = "services"


class RethinkDBRecords(Terms):
    """The records of one table of the database that a `RethinkDBStore` is for; over its
    connection."""

    def __init__(self, store: RethinkDBStore, table: str) -> None:
        super().__init__(store._url.database, table)
        self._pool, self._url = store._pool, store._url

    # -- writing
    # -----------------------------------------------------------------------------------------------

    async def register(
        self, record: Mapping[str, Any], nonce: str, timeout: float
    ) -> Record | None:
        row = await self._replace(
            record["id"],
            lambda row, old: self._r.branch(
                old[records.TOMBSTONE].default(None).eq(nonce), row, self._written(record, old)
            ),
            timeout,
        )
        return None if row is None or records.TOMBSTONE in row else row

    async def keep(self, record: Mapping[str, Any], timeout: float) -> Record | None:
        # Soft: a heartbeat that a crash of the server takes with it is followed by another.
        row = await self._replace(
            record["id"],
            lambda row, old: self._r.branch(
                self._r.or_(row.eq(None), old.has_fields(records.TOMBSTONE)),
                row,
                self._written(record, old),
            ),
            timeout,
            durability="soft",
        )
        return None if row is None or records.TOMBSTONE in row else row

    async def remove(self, key: str | int, nonce: str | None, timeout: float) -> bool:
        r = self._r

        def removed(row: Any) -> Any:
            if nonce is None:
                return None
            # To the ancestor it is a record that ran out just now, of no role: not found, and
            # purged in its time.
            ttl = r.branch(self._can_be_judged(row.default({})), row["ttl"], 60)
            return {
                "id": key,
                records.TOMBSTONE: nonce,
                "ttl": ttl,
                "last_heartbeat": r.now() - ttl,
            }

        written = self._table.get(key).replace(removed, return_changes="always")
        old = (await self._outcome(written, timeout))["old"]
        return old is not None and records.TOMBSTONE not in old

    async def purge(self, ttls: float, timeout: float) -> int:
        r = self._r

        def stale(row: Any) -> Any:
            age = r.now() - row["last_heartbeat"]
            return r.branch(self._can_be_judged(row), age.gt(row["ttl"] * ttls), False)

        # Judged again where it is deleted: it may have been heard of since it was found.
        gone = self._table.filter(stale).replace(lambda row: r.branch(stale(row), None, row))
        result = await self._run(gone, timeout)
        if result["errors"]:
            raise errors.from_row(result["first_error"]).error()
        return int(result["deleted"])

    async def publish(self, record: Mapping[str, Any], remaining: float, timeout: float) -> bool:
        r = self._r

        def may(old: Any) -> Any:
            alive = r.branch(self._can_be_judged(old), self._remaining(old).gt(0), False)
            return r.branch(self._is_published(old), old["token"].le(record["token"]), alive.not_())

        said = {**record, "id": record["role"]}
        row = await self._replace(
            record["role"],
            lambda row, old: r.branch(
                may(old), self._written(said, old, record["ttl"] - remaining), row
            ),
            timeout,
        )
        return (
            row is not None
            and row.get("token") == record["token"]
            and row.get("holder") == record["holder"]
        )

    async def withdraw(self, role: str, token: int, timeout: float) -> bool:
        r = self._r

        def withdrawn(row: Any) -> Any:
            ours = r.branch(self._is_published(row.default({})), row["token"].le(token), False)
            return r.branch(ours, None, row)

        found = await self._outcome(
            self._table.get(role).replace(withdrawn, return_changes="always"), timeout
        )
        return found["old"] is not None and found["new"] is None

    # -- reading
    # -----------------------------------------------------------------------------------------------

    async def least(self, role: str, timeout: float) -> Record | None:
        r = self._r

        def by_load(row: Any) -> Any:
            return r.branch(
                row["load"].default(None).type_of().eq("NUMBER"), [0, row["load"]], [1, 0]
            )

        found: Record | None = await self._look(
            self._healthy(role).min(by_load).default(None), timeout
        )
        return found

    async def sample(self, role: str, count: int, timeout: float) -> list[Record]:
        return list(await self._look(self._healthy(role).sample(count), timeout))

    async def healthy(
        self, role: str | None, timeout: float, *, key: str | None = None
    ) -> list[Record]:
        return list(await self._look(self._healthy(role, key), timeout))

    async def roster(self, role: str | None, timeout: float) -> list[RecordWithRemaining]:
        rows = self._table if role is None else self._table.get_all(role, index=INDEX)
        judged = rows.filter(lambda row: self._can_be_judged(row))  # noqa: PLW0108 # the driver counts self in
        seen = await self._look(
            judged.map(lambda row: {"row": row, "left": self._remaining(row)}), timeout
        )
        return [RecordWithRemaining(one["row"], one["left"]) for one in seen]

    async def bad(self, timeout: float) -> list[Record]:
        r = self._r

        def has_a_problem(row: Any) -> Any:
            def other_than(name: str, kind: str) -> Any:
                return r.and_(row.has_fields(name), self._kind(row, name).ne(kind))

            ahead = r.branch(
                self._can_be_judged(row), self._remaining(row).gt(row["ttl"] * 2), True
            )
            return r.and_(
                row.has_fields(records.TOMBSTONE).not_(),
                r.or_(ahead, other_than("load", "NUMBER"), other_than("role", "STRING")),
            )

        return list(await self._look(self._table.filter(has_a_problem), timeout))

    async def watch(self, role: str) -> AsyncIterator[None]:
        # The projection leaves the heartbeats out: a row whose id stays is no change.
        feed = self._pool.feed(
            self._table.get_all(role, index=INDEX).pluck("id").changes(include_initial=True)
        )
        try:
            async for change in feed:
                if change.get("error"):
                    raise errors.lost("the server lost part of the feed")
                yield
        except QueryError as trouble:
            raise StoreUnavailable(f"the feed broke off: {trouble.detail}") from None
        except (CoordError, asyncio.CancelledError):
            raise
        except asyncio.TimeoutError:
            raise StoreUnavailable("the feed could not be opened in time") from None
        finally:
            await feed.aclose()

    # -- asking
    # ------------------------------------------------------------------------------------------------

    async def _replace(
        self, key: str | int, change: Any, timeout: float, **options: Any
    ) -> Record | None:
        """`change(row, old)`, where `old` is an object even when there is no row; the row after
        it."""
        written = self._table.get(key).replace(
            lambda row: change(row, row.default({})), return_changes="always", **options
        )
        row: Record | None = (await self._outcome(written, timeout))["new"]
        return row

    async def _outcome(self, written: Any, timeout: float) -> dict[str, Any]:
        result = await self._run(written, timeout)
        if result["errors"]:
            raise errors.from_row(result["first_error"]).error()
        change = result["changes"][0]
        return {"old": change["old_val"], "new": change["new_val"]}

    async def _run(self, term: Any, timeout: float) -> Any:
        try:
            return records.decode(await self._pool.run(term, timeout))
        except QueryError as trouble:
            raise self._error(trouble) from None

    def _error(self, trouble: QueryError) -> CoordError:
        if (
            trouble.refused is NotSetUp
            and self._name != SERVICES
            and "does not exist" in trouble.detail
        ):
            # `coord init` makes the usual table only: it cannot know the names of others.
            return NotSetUp(
                f"there is no table {self._name} in {self._url.redacted}: create it once, by hand"
            )
        return trouble.error()

    async def _look(self, term: Any, timeout: float) -> Any:
        """A read by the index, which is made when a table was left without it (hazard 8)."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        try:
            return records.decode(await self._pool.run(term, timeout))
        except QueryError as trouble:
            if "ndex" not in trouble.detail:
                raise self._error(trouble) from None
        await self._make_index(max(until - loop.time(), 0.001))
        return await self._run(term, max(until - loop.time(), 0.001))

    async def _make_index(self, timeout: float) -> None:
        """Make the index, or wait for whoever makes it: within a table, `index_create` is
        exclusive."""
        made = self._r.branch(
            self._table.index_list().contains(INDEX),
            None,
            self._table.index_create(INDEX).default(None),
        )
        try:
            await self._pool.run(made, timeout)
        except QueryError as trouble:
            if "already exists" not in trouble.detail:
                raise trouble.error() from None
        await self._run(self._table.index_wait(INDEX), timeout)
