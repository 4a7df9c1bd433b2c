"""`RethinkDBStore`: the store's protocol on one table, each swap one query."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from functools import cached_property
from typing import Any

from coord.core import swaps
from coord.core.history import PastTerm, parse
from coord.core.lease import Lease
from coord.core.operations import Answer, Claim, Operation, Release, Renew, Result
from coord.errors import AccessDenied, CoordError, NotSetUp, StoreRefused, StoreUnavailable
from coord.stores.protocol import Announcements, Records
from coord.stores.rethinkdb import errors
from coord.stores.rethinkdb.errors import QueryError, not_set_up
from coord.stores.rethinkdb.pool import Pool
from coord.stores.rethinkdb.queries import bulk
from coord.stores.rethinkdb.queries import results as query_results
from coord.stores.rethinkdb.queries.leases import Queries
from coord.stores.rethinkdb.queries.rows import lease
from coord.stores.rethinkdb.queries.swaps import ClaimShape
from coord.stores.rethinkdb.url import SETTINGS, RethinkURL, parse_url

MANY = 1_000
"""Renewals that are put into one query; more are sent as several at once, each as atomic per row as
one."""
WARM_UP_DELAY = 0.02
"""Seconds after the first claim, and between, in which the queries that will be urgent are built: 2
ms for each."""


class RethinkDBStore:
    """Leases in the table `coord_leases` of a RethinkDB database. Connects when something is first
    asked."""

    def __init__(self, url: RethinkURL | str) -> None:
        self._url = parse_url(url) if isinstance(url, str) else url
        self._pool = Pool(self._url)
        self._prepared = False

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
        """See that the table is there, once, can be read and written, and keeps what it
        acknowledges.

        Raises `NotSetUp` (with the command that mends it), `AccessDenied` or `StoreUnavailable`.
        The table's settings are looked at only where the user may read them."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        table = self._queries.table
        try:
            # No row has this key, so nothing is written; the right to write is needed all the same.
            await self._pool.read(table.get(["coord", "open"]).replace(lambda row: row), timeout)
            try:
                config = await self._pool.read(table.config(), max(until - loop.time(), 0.001))
            except QueryError as trouble:
                if trouble.refused is AccessDenied:
                    return
                raise
        except QueryError as trouble:
            raise trouble.error() from None
        wrong = [
            f"{name} is {config.get(name)}"
            for name, right in SETTINGS.items()
            if config.get(name) != right
        ]
        if wrong:
            what = f"the table {self._url.table} may lose what it has acknowledged ({', '.join(wrong)})"
            raise NotSetUp(not_set_up(what, self._url))

    async def claim(self, claim: Claim, timeout: float) -> Result:
        return await self._claimed(claim, timeout)

    async def release(self, release: Release, timeout: float) -> Result:
        return await self._released(release, timeout)

    def begin(self, operation: Operation, timeout: float) -> Coroutine[Any, Any, Result] | None:
        """protocol.Prompt"""
        if isinstance(operation, Claim):
            sent = self._pool.begin(self._queries.claim(operation), timeout)
            return sent and self._claimed(operation, timeout, sent)
        if isinstance(operation, Release):
            sent = self._pool.begin(self._queries.release(operation), timeout)
            return sent and self._released(operation, timeout, sent)
        if (
            isinstance(operation, Renew)
            and (quick := self._queries.renew_one(operation)) is not None
        ):
            sent = self._pool.begin(quick, timeout)
            return sent and self._renewed(operation, timeout, sent)
        return None

    async def _renewed(
        self, renewal: Renew, timeout: float, sent: Coroutine[Any, Any, Any]
    ) -> Result:
        (result,) = await self._renew([renewal], timeout, sent)
        return result

    async def _claimed(
        self, claim: Claim, timeout: float, sent: Coroutine[Any, Any, Any] | None = None
    ) -> Result:
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        try:
            outcome = await (sent or self._pool.run(self._queries.claim(claim), timeout))
            if query_results.misread(claim, outcome["written"]):
                left = max(until - loop.time(), 0.001)
                outcome = await self._pool.run(self._queries.claim(claim, careful=True), left)
        except (QueryError, StoreRefused) as err:
            return query_results.failure(err)
        if not self._prepared:
            self._prepared = True
            for number, build in enumerate(self._queries.likely(claim), 1):
                loop.call_later(WARM_UP_DELAY * number, build)
        return query_results.swapped(claim.role, outcome)

    async def _released(
        self, release: Release, timeout: float, sent: Coroutine[Any, Any, Any] | None = None
    ) -> Result:
        until = asyncio.get_running_loop().time() + timeout
        try:
            outcome = await (sent or self._pool.run(self._queries.release(release), timeout))
            if query_results.hit_foreign_row(outcome["written"]):
                left = max(until - asyncio.get_running_loop().time(), 0.001)
                outcome = await self._pool.run(self._queries.release(release, careful=True), left)
        except (QueryError, StoreRefused) as err:
            return query_results.failure(err)
        return query_results.swapped(release.role, outcome)

    async def swap_all(self, asked: Sequence[Claim | Release], timeout: float) -> Sequence[Result]:
        """protocol.Bulk"""
        parts = bulk.parts(asked)
        done = await asyncio.gather(*(self._swap_part(kind, some, timeout) for kind, some in parts))
        found = {
            one.role: result
            for (_, some), part in zip(parts, done, strict=True)
            for one, result in zip(some, part, strict=True)
        }
        return [found[one.role] for one in asked]

    async def _swap_part(
        self, kind: bulk.Kind, asked: Sequence[Claim | Release], timeout: float
    ) -> Sequence[Result]:
        loop = asyncio.get_running_loop()
        until, tried, doubtful = loop.time() + timeout, kind != bulk.ALONE, False
        results: dict[str, Result] = {}
        try:
            if tried:
                outcome = await self._pool.run(self._queries.bulk.swaps(kind, asked), timeout)
                results = bulk.results(asked, outcome)
            new = [one for one in asked if one.role not in results and bulk.makes_rows(kind, one)]
            if new and isinstance(kind, ClaimShape):
                outcome = await self._pool.run(
                    self._queries.bulk.first(kind, new), max(until - loop.time(), 0.001)
                )
                again = bulk.results(new, outcome)
                results |= {
                    one.role: query_results.already_applied(one, again[one.role])
                    for one in new
                    if one.role in again
                }
        except QueryError as trouble:
            if trouble.refused is not StoreRefused:
                failure = trouble.failure()
                return [results.get(one.role, failure) for one in asked]
            doubtful = trouble.unknown  # one of them is refused, and the server does not say which
        except StoreRefused as err:
            return [query_results.failure(err)] * len(asked)
        rest = [one for one in asked if one.role not in results]
        found = await asyncio.gather(
            *(self._swap(one, max(until - loop.time(), 0.001)) for one in rest)
        )
        for one, result in zip(rest, found, strict=True):
            results[one.role] = (
                query_results.already_applied(one, result, doubtful=doubtful) if tried else result
            )
        return [results[one.role] for one in asked]

    async def _swap(self, asked: Claim | Release, timeout: float) -> Result:
        return await (
            self._claimed(asked, timeout)
            if isinstance(asked, Claim)
            else self._released(asked, timeout)
        )

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        wanted = None if roles is None else tuple(roles)
        if wanted == ():
            return []
        try:
            rows = await self._pool.read(self._queries.history(wanted), timeout)
        except QueryError as trouble:
            raise trouble.error() from None
        return [term for row in rows for term in parse(str(row["id"]), row.get("history"))]

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        if len(renewals) <= MANY:
            return await self._renew(renewals, timeout)
        parts = [renewals[begin : begin + MANY] for begin in range(0, len(renewals), MANY)]
        done = await asyncio.gather(*(self._renew(part, timeout) for part in parts))
        return [result for part in done for result in part]

    async def _renew(
        self,
        renewals: Sequence[Renew],
        timeout: float,
        sent: Coroutine[Any, Any, Any] | None = None,
    ) -> list[Result]:
        """sent: of one renewal, the quick query for it, which is under way."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        try:
            if len(renewals) == 1 and (
                sent or (quick := self._queries.renew_one(renewals[0])) is not None
            ):
                outcome = await (sent or self._pool.run(quick, timeout))
                if outcome["written"]["replaced"]:
                    return [
                        Answer(True, row)
                        for row in swaps.unchanged_but_renewed(renewals, outcome["now"])
                    ]
                if (
                    outcome["written"]["errors"]
                    and (trouble := errors.from_row(outcome["written"]["first_error"])).unknown
                ):
                    return [trouble.failure()]
            if (batch := self._queries.renew_all(renewals)) is not None:
                written = await self._pool.run(batch, timeout)
                if written["replaced"] == len(renewals):
                    return [
                        Answer(True, row)
                        for row in swaps.unchanged_but_renewed(renewals, time.time())
                    ]
            outcome = await self._pool.run(
                self._queries.renew(renewals), max(until - loop.time(), 0.001)
            )
        except (QueryError, StoreRefused) as err:
            return [query_results.failure(err)] * len(renewals)
        return query_results.renewed(renewals, outcome, after_batch=batch is not None)

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        wanted = None if roles is None else sorted(set(roles))
        if wanted == []:
            return []
        try:
            rows = await self._pool.read(self._queries.read(wanted), timeout)
        except QueryError as trouble:
            raise trouble.error() from None
        return [lease(one["row"], one["now"]) for one in rows if isinstance(one["row"]["id"], str)]

    async def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        try:
            feed = self._pool.feed(
                self._queries.watch(None if roles is None else sorted(set(roles)))
            )
            try:
                async for change in feed:
                    if change.get("error"):
                        raise errors.lost("the server lost part of the feed")
                    row = change.get("new_val")
                    role = (row or change["old_val"])["id"]
                    if isinstance(role, str):  # in a feed of the whole table there may be any key
                        yield lease(row, None) if row else Lease(role)
            finally:
                await feed.aclose()
        except QueryError as trouble:
            raise StoreUnavailable(f"the feed broke off: {trouble.detail}") from None
        except (CoordError, asyncio.CancelledError):
            raise
        except Exception as err:
            raise StoreUnavailable(f"the feed broke off ({type(err).__name__})") from None

    def announcements(self) -> Announcements:
        """Return the announcements in the same database."""
        from coord.stores.rethinkdb.announcements import RethinkDBAnnouncements

        return RethinkDBAnnouncements(self)

    def records(self, table: str) -> Records:
        """Return the service records of `table` in the same database."""
        from coord.stores.rethinkdb.records import RethinkDBRecords

        return RethinkDBRecords(self, table)

    async def close(self) -> None:
        await self._pool.close()

    def abandon(self) -> None:
        self._pool.abandon()
