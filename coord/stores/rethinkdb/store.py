"""`RethinkDBStore`: the store's protocol on one table, each swap one query."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from functools import cached_property
from typing import Any

from coord.errors import AccessDenied, CoordError, NotSetUp, StoreRefused, StoreUnavailable
from coord.lease import Lease
from coord.operations import Answer, Claim, Failure, Operation, Release, Renew, Result
from coord.past import PastTerm, terms
from coord.stores import rules
from coord.stores.rethinkdb import claims, errors
from coord.stores.rethinkdb.connection import Pool
from coord.stores.rethinkdb.errors import Trouble, not_set_up
from coord.stores.rethinkdb.queries import Queries
from coord.stores.rethinkdb.rows import lease
from coord.stores.rethinkdb.url import RethinkURL, parse_url

MANY = 1_000
"""Renewals that are put into one query; more are sent as several at once, each as atomic per row as one."""
AT_LEISURE = 0.02
"""Seconds after the first claim, and between, in which the queries that will be urgent are built: 2 ms for each."""


class RethinkDBStore:
    """Leases in the table `coord_leases` of a RethinkDB database. Connects when something is first asked."""

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
        return None

    async def _claimed(self, claim: Claim, timeout: float, sent: Coroutine[Any, Any, Any] | None = None) -> Result:
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        try:
            outcome = await (sent or self._pool.run(self._queries.claim(claim), timeout))
            if _misread(claim, outcome["written"]):
                left = max(until - loop.time(), 0.001)
                outcome = await self._pool.run(self._queries.claim(claim, careful=True), left)
        except (Trouble, StoreRefused) as err:
            return _failure(err)
        if not self._prepared:
            self._prepared = True
            for number, build in enumerate(self._queries.likely(claim), 1):
                loop.call_later(AT_LEISURE * number, build)
        return _swapped(claim.role, outcome)

    async def _released(self, release: Release, timeout: float, sent: Coroutine[Any, Any, Any] | None = None) -> Result:
        until = asyncio.get_running_loop().time() + timeout
        try:
            outcome = await (sent or self._pool.run(self._queries.release(release), timeout))
            if _stumbled(outcome["written"]):
                left = max(until - asyncio.get_running_loop().time(), 0.001)
                outcome = await self._pool.run(self._queries.release(release, careful=True), left)
        except (Trouble, StoreRefused) as err:
            return _failure(err)
        return _swapped(release.role, outcome)

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        wanted = None if roles is None else tuple(roles)
        if wanted == ():
            return []
        try:
            rows = await self._pool.read(self._queries.history(wanted), timeout)
        except Trouble as trouble:
            raise trouble.error() from None
        return [term for row in rows for term in terms(str(row["id"]), row.get("history"))]

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        if len(renewals) <= MANY:
            return await self._renew(renewals, timeout)
        parts = [renewals[begin : begin + MANY] for begin in range(0, len(renewals), MANY)]
        done = await asyncio.gather(*(self._renew(part, timeout) for part in parts))
        return [result for part in done for result in part]

    async def _renew(self, renewals: Sequence[Renew], timeout: float) -> list[Result]:
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        try:
            if len(renewals) == 1 and (quick := self._queries.renew_one(renewals[0])) is not None:
                outcome = await self._pool.run(quick, timeout)
                if outcome["written"]["replaced"]:
                    return [Answer(True, row) for row in rules.as_left(renewals, outcome["now"])]
                if (
                    outcome["written"]["errors"]
                    and (trouble := errors.from_row(outcome["written"]["first_error"])).unknown
                ):
                    return [trouble.failure()]
            if (batch := self._queries.renew_all(renewals)) is not None:
                written = await self._pool.run(batch, timeout)
                if written["replaced"] == len(renewals):
                    return [Answer(True, row) for row in rules.as_left(renewals, time.time())]
            outcome = await self._pool.run(self._queries.renew(renewals), max(until - loop.time(), 0.001))
        except (Trouble, StoreRefused) as err:
            return [_failure(err)] * len(renewals)
        written, now = outcome["written"], outcome["now"]
        changes = written.get("changes", [])
        if written["errors"] and not any(change.get("error") for change in changes):
            # Some row could not be written, and the server does not say which: no answer is trusted.
            return [errors.from_row(written["first_error"]).failure()] * len(renewals)
        rows = {row["id"]: _result(row["id"], change, now) for change in changes if (row := _row(change))}
        answers = [rows.get(one.role, Answer(False, Lease(one.role))) for one in renewals]
        return answers if batch is None else [_batched(*each) for each in zip(renewals, answers, strict=True)]

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        wanted = None if roles is None else sorted(set(roles))
        if wanted == []:
            return []
        try:
            rows = await self._pool.read(self._queries.read(wanted), timeout)
        except Trouble as trouble:
            raise trouble.error() from None
        return [lease(one["row"], one["now"]) for one in rows if isinstance(one["row"]["id"], str)]

    async def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        try:
            feed = self._pool.feed(self._queries.watch(None if roles is None else sorted(set(roles))))
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


def _batched(asked: Renew, result: Result) -> Result:
    """After a batch, a row that bears the beat of this very request has been renewed by it: beats are unique."""
    if isinstance(result, Answer) and result.lease.sight == (asked.holder, asked.token, asked.beat):
        return Answer(True, result.lease)
    return result


def _stumbled(written: Mapping[str, Any]) -> bool:
    """Whether a quick swap met a row that somebody wrote by hand. Then nothing was changed."""
    error = str(written.get("first_error", ""))
    # Never a second swap where the first may have been done.
    return bool(written["errors"]) and not (error.startswith(errors.REFUSAL) or errors.from_row(error).unknown)


def _misread(claim: Claim, written: Mapping[str, Any]) -> bool:
    if written["errors"]:
        return _stumbled(written)
    return bool(written["unchanged"]) and claims.misread(claim, written["changes"][0]["new_val"])


def _swapped(role: str, outcome: Mapping[str, Any]) -> Result:
    written = outcome["written"]
    if written["errors"]:
        return errors.from_row(written["first_error"]).failure()
    row = written["changes"][0]["new_val"]
    applied = written["replaced"] + written["inserted"] > 0
    return Answer(applied, lease(row, outcome["now"]) if row else Lease(role))


def _row(change: Mapping[str, Any]) -> dict[str, Any] | None:
    row: dict[str, Any] | None = change.get("new_val") or change.get("old_val")
    return row


def _result(role: str, change: Mapping[str, Any], now: float) -> Result:
    if change.get("error"):
        return errors.from_row(change["error"]).failure()
    row = change.get("new_val")
    return Answer(change.get("old_val") != row, lease(row, now) if row else Lease(role))
