"""What all parts of the contract use: assertions, and stores that are opened and closed for a
test."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from coord.core.history import PastTerm
from coord.core.lease import Lease, Revision
from coord.core.operations import Answer, Claim, Release, Renew, Result
from coord.runtime.timers import within
from coord.stores.protocol import Store


def expect(true: object, what: str) -> None:
    """Fail with the message `what` unless `true`, under `python -O` and without pytest, too."""
    if not true:
        raise AssertionError(what)


def same(actual: object, expected: object, what: str) -> None:
    """Fail unless the two values are equal."""
    expect(actual == expected, f"{what}: got {actual!r}, wanted {expected!r}")


def answered(result: Result) -> Answer:
    """Return the answer of a request that must not fail."""
    if not isinstance(result, Answer):
        raise AssertionError(f"no answer but {result!r}")  # noqa: TRY004 # a failed test, not a wrong argument
    return result


def applied(result: Result) -> Lease:
    """Return the row after a swap that must be applied."""
    expect(answered(result).applied, f"was not applied: {result!r}")
    return answered(result).lease


def refused(result: Result) -> Lease:
    """Return the row after a swap that must change nothing."""
    expect(not answered(result).applied, f"was applied: {result!r}")
    return answered(result).lease


class ContractHarness:
    """Makes stores for the tests. Two calls of `make_store` return two stores on the same data."""

    timeout = 10.0
    """Maximum time of a request in seconds, far longer than any should take."""
    slack = 0.15
    """Seconds by which a lease may expire later than its ttl says."""

    def make_store(self) -> Store:
        """Return a store that is not open yet. Override this."""
        raise NotImplementedError("override make_store: it returns a store, not opened")

    def fresh_role(self) -> str:
        """Return a role that no other test uses."""
        return f"contract-{secrets.token_hex(8)}"

    def run(self, body: Callable[[StoreDriver], Awaitable[None]]) -> None:
        """Run the body of a test with a store, and close all stores afterwards."""

        async def main() -> None:
            async with AsyncExitStack() as stack:
                await body(await StoreDriver.of(self, stack))

        asyncio.run(within(main(), 60))


class StoreDriver:
    """Sends requests for one role to one store."""

    def __init__(self, harness: ContractHarness, stack: AsyncExitStack, store: Store) -> None:
        self._harness, self._stack, self.store = harness, stack, store
        self.role = harness.fresh_role()

    @classmethod
    async def of(cls, harness: ContractHarness, stack: AsyncExitStack) -> StoreDriver:
        """Open a store, and close it when the stack is closed."""
        store = harness.make_store()
        stack.push_async_callback(store.close)
        await store.open(harness.timeout)
        return cls(harness, stack, store)

    async def another(self) -> StoreDriver:
        """Return a driver of another store on the same data, with the same role."""
        other = await StoreDriver.of(self._harness, self._stack)
        other.role = self.role
        return other

    @property
    def has_clock(self) -> bool:
        """Whether leases expire by a clock of the store."""
        return self.store.max_clock_skew is not None

    def fresh_role(self) -> str:
        """Return a role that no other test uses."""
        return self._harness.fresh_role()

    async def claim(
        self,
        holder: str,
        beat: int = 1,
        *,
        role: str | None = None,
        ttl: float = 30.0,
        expected: Revision | None = None,
        takeover: bool = False,
        skew: float | None = None,
        floor: int = 0,
        info: Mapping[str, Any] | None = None,
        lost: tuple[int, str] | None = None,
    ) -> Result:
        """Claim the role, or another one; the parameters are those of `Claim`."""
        claim = Claim(
            role or self.role, holder, beat, ttl, expected, takeover, skew, floor, info or {}, lost
        )
        return await self.store.claim(claim, self._harness.timeout)

    async def renew(
        self,
        holder: str,
        token: int,
        beat: int,
        *,
        ttl: float = 30.0,
        info: Mapping[str, Any] | None = None,
        keep: str | None = None,
    ) -> Result:
        """Renew the lease of the role; the parameters are those of `Renew`."""
        return (await self.renew_all([Renew(self.role, holder, token, beat, ttl, info, keep)]))[0]

    async def renew_all(self, renewals: Sequence[Renew]) -> Sequence[Result]:
        """Renew several leases in one request."""
        return await self.store.renew(renewals, self._harness.timeout)

    async def release(
        self,
        holder: str,
        token: int,
        beat: int,
        *,
        linger: float = 0.0,
        to: str | None = None,
        reason: str = "released",
        by: str = "",
        keep: str | None = None,
    ) -> Result:
        """Release the role; the parameters are those of `Release`."""
        release = Release(self.role, holder, token, beat, linger, to, reason, by, keep)
        return await self.store.release(release, self._harness.timeout)

    async def history(self) -> list[PastTerm]:
        """Return the past terms of the role."""
        return await self.store.past([self.role], self._harness.timeout)

    async def read(self, *roles: str) -> dict[str, Lease]:
        """Read the rows of these roles, or that of the driver's role if there are none."""
        rows = await self.store.read(roles or (self.role,), self._harness.timeout)
        same(len({lease.role for lease in rows}), len(rows), "rows of different roles")
        return {lease.role: lease for lease in rows}

    async def row(self) -> Lease:
        """Return the row of the role, which must exist."""
        rows = await self.read()
        expect(self.role in rows, "the role has a row")
        return rows[self.role]

    async def run_out(self, ttl: float) -> None:
        """Wait until a lease of `ttl` seconds has expired by the clock of the store."""
        await asyncio.sleep(ttl + self._harness.slack)

    @contextlib.asynccontextmanager
    async def feed(self, *roles: str, every: bool = False) -> AsyncIterator[asyncio.Queue[Lease]]:
        """Provide what `watch` yields as a queue. The feed must close within two seconds.

        Args:
            roles: The roles to watch; the role of the driver if there are none.
            every: Whether to watch all roles.
        """
        queue: asyncio.Queue[Lease] = asyncio.Queue()

        async def pump() -> None:
            watching = self.store.watch(None if every else roles or (self.role,))
            try:
                async for lease in watching:
                    queue.put_nowait(lease)
                raise AssertionError("the feed ended by itself")
            finally:
                await watching.aclose()  # type: ignore[attr-defined] # every store's is a generator

        task = asyncio.ensure_future(pump())
        try:
            yield queue
        finally:
            task.cancel()
            done, _ = await asyncio.wait({task}, timeout=2)
            expect(done, "the feed closes within two seconds")
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
