"""Writes a history while something runs: what a store was asked and said, and who believed that it
leads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from coord.core.history import PastTerm
from coord.core.lease import Lease
from coord.core.operations import Claim, Failure, Operation, Release, Renew, Result
from coord.election.term import Term
from coord.errors import BadArgument
from coord.stores.protocol import Announcements, HasAnnouncements, HasRecords, Records, Store
from coord.testing.history import History


class RecordingStore:
    """Wraps any store: each request of each role is an operation of `process` in the history."""

    def __init__(self, inner: Store, history: History, process: str) -> None:
        self.inner, self.history, self.process = inner, history, process

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def max_clock_skew(self) -> float | None:
        return self.inner.max_clock_skew

    async def open(self, timeout: float) -> None:
        await self.inner.open(timeout)

    async def claim(self, claim: Claim, timeout: float) -> Result:
        return (await self._record([claim], self._one(self.inner.claim(claim, timeout))))[0]

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        return await self._record(renewals, self.inner.renew(renewals, timeout))

    async def release(self, release: Release, timeout: float) -> Result:
        return (await self._record([release], self._one(self.inner.release(release, timeout))))[0]

    def begin(self, operation: Operation, timeout: float) -> Coroutine[Any, Any, Result] | None:
        """Recorded before it is sent; as not done where the inner store cannot send at once."""
        send = getattr(self.inner, "begin", None)
        if send is None or not isinstance(operation, (Claim, Release)):
            return None
        key = invoked(self.history, self.process, operation)
        sent = send(operation, timeout)
        if sent is None:
            self.history.fail(key, detail="not sent")
            return None
        return self._begun(key, sent)

    async def _begun(self, key: tuple[str, int], sent: Coroutine[Any, Any, Result]) -> Result:
        try:
            result = await sent
        except BaseException:
            self.history.unknown(key)
            raise
        answered(self.history, key, result)
        return result

    def announcements(self) -> Announcements:
        """Not recorded, either."""
        if not isinstance(self.inner, HasAnnouncements):
            kind = type(self.inner).__name__
            raise BadArgument("store", kind, "a store with announcements")
        return self.inner.announcements()

    def records(self, table: str) -> Records:
        """The inner store's service records, as they are."""
        if not isinstance(self.inner, HasRecords):
            kind = type(self.inner).__name__
            raise BadArgument("store", kind, "a store with service records")
        return self.inner.records(table)

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        """Not recorded: nothing is decided by it."""
        return await self.inner.past(roles, timeout)

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        keys = {role: self.history.invoke(self.process, "read", role) for role in roles or ()}
        rows = await self.inner.read(
            roles, timeout
        )  # a read that fails, or is cancelled, stays without an outcome
        found = {row.role: row for row in rows}
        for role, key in keys.items():
            self.history.ok(key, row=list(found.get(role, Lease(role)).revision))
        return rows

    def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        return self.inner.watch(roles)

    async def close(self) -> None:
        await self.inner.close()

    def abandon(self) -> None:
        self.inner.abandon()

    @staticmethod
    async def _one(asked: Any) -> Sequence[Result]:
        return [await asked]

    async def _record(
        self, operations: Iterable[Claim | Renew | Release], asked: Any
    ) -> Sequence[Result]:
        keys = [invoked(self.history, self.process, one) for one in operations]
        try:
            results: Sequence[Result] = await asked
        except BaseException:
            for key in keys:
                self.history.unknown(key)
            raise
        for key, result in zip(keys, results, strict=True):
            answered(self.history, key, result)
        return results


def invoked(history: History, process: str, operation: Claim | Renew | Release) -> tuple[str, int]:
    """Record that a swap was sent."""
    name = type(operation).__name__.lower()
    given: dict[str, Any] = {"holder": operation.holder, "beat": operation.beat}
    if isinstance(operation, Claim):
        expected = None if operation.expected is None else list(operation.expected)
        given.update(
            expected=expected,
            takeover=operation.takeover,
            skew=operation.skew,
            floor=operation.floor,
        )
    else:
        given["token"] = operation.token
        if isinstance(operation, Release):
            given.update(linger=operation.linger, to=operation.to)
    return history.invoke(process, name, operation.role, **given)


def answered(history: History, key: tuple[str, int], result: Result) -> None:
    """Record what came of it."""
    if not isinstance(result, Failure):
        history.ok(key, applied=result.applied, row=list(result.lease.revision))
    elif result.unknown:
        history.unknown(key, detail=result.detail)
    else:
        history.fail(key, detail=result.detail)


class Held(Protocol):
    """A leadership, of either kind."""

    @property
    def role(self) -> str: ...

    @property
    def held(self) -> Term | None: ...


def look(history: History, process: str, leadership: Held) -> Term | None:
    """Record one look at whether `process` believes that it leads. Give each candidate a name of
    its own."""
    key = history.invoke(process, "held", leadership.role)
    term = leadership.held
    history.ok(key, token=None if term is None else term.token)
    return term
