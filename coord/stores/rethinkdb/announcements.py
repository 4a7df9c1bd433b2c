"""Announcements in RethinkDB: one row each, which expires at `posted_at + ttl` by `r.now()`.

Writes have soft durability. An announcement that a crash of the server loses is posted again, or
would have expired. People may write any row into the table, so every condition here must hold for
rows of any form.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from coord.core import announcements
from coord.core.announcements import MAX_COUNTED, Announcement, counted_roles, key_prefix
from coord.stores.rethinkdb import driver, errors
from coord.stores.rethinkdb.driver import JsonTemplate
from coord.stores.rethinkdb.pool import Pool
from coord.stores.rethinkdb.url import RethinkURL

_AFTER_ALL_KEYS = "\uffff"
"""Sorts after every character of a key, so that `prefix + this` ends the range of a prefix."""


class RethinkDBAnnouncements:
    """The announcements of one database.

    Implements `coord.stores.protocol.Announcements`.

    Args:
        pool: The connections to use, those of the store.
        url: Names the database and the table.
    """

    def __init__(self, pool: Pool, url: RethinkURL) -> None:
        self._pool = pool
        self._url = url

    @cached_property
    def _r(self) -> Any:
        return driver.reql()

    @property
    def _table(self) -> Any:
        return self._r.db(self._url.database).table(self._url.announcements_table)

    async def post(self, notices: Sequence[Announcement], timeout: float) -> dict[str, int]:
        """Write announcements, each in place of the one with the same key.

        Returns:
            The number of candidates that are announced for each counted role.
        """
        if not notices:
            return {}
        roles = counted_roles(notices)
        parameters = {
            "rows": [_row(announcement) for announcement in notices],
            "prefixes": [key_prefix(role) for role in roles],
        }
        report = await self._write(self._insertion.fill(parameters), timeout)
        with errors.decoding_read():
            return dict(zip(roles, map(int, report["candidates"]), strict=True))

    async def withdraw(self, keys: Collection[str], timeout: float) -> None:
        """Delete the announcements with these keys."""
        if keys:
            await self._write(self._table.get_all(*sorted(keys)).delete(durability="soft"), timeout)

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Announcement]:
        """Return the announcements about these roles, or about every role for None."""
        if roles is not None and not roles:
            return []
        r, rows = self._r, self._table.filter(lambda row: self._remaining(row).gt(0))
        if roles is not None:
            names = sorted(set(roles))
            rows = rows.filter(lambda row: r.expr(names).contains(row["role"].default(None)))
        query = rows.map(lambda row: {"row": row, "remaining": self._remaining(row)})
        answers = await self._pool.read(query, timeout)
        with errors.decoding_read():
            decoded = [_announcement(answer["row"], answer["remaining"]) for answer in answers]
        return [announcement for announcement in decoded if announcement is not None]

    async def watch(self) -> AsyncIterator[Announcement]:
        """Yield the urgent announcements: those that exist, then each that is posted.

        Raises:
            StoreUnavailable: The feed broke off. Open a new one.
            StoreRefused: The table is missing, or may not be read.
        """
        # In a feed, `r.now()` is always the time at which the feed was opened. So this leaves out
        # what had expired by then, and passes everything that is posted later.
        urgent = self._table.filter(
            lambda row: self._r.and_(
                row["urgent"].default(False).eq(True), self._remaining(row).gt(0)
            )
        )
        changes = urgent.changes(include_initial=True, squash=False).map(
            lambda change: change.merge(
                {"remaining": self._remaining(change["new_val"].default({}))}
            )
        )
        async with contextlib.aclosing(self._pool.feed(changes, refusals=True)) as feed:
            async for change in feed:
                with errors.decoding_read():
                    row = change.get("new_val")
                    announcement = _announcement(row, change["remaining"]) if row else None
                if announcement is not None:
                    yield announcement

    async def purge(self, timeout: float) -> int:
        """Delete the announcements that have expired, and return how many there were."""

        def is_expired(row: Any) -> Any:
            return self._remaining(row).le(0)

        # The row is judged again where it is deleted: it may have been posted again in between.
        deletion = self._table.filter(is_expired).replace(
            lambda row: self._r.branch(is_expired(row), None, row), durability="soft"
        )
        report = await self._write(deletion, timeout)
        with errors.decoding_read():
            return int(report["deleted"])

    @cached_property
    def _insertion(self) -> JsonTemplate:
        posted_at = {"posted_at": self._r.now()}

        def count_candidates(prefix: Any) -> Any:
            keys = self._table.between(prefix, prefix + _AFTER_ALL_KEYS)
            return keys.limit(MAX_COUNTED).count()

        def insert(parameters: Any) -> Any:
            written = self._table.insert(
                parameters["rows"].map(lambda row: row.merge(posted_at)),
                conflict="replace",
                durability="soft",
            )
            return written.do(
                lambda report: report.merge(
                    {"candidates": parameters["prefixes"].map(count_candidates)}
                )
            )

        return JsonTemplate(insert)

    def _remaining(self, row: Any) -> Any:
        """Return the seconds until the row expires; 0 for a row that is no announcement."""
        r = self._r
        is_valid = r.and_(
            row["ttl"].default(None).type_of().eq("NUMBER"),
            row["posted_at"].default(None).type_of().eq("PTYPE<TIME>"),
        )
        return r.branch(is_valid, row["ttl"] - (r.now() - row["posted_at"]), 0)

    async def _write(self, query: Any, timeout: float) -> Mapping[str, Any]:
        report: Mapping[str, Any] = await self._pool.run(query, timeout)
        with errors.decoding_read():
            if report["errors"]:
                raise errors.from_row(report["first_error"]).error()
        return report


def _row(announcement: Announcement) -> dict[str, Any]:
    return {
        "id": announcement.key,
        "role": announcement.role,
        "kind": announcement.kind,
        "ttl": announcement.ttl,
        "urgent": announcement.urgent,
        "body": announcements.encode_body(announcement.body),
    }


def _announcement(row: Mapping[str, Any], remaining: float) -> Announcement | None:
    """Return the announcement in a row; None if the row holds none."""
    time = row.get("posted_at")
    posted_at = time.get("epoch_time") if isinstance(time, Mapping) else None
    key, role, kind, body, ttl, urgent = (
        row.get(name) for name in ("id", "role", "kind", "body", "ttl", "urgent")
    )
    return announcements.decode_announcement(
        key,
        role,
        kind,
        body,
        ttl=ttl,
        urgent=urgent,
        posted_at=posted_at,
        seconds_left=remaining,
    )
