"""`RethinkDBStore`: leases in one table of a RethinkDB database. Each swap is one query."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from functools import cached_property
from typing import Any

from coord.core import swaps
from coord.core.history import PastTerm, parse
from coord.core.kept import Kept
from coord.core.lease import Lease
from coord.core.operations import Answer, Claim, Operation, Override, Release, Renew, Result, Retire
from coord.errors import StoreRefused
from coord.stores.failures import RequestError
from coord.stores.rethinkdb import errors
from coord.stores.rethinkdb.announcements import RethinkDBAnnouncements
from coord.stores.rethinkdb.pool import Deadline, Pool
from coord.stores.rethinkdb.queries import bulk
from coord.stores.rethinkdb.queries import results as query_results
from coord.stores.rethinkdb.queries.leases import Queries, shared_queries
from coord.stores.rethinkdb.queries.rows import is_retired, kept, lease
from coord.stores.rethinkdb.queries.swaps import ClaimShape
from coord.stores.rethinkdb.records import RethinkDBRecords
from coord.stores.rethinkdb.settings import TableSettings
from coord.stores.rethinkdb.url import RethinkURL, parse_url

MAX_RENEWALS = 1_000
"""Renewals in one query. More of them are sent as several queries at the same time. That changes
nothing, since each row is renewed atomically by itself."""
WARM_UP_DELAY = 0.02
"""Seconds after the first claim, and between two of them, in which the queries are built that will
be urgent later. Each takes about 2 ms."""


class RethinkDBStore:
    """Leases in the table `coord_leases` of a RethinkDB database.

    Implements `coord.stores.protocol.Store`, and `Immediate`, `Bulk`, `HasAnnouncements`,
    `HasRecords`, `HasKept`, `Overridable` and `Retirable`. Connects when it is first used.

    Args:
        url: The servers, the user and the database.
    """

    def __init__(self, url: RethinkURL | str) -> None:
        self._url = parse_url(url) if isinstance(url, str) else url
        self.pool = Pool(self._url)
        self._settings = TableSettings(self.pool, self._url)
        self._warmed_up = False

    def __repr__(self) -> str:
        return f"<RethinkDBStore {self.url}>"

    @property
    def url(self) -> str:
        """The URL, with `***` for the password."""
        return self._url.redacted

    @property
    def max_clock_skew(self) -> float | None:
        """Seconds that the servers' clocks may be off; None switches takeover by them off."""
        return self._url.max_clock_skew

    def announcements(self) -> RethinkDBAnnouncements:
        """Return the announcements of the same database, on the same connections."""
        return RethinkDBAnnouncements(self.pool, self._url)

    def records(self, table: str) -> RethinkDBRecords:
        """Return the service records in `table` of the same database, on the same connections."""
        return RethinkDBRecords(self.pool, self._url, table)

    @cached_property
    def _queries(self) -> Queries:
        return shared_queries(self._url.database, self._url.table)

    async def open(self, timeout: float) -> None:
        """Check that the table of leases exists, is usable and keeps what it acknowledges.

        The settings of the table are checked only if the user may read them.

        Args:
            timeout: Seconds that it may take.

        Raises:
            NotSetUp: A table is missing, or has unsafe settings. The message names the command that
                fixes it.
            AccessDenied: The password is wrong, or the user lacks a permission.
            StoreUnavailable: No server answered in time.
        """
        queries = self._queries  # imports the driver, which is no time that the server takes
        deadline = Deadline(timeout)
        # No row has this key, so nothing is written. The right to write is needed all the same.
        probe = queries.table.get(["coord", "open"]).replace(lambda row: row)
        await self.pool.read(probe, deadline.left())
        try:
            await self._settings.require(deadline.left(), fresh=True)
        except RequestError as error:
            raise error.error() from None

    async def claim(self, claim: Claim, timeout: float) -> Result:
        """Take a role; see `coord.core.operations.Claim`."""
        return await self._claim(claim, timeout)

    async def release(self, release: Release, timeout: float) -> Result:
        """Give a role back; see `coord.core.operations.Release`."""
        return await self._release(release, timeout)

    async def override(self, override: Override, timeout: float) -> Result:
        """Apply an operator's override; see `coord.stores.protocol.Overridable`."""
        try:
            query = self._queries.override(override)  # before the deadline: see `open`
            deadline = Deadline(timeout)
            await self._settings.require(timeout)
            outcome = await self.pool.query(query, deadline.left())
            with errors.decoding():
                return query_results.swapped(override.role, outcome)
        except (RequestError, StoreRefused) as error:
            return query_results.failure(error)

    async def retire(self, requests: Sequence[Retire], timeout: float) -> Sequence[bool]:
        """Shrink rows that nobody needs to their tokens; see `coord.stores.protocol.Retirable`.

        One query changes each row atomically, but not all of them together.
        """
        deadline = Deadline(timeout)
        vacant = [request for request in requests if request.expected.holder is None]
        retired: set[str] = set()
        if vacant:
            try:
                await self._settings.require(timeout)
                query = self._queries.retire(vacant)
                answer = await self.pool.query(query, deadline.left())
                with errors.decoding():
                    retired = {*answer["roles"]}
                    if answer["error"] is not None:
                        raise errors.from_row(answer["error"])
            except RequestError as error:
                raise error.error() from None
        return [request.role in retired for request in requests]

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        """Prolong leases; see `coord.core.operations.Renew`."""
        try:
            await self._settings.require(timeout)
        except (RequestError, StoreRefused) as error:
            return [query_results.failure(error)] * len(renewals)
        batches = [
            renewals[start : start + MAX_RENEWALS]
            for start in range(0, len(renewals), MAX_RENEWALS)
        ]
        if len(batches) == 1:
            return await self._renew(renewals, timeout)
        results = await asyncio.gather(*(self._renew(batch, timeout) for batch in batches))
        return [result for batch in results for result in batch]

    def begin(self, operation: Operation, timeout: float) -> Coroutine[Any, Any, Result] | None:
        """Send a swap at once; see `coord.stores.protocol.Immediate`."""
        if not (self._settings.acceptable or isinstance(operation, Release)):
            return None
        if isinstance(operation, Claim):
            answer = self.pool.begin(self._queries.claim(operation), timeout)
            return answer and self._claim(operation, timeout, answer)
        if isinstance(operation, Release):
            answer = self.pool.begin(self._queries.release(operation), timeout)
            return answer and self._release(operation, timeout, answer)
        if isinstance(operation, Renew):
            query = self._queries.renew_one(operation)
            answer = None if query is None else self.pool.begin(query, timeout)
            return answer and self._renew_one(operation, timeout, answer)
        return None

    async def swap_all(self, swaps: Sequence[Claim | Release], timeout: float) -> Sequence[Result]:
        """Claim and release many roles at once; see `coord.stores.protocol.Bulk`."""
        parts = bulk.parts(swaps)
        answers = await asyncio.gather(
            *(self._swap_part(kind, members, timeout) for kind, members in parts)
        )
        results = {
            swap.role: result
            for (_, members), part_results in zip(parts, answers, strict=True)
            for swap, result in zip(members, part_results, strict=True)
        }
        return [results[swap.role] for swap in swaps]

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        """Return the terms that the rows of these roles remember; None means every role."""
        names = None if roles is None else tuple(roles)
        if names == ():
            return []
        rows = await self.pool.read(self._queries.history(names), timeout)
        with errors.decoding_read():
            return [term for row in rows for term in parse(str(row["id"]), row.get("history"))]

    async def kept(self, role: str, timeout: float) -> Kept:
        """Return the text that the role keeps; see `coord.stores.protocol.HasKept`."""
        row = await self.pool.read(self._queries.kept(role), timeout)
        with errors.decoding_read():
            return kept(role, row)

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        """Return the leases of these roles, as a majority has them; None means every role."""
        names = None if roles is None else sorted(set(roles))
        if names == []:
            return []
        answers = await self.pool.read(self._queries.read(names), timeout)
        with errors.decoding_read():
            return [
                lease(answer["row"], answer["now"])
                for answer in answers
                if isinstance(answer["row"]["id"], str) and not is_retired(answer["row"])
            ]

    async def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        """Yield the leases of these roles: first all that exist, then each change.

        Raises:
            StoreUnavailable: The feed broke off. Open a new one.
        """
        names = None if roles is None else sorted(set(roles))
        async with contextlib.aclosing(self.pool.feed(self._queries.watch(names))) as feed:
            async for change in feed:
                with errors.decoding_read():
                    row = change.get("new_val")
                    if row and is_retired(row) and not change.get("old_val"):
                        continue
                    role = (row or change["old_val"])["id"]
                    shown = lease(row, None) if row else Lease(str(role))
                if isinstance(role, str):  # People may have written rows with keys of other types.
                    yield shown

    async def close(self) -> None:
        """Close all connections."""
        self._settings.close()
        await self.pool.close()

    def abandon(self) -> None:
        """Forget all connections in a forked child (rule 9)."""
        self._settings.abandon()
        self.pool.abandon()

    async def _claim(
        self, claim: Claim, timeout: float, answer: Coroutine[Any, Any, Any] | None = None
    ) -> Result:
        deadline = Deadline(timeout)
        try:
            if answer is None:
                await self._settings.require(timeout)
                answer = self.pool.query(self._queries.claim(claim), deadline.left())
            outcome = await answer
            with errors.decoding():
                misread = query_results.misread(claim, outcome["written"])
            if misread:
                query = self._queries.claim(claim, strict=True)
                outcome = await self.pool.query(query, deadline.left())
            with errors.decoding():
                result = query_results.swapped(claim.role, outcome)
        except (RequestError, StoreRefused) as error:
            return query_results.failure(error)
        if not self._warmed_up:
            self._warmed_up = True
            loop = asyncio.get_running_loop()
            for number, build in enumerate(self._queries.warm_up(claim), 1):
                loop.call_later(WARM_UP_DELAY * number, build)
        return result

    async def _release(
        self, release: Release, timeout: float, answer: Coroutine[Any, Any, Any] | None = None
    ) -> Result:
        deadline = Deadline(timeout)
        try:
            outcome = await (answer or self.pool.query(self._queries.release(release), timeout))
            with errors.decoding():
                foreign = query_results.hit_foreign_row(outcome["written"])
            if foreign:
                query = self._queries.release(release, strict=True)
                outcome = await self.pool.query(query, deadline.left())
            with errors.decoding():
                return query_results.swapped(release.role, outcome)
        except (RequestError, StoreRefused) as error:
            return query_results.failure(error)

    async def _swap(self, swap: Claim | Release, timeout: float) -> Result:
        if isinstance(swap, Claim):
            return await self._claim(swap, timeout)
        return await self._release(swap, timeout)

    async def _swap_part(
        self, kind: bulk.Kind, batch: Sequence[Claim | Release], timeout: float
    ) -> Sequence[Result]:
        """Do swaps of one kind: in bulk as far as possible, and each by itself what is left."""
        deadline, in_bulk, doubtful = Deadline(timeout), kind != bulk.UNBATCHABLE, False
        results: dict[str, Result] = {}
        try:
            if isinstance(kind, ClaimShape):
                await self._settings.require(timeout)
            if in_bulk:
                query = self._queries.bulk.swaps(kind, batch)
                answer = await self.pool.query(query, timeout)
                with errors.decoding():
                    results = bulk.results(batch, answer)
            creations = [
                swap for swap in batch if swap.role not in results and bulk.creates_row(kind, swap)
            ]
            if creations and isinstance(kind, ClaimShape):
                query = self._queries.bulk.first(kind, creations)
                answer = await self.pool.query(query, deadline.left())
                with errors.decoding():
                    created = bulk.results(creations, answer)
                results |= {
                    swap.role: query_results.already_applied(swap, created[swap.role])
                    for swap in creations
                    if swap.role in created
                }
        except RequestError as error:
            if error.refusal is not StoreRefused:
                failure = error.failure()
                return [results.get(swap.role, failure) for swap in batch]
            # One of the swaps is refused, and the server does not say which.
            doubtful = error.unknown
        except StoreRefused as error:
            return [query_results.failure(error)] * len(batch)
        singles = [swap for swap in batch if swap.role not in results]
        answers = await asyncio.gather(*(self._swap(swap, deadline.left()) for swap in singles))
        for swap, result in zip(singles, answers, strict=True):
            results[swap.role] = (
                query_results.already_applied(swap, result, doubtful=doubtful)
                if in_bulk
                else result
            )
        return [results[swap.role] for swap in batch]

    async def _renew_one(
        self, renewal: Renew, timeout: float, answer: Coroutine[Any, Any, Any]
    ) -> Result:
        (result,) = await self._renew([renewal], timeout, answer)
        return result

    async def _renew(
        self,
        renewals: Sequence[Renew],
        timeout: float,
        answer: Coroutine[Any, Any, Any] | None = None,
    ) -> list[Result]:
        """Renew with one query if the rows are as their holders left them, else with two."""
        deadline = Deadline(timeout)
        try:
            if len(renewals) == 1:
                quick = answer
                if quick is None and (query := self._queries.renew_one(renewals[0])) is not None:
                    quick = self.pool.query(query, timeout)
                if quick is not None:
                    outcome = await quick
                    with errors.decoding():
                        report = outcome["written"]
                        if report["replaced"]:
                            return _unchanged(renewals, float(outcome["now"]))
                        if report["errors"]:
                            error = errors.from_row(report["first_error"])
                            if error.unknown:
                                return [error.failure()]
            if (batch := self._queries.renew_all(renewals)) is not None:
                outcome = await self.pool.query(batch, timeout)
                with errors.decoding():
                    if outcome["written"]["replaced"] == len(renewals):
                        return _unchanged(renewals, float(outcome["now"]))
            outcome = await self.pool.query(self._queries.renew(renewals), deadline.left())
            with errors.decoding():
                return query_results.renewed(renewals, outcome, after_batch=batch is not None)
        except (RequestError, StoreRefused) as err:
            return [query_results.failure(err)] * len(renewals)


def _unchanged(renewals: Sequence[Renew], now: float) -> list[Result]:
    """Return the results of renewals of rows that were as their holders left them."""
    return [Answer(True, row) for row in swaps.unchanged_but_renewed(renewals, now)]
