"""The board in RethinkDB: the table `coord_board`, where notices run out at `posted_at + ttl` by
`r.now()`.

Writes are soft: what a crash of the server takes with it is posted again, or runs out unread. Rows
that anybody wrote
may hold anything: every condition here is total.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from coord.core import announcements
from coord.core.announcements import MAX_COUNTED, Announcement, counted_roles, key_prefix
from coord.errors import CoordError, StoreUnavailable
from coord.stores.rethinkdb import driver, errors
from coord.stores.rethinkdb.driver import JsonTemplate
from coord.stores.rethinkdb.errors import QueryError
from coord.stores.rethinkdb.store import RethinkDBStore

_LAST = "\uffff"
"""After every key that begins as a role's candidates do."""


class RethinkDBAnnouncements:
    """The board of the database that a `RethinkDBStore` is for; over its connection."""

    def __init__(self, store: RethinkDBStore) -> None:
        self._pool, self._url = store._pool, store._url

    @cached_property
    def _r(self) -> Any:
        return driver.reql()

    @property
    def _table(self) -> Any:
        return self._r.db(self._url.database).table(self._url.board)

    @cached_property
    def _insertion(self) -> JsonTemplate:
        now = {"posted_at": self._r.now()}

        def waiting(begin: Any) -> Any:
            return self._table.between(begin, begin + _LAST).limit(MAX_COUNTED).count()

        def insertion(asked: Any) -> Any:
            posted = self._table.insert(
                asked["notices"].map(lambda one: one.merge(now)),
                conflict="replace",
                durability="soft",
            )
            return posted.do(lambda report: report.merge({"waiting": asked["places"].map(waiting)}))

        return JsonTemplate(insertion)

    async def post(self, notices: Sequence[Announcement], timeout: float) -> dict[str, int]:
        if not notices:
            return {}
        roles = counted_roles(notices)
        asked = {
            "notices": [_row(one) for one in notices],
            "places": [key_prefix(role) for role in roles],
        }
        report = await self._written(self._insertion.fill(asked), timeout)
        return dict(zip(roles, report["waiting"], strict=True))

    async def withdraw(self, keys: Collection[str], timeout: float) -> None:
        if keys:
            await self._written(
                self._table.get_all(*sorted(keys)).delete(durability="soft"), timeout
            )

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Announcement]:
        if roles is not None and not roles:
            return []
        r, found = self._r, self._table.filter(lambda row: self._left(row).gt(0))
        if roles is not None:
            wanted = sorted(set(roles))
            found = found.filter(lambda row: r.expr(wanted).contains(row["role"].default(None)))
        query = found.map(lambda row: {"row": row, "left": self._left(row)})
        try:
            answer = await self._pool.read(query, timeout)
        except QueryError as trouble:
            raise trouble.error() from None
        return [one for each in answer if (one := _notice(each["row"], each["left"])) is not None]

    async def watch(self) -> AsyncIterator[Announcement]:
        # `r.now()` is when the feed began, all along: of the rows that were there, it leaves out
        # what had run out.
        loud = self._table.filter(
            lambda row: self._r.and_(row["loud"].default(False).eq(True), self._left(row).gt(0))
        )
        changes = loud.changes(include_initial=True, squash=False)
        told = changes.map(lambda one: one.merge({"left": self._left(one["new_val"].default({}))}))
        try:
            feed = self._pool.feed(told)
            try:
                async for change in feed:
                    if change.get("error"):
                        raise errors.lost("the server lost part of the feed")
                    if (row := change.get("new_val")) and (
                        one := _notice(row, change["left"])
                    ) is not None:
                        yield one
            finally:
                await feed.aclose()
        except QueryError as trouble:
            if trouble.refused is not None:
                raise trouble.error() from None
            raise StoreUnavailable(f"the feed broke off: {trouble.detail}") from None
        except (CoordError, asyncio.CancelledError):
            raise
        except Exception as err:
            raise StoreUnavailable(f"the feed broke off ({type(err).__name__})") from None

    async def purge(self, timeout: float) -> int:
        # Judged again where it is deleted: it may have been posted anew since it was found.
        def gone(row: Any) -> Any:
            return self._left(row).le(0)

        deleted = self._table.filter(gone).replace(
            lambda row: self._r.branch(gone(row), None, row), durability="soft"
        )
        return int((await self._written(deleted, timeout))["deleted"])

    # -- inside
    # ------------------------------------------------------------------------------------------------

    def _left(self, row: Any) -> Any:
        """Seconds until it runs out; 0 for what is no notice."""
        r = self._r
        kinds = r.and_(
            row["ttl"].default(None).type_of().eq("NUMBER"),
            row["posted_at"].default(None).type_of().eq("PTYPE<TIME>"),
        )
        return r.branch(kinds, row["ttl"] - (r.now() - row["posted_at"]), 0)

    async def _written(self, query: Any, timeout: float) -> Mapping[str, Any]:
        try:
            report: Mapping[str, Any] = await self._pool.run(query, timeout)
        except QueryError as trouble:
            raise trouble.error() from None
        if report["errors"]:
            raise errors.from_row(report["first_error"]).error()
        return report


def _row(one: Announcement) -> dict[str, Any]:
    fields = {"role": one.role, "kind": one.kind, "ttl": one.ttl, "loud": one.urgent}
    return {"id": one.key, **fields, "body": announcements.encode_body(one.body)}


def _notice(row: Mapping[str, Any], left: float) -> Announcement | None:
    at = row.get("posted_at")
    posted_at = at.get("epoch_time") if isinstance(at, Mapping) else None
    key, role, kind, body, ttl, loud = (
        row.get(name) for name in ("id", "role", "kind", "body", "ttl", "loud")
    )
    return announcements.decode_announcement(key, role, kind, body, ttl, loud, posted_at, left)
