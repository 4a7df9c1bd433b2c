"""Records a history while something runs: the requests that a store gets, what it answers, and who
believes that it leads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from coord.core.history import PastTerm
from coord.core.kept import Kept
from coord.core.lease import Lease
from coord.core.operations import Claim, Failure, Operation, Release, Renew, Result
from coord.election.term import Term
from coord.stores.protocol import Announcements, Records, Store
from coord.stores.requests import announcements_of, kept_of, records_of
from coord.testing.history import History


class RecordingStore:
    """Wraps any store and records each request for each role as an operation.

    Announcements, service records, past terms and feeds are those of the inner store. They are not
    recorded, because nothing is decided by them.

    Args:
        inner: The store to wrap.
        history: Where to record the operations.
        process: The name of the process that makes the requests.
    """

    def __init__(self, inner: Store, history: History, process: str) -> None:
        self.inner, self.history, self.process = inner, history, process

    @property
    def url(self) -> str:
        """The URL of the inner store."""
        return self.inner.url

    @property
    def max_clock_skew(self) -> float | None:
        """The clock skew that the inner store allows for, in seconds; None if it is not known."""
        return self.inner.max_clock_skew

    async def open(self, timeout: float) -> None:
        """Open the inner store."""
        await self.inner.open(timeout)

    async def claim(self, claim: Claim, timeout: float) -> Result:
        """Claim a role, and record it."""
        return (await self._record([claim], self._as_list(self.inner.claim(claim, timeout))))[0]

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        """Renew leases, and record each of them."""
        return await self._record(renewals, self.inner.renew(renewals, timeout))

    async def release(self, release: Release, timeout: float) -> Result:
        """Release a role, and record it."""
        return (await self._record([release], self._as_list(self.inner.release(release, timeout))))[
            0
        ]

    def begin(self, operation: Operation, timeout: float) -> Coroutine[Any, Any, Result] | None:
        """Record the operation, and send it at once if the inner store can. If it cannot, record
        that the operation was not done, and return None."""
        send = getattr(self.inner, "begin", None)
        if send is None or not isinstance(operation, (Claim, Release)):
            return None
        key = invoked(self.history, self.process, operation)
        request = send(operation, timeout)
        if request is None:
            self.history.fail(key, detail="not sent")
            return None
        return self._begun(key, request)

    async def _begun(self, key: tuple[str, int], request: Coroutine[Any, Any, Result]) -> Result:
        try:
            result = await request
        except BaseException:
            self.history.unknown(key)
            raise
        answered(self.history, key, result)
        return result

    def announcements(self) -> Announcements:
        """Return the announcements of the inner store; they are not recorded.

        Raises:
            BadArgument: The inner store keeps no announcements.
        """
        return announcements_of(self.inner)

    def records(self, table: str) -> Records:
        """Return the service records of the inner store; they are not recorded.

        Args:
            table: The name of the table.

        Raises:
            BadArgument: The inner store keeps no service records.
        """
        return records_of(self.inner, table)

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        """Read past terms from the inner store; this is not recorded."""
        return await self.inner.past(roles, timeout)

    async def kept(self, role: str, timeout: float) -> Kept:
        """Read the text that a role keeps from the inner store; this is not recorded.

        Raises:
            BadArgument: The inner store keeps no texts.
        """
        return await kept_of(self.inner).kept(role, timeout)

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        """Read rows, and record a read for each role; nothing if `roles` is None."""
        keys = {role: self.history.invoke(self.process, "read", role) for role in roles or ()}
        # A read that fails or is cancelled stays in the history without an outcome.
        rows = await self.inner.read(roles, timeout)
        by_role = {row.role: row for row in rows}
        for role, key in keys.items():
            self.history.ok(key, row=list(by_role.get(role, Lease(role)).revision))
        return rows

    def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        """Return the feed of the inner store; it is not recorded."""
        return self.inner.watch(roles)

    async def close(self) -> None:
        """Close the inner store."""
        await self.inner.close()

    def abandon(self) -> None:
        """Let the inner store forget everything, in a forked child."""
        self.inner.abandon()

    @staticmethod
    async def _as_list(pending: Any) -> Sequence[Result]:
        return [await pending]

    async def _record(
        self, operations: Iterable[Claim | Renew | Release], pending: Any
    ) -> Sequence[Result]:
        keys = [invoked(self.history, self.process, operation) for operation in operations]
        try:
            results: Sequence[Result] = await pending
        except BaseException:
            for key in keys:
                self.history.unknown(key)
            raise
        for key, result in zip(keys, results, strict=True):
            answered(self.history, key, result)
        return results


def invoked(history: History, process: str, operation: Claim | Renew | Release) -> tuple[str, int]:
    """Record that a swap was sent, and return the key of the operation."""
    name = type(operation).__name__.lower()
    fields: dict[str, Any] = {"holder": operation.holder, "beat": operation.beat}
    if isinstance(operation, Claim):
        expected = None if operation.expected is None else list(operation.expected)
        fields.update(
            expected=expected,
            takeover=operation.takeover,
            skew=operation.skew,
            floor=operation.floor,
        )
    else:
        fields["token"] = operation.token
        if isinstance(operation, Release):
            fields.update(linger=operation.linger, to=operation.to)
    return history.invoke(process, name, operation.role, **fields)


def answered(history: History, key: tuple[str, int], result: Result) -> None:
    """Record the outcome of the operation with that key."""
    if not isinstance(result, Failure):
        history.ok(key, applied=result.applied, row=list(result.lease.revision))
    elif result.unknown:
        history.unknown(key, detail=result.detail)
    else:
        history.fail(key, detail=result.detail)


class Held(Protocol):
    """A leadership, with or without asyncio."""

    @property
    def role(self) -> str: ...

    @property
    def held(self) -> Term | None: ...


def look(history: History, process: str, leadership: Held) -> Term | None:
    """Record whether `process` believes that it leads at this moment.

    Args:
        history: Where to record it.
        process: The name of the candidate. Each candidate needs a name of its own.
        leadership: The leadership to look at.

    Returns:
        The current term; None if it does not lead.
    """
    key = history.invoke(process, "held", leadership.role)
    term = leadership.held
    history.ok(key, token=None if term is None else term.token)
    return term
