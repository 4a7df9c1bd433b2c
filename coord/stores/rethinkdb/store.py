"""`RethinkDBStore`: the store's protocol on one table, each swap one query."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from functools import cached_property
from typing import Any

from coord.errors import AccessDenied, CoordError, NotSetUp, StoreRefused, StoreUnavailable
from coord.lease import Lease
from coord.operations import Answer, Claim, Failure, Release, Renew, Result
from coord.stores.rethinkdb import errors
from coord.stores.rethinkdb.connection import Pool
from coord.stores.rethinkdb.errors import Trouble, not_set_up
from coord.stores.rethinkdb.queries import Queries, lease
from coord.stores.rethinkdb.url import RethinkURL, parse_url

MANY = 500
"""Renewals that are put into one query; more are sent as several at once, each as atomic per row as one."""


class RethinkDBStore:
    """Leases in the table `coord_leases` of a RethinkDB database. Connects when something is first asked."""

    def __init__(self, url: RethinkURL | str) -> None:
        self._url = parse_url(url) if isinstance(url, str) else url
        self._pool = Pool(self._url)

    def __repr__(self) -> str:
        return f"<RethinkDBStore {self.url}>"

    @property
    def url(self) -> str:
        return self._url.redacted

    @property
    def max_clock_skew(self) -> float | None:
        return self._url.max_clock_skew

    @cached_property
    def _queries(self) -> Queries:
        return Queries(self._url)

    async def open(self, timeout: float) -> None:
        """See that the table is there, once, can be read and written, and keeps what it acknowledges.

        Raises `NotSetUp` (with the command that mends it), `AccessDenied` or `StoreUnavailable`. The table's settings
        are looked at only where the user may read them.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        table = self._queries.table
        try:
            # No row has this key, so nothing is written; the right to write is needed all the same.
            await self._pool.read(table.get(["coord", "open"]).replace(lambda row: row), timeout)
            try:
                config = await self._pool.read(table.config(), max(until - loop.time(), 0.001))
            except Trouble as trouble:
                if trouble.refused is AccessDenied:
                    return
                raise
        except Trouble as trouble:
            raise trouble.error() from None
        wrong = [f"{name} is {config.get(name)}" for name, right in SETTINGS.items() if config.get(name) != right]
        if wrong:
            what = f"the table {self._url.table} may lose what it has acknowledged ({', '.join(wrong)})"
            raise NotSetUp(not_set_up(what, self._url))

    async def claim(self, claim: Claim, timeout: float) -> Result:
        return await self._swap(claim.role, lambda: self._queries.claim(claim), timeout)

    async def release(self, release: Release, timeout: float) -> Result:
        return await self._swap(release.role, lambda: self._queries.release(release), timeout)

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        parts = [renewals[begin : begin + MANY] for begin in range(0, len(renewals), MANY)]
        done = await asyncio.gather(*(self._renew(part, timeout) for part in parts))
        return [result for part in done for result in part]

    async def _renew(self, renewals: Sequence[Renew], timeout: float) -> list[Result]:
        try:
            outcome = await self._pool.run(self._queries.renew(renewals), timeout)
        except (Trouble, StoreRefused) as err:
            return [_failure(err)] * len(renewals)
        rows = {one["row"]["id"]: _result(one["row"]["id"], one) for one in outcome["rows"] if one["row"]}
        if outcome["errors"] and not any(one["error"] for one in outcome["rows"]):
            # Some row could not be written, and the server does not say which: no answer is trusted.
            return [errors.from_row(outcome["first_error"]).failure()] * len(renewals)
        return [rows.get(one.role, Answer(False, Lease(one.role))) for one in renewals]

    async def _swap(self, role: str, term: Callable[[], Any], timeout: float) -> Result:
        try:
            outcome = await self._pool.run(term(), timeout)
        except (Trouble, StoreRefused) as err:
            return _failure(err)
        if outcome["errors"]:
            return errors.from_row(outcome["first_error"]).failure()
        return _result(role, outcome["rows"][0])

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        wanted = None if roles is None else sorted(set(roles))
        if wanted == []:
            return []
        try:
            rows = await self._pool.read(self._queries.read(wanted), timeout)
        except Trouble as trouble:
            raise trouble.error() from None
        return [lease(row) for row in rows if isinstance(row["id"], str)]

    async def watch(self, roles: Collection[str]) -> AsyncIterator[Lease]:
        try:
            feed = self._pool.feed(self._queries.watch(sorted(set(roles))))
            try:
                async for change in feed:
                    if change.get("error"):
                        raise errors.lost("the server lost part of the feed")
                    row = change.get("new_val")
                    yield lease(row) if row else Lease(change["old_val"]["id"])
            finally:
                await feed.aclose()
        except Trouble as trouble:
            raise StoreUnavailable(f"the feed broke off: {trouble.detail}") from None
        except (CoordError, asyncio.CancelledError):
            raise
        except Exception as err:
            raise StoreUnavailable(f"the feed broke off ({type(err).__name__})") from None

    async def close(self) -> None:
        await self._pool.close()

    def abandon(self) -> None:
        self._pool.abandon()


SETTINGS = {"write_acks": "majority", "durability": "hard"}
"""Without these, a server that is killed takes tokens with it that it had acknowledged."""


def _failure(err: Trouble | StoreRefused) -> Failure:
    return err.failure() if isinstance(err, Trouble) else Failure(unknown=False, detail=str(err), permanent=True)


def _result(role: str, one: dict[str, Any]) -> Result:
    if one["error"]:
        return errors.from_row(one["error"]).failure()
    row = one["row"]
    return Answer(one["changed"], lease(row) if row else Lease(role))
