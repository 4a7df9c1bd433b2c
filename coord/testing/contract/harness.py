"""What the parts of the contract stand on: making stores, running a test on a loop of its own,
saying what is wrong."""

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
from coord.stores.protocol import Store


def expect(true: object, what: str) -> None:
    """A plain assertion, which works without pytest's rewriting and under `python -O`."""
    if not true:
        raise AssertionError(what)


def same(got: object, wanted: object, what: str) -> None:
    expect(got == wanted, f"{what}: got {got!r}, wanted {wanted!r}")


def answered(result: Result) -> Answer:
    if not isinstance(result, Answer):
        raise AssertionError(f"no answer but {result!r}")  # noqa: TRY004 # a failed test, not a wrong argument
    return result


def applied(result: Result) -> Lease:
    """The row after a swap that had to be applied."""
    expect(answered(result).applied, f"was not applied: {result!r}")
    return answered(result).lease


def refused(result: Result) -> Lease:
    """The row after a swap that had to change nothing."""
    expect(not answered(result).applied, f"was applied: {result!r}")
    return answered(result).lease


class ContractHarness:
    """Two calls of `make_store` in one test give two stores on the same data."""

    timeout = 10.0
    """Seconds for each request. None of them should come near."""
    slack = 0.15
    """Seconds by which a lease may be found to run out late, beyond its ttl."""

    def make_store(self) -> Store:
        raise NotImplementedError("override make_store: it returns a store, not opened")

    def fresh_role(self) -> str:
        """A role that no other test uses."""
        return f"contract-{secrets.token_hex(8)}"

    def run(self, body: Callable[[StoreDriver], Awaitable[None]]) -> None:
        """Run a test body with a store, and a way to get more of them; close them all after it."""

        async def main() -> None:
            async with AsyncExitStack() as stack:
                await body(await StoreDriver.of(self, stack))

        asyncio.run(asyncio.wait_for(main(), 60))


class StoreDriver:
    """One store, one role, and short ways to ask."""

    def __init__(self, bench: ContractHarness, stack: AsyncExitStack, store: Store) -> None:
        self._bench, self._stack, self.store = bench, stack, store
        self.role = bench.fresh_role()

    @classmethod
    async def of(cls, bench: ContractHarness, stack: AsyncExitStack) -> StoreDriver:
        store = bench.make_store()
        stack.push_async_callback(store.close)
        await store.open(bench.timeout)
        return cls(bench, stack, store)

    async def another(self) -> StoreDriver:
        """Another store on the same data; the role is the same one."""
        other = await StoreDriver.of(self._bench, self._stack)
        other.role = self.role
        return other

    def fresh_role(self) -> str:
        return self._bench.fresh_role()

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
        asked = Claim(
            role or self.role, holder, beat, ttl, expected, takeover, skew, floor, info or {}, lost
        )
        return await self.store.claim(asked, self._bench.timeout)

    async def renew(self, holder: str, token: int, beat: int, *, ttl: float = 30.0) -> Result:
        return (await self.renew_all([Renew(self.role, holder, token, beat, ttl)]))[0]

    async def renew_all(self, renewals: Sequence[Renew]) -> Sequence[Result]:
        return await self.store.renew(renewals, self._bench.timeout)

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
    ) -> Result:
        asked = Release(self.role, holder, token, beat, linger, to, reason, by)
        return await self.store.release(asked, self._bench.timeout)

    async def history(self) -> list[PastTerm]:
        """What the row remembers."""
        return await self.store.past([self.role], self._bench.timeout)

    async def read(self, *roles: str) -> dict[str, Lease]:
        """The rows of these roles, without any of this hand's own."""
        found = await self.store.read(roles or (self.role,), self._bench.timeout)
        same(len({lease.role for lease in found}), len(found), "rows of different roles")
        return {lease.role: lease for lease in found}

    async def row(self) -> Lease:
        rows = await self.read()
        expect(self.role in rows, "the role has a row")
        return rows[self.role]

    async def run_out(self, ttl: float) -> None:
        """Wait until a lease of `ttl` has run out, by a store's clock that may be read a little
        late."""
        await asyncio.sleep(ttl + self._bench.slack)

    @contextlib.asynccontextmanager
    async def feed(self, *roles: str, every: bool = False) -> AsyncIterator[asyncio.Queue[Lease]]:
        """What `watch` yields, as a queue; `every` for all roles. The feed must close within two
        seconds."""
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
