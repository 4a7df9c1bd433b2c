"""A store that fails on demand: with every kind of error of rule 8, late or never, and with feeds
that break, lose rows or repeat them."""

from __future__ import annotations

import asyncio
import enum
import math
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

from coord.core import validation
from coord.core.history import PastTerm
from coord.core.kept import Kept
from coord.core.lease import Lease
from coord.core.operations import Claim, Failure, Override, Release, Renew, Result
from coord.errors import AccessDenied, BadArgument, StoreUnavailable
from coord.stores.protocol import Announcements, Records, Store
from coord.stores.requests import announcements_of, kept_of, overridable, records_of

T = TypeVar("T")
Name = Literal["open", "claim", "renew", "release", "override", "read", "watch"]
NAMES: tuple[Name, ...] = ("open", "claim", "renew", "release", "override", "read", "watch")


class Fault(enum.Enum):
    """What happens to a request that fails."""

    NOT_DONE = "the request is not applied, and the answer says so"
    UNKNOWN_DONE = "the request is applied, and the answer is lost"
    UNKNOWN_NOT_DONE = "the request is lost, and the caller cannot know"
    PERMANENT = "the store refuses: a permission is missing"
    HANG = "the request is lost, and the caller waits until its timeout"
    RAISES = "the store has a defect, and raises an unexpected exception"


@dataclass(frozen=True, slots=True)
class Instruction:
    """What to do with one request.

    Attributes:
        fault: How the request fails; None if it is only slow.
        before: Seconds that the request takes to reach the store.
        after: Seconds that the answer takes to come back.
    """

    fault: Fault | None = None
    before: float = 0.0
    after: float = 0.0


class FaultyStore:
    """Wraps any store and fails on demand. Without instructions it behaves like the inner store.

    >>> store = FaultyStore(MemoryStore())
    >>> store.fail("renew", Fault.UNKNOWN_DONE)          # the next renewal is done, its answer lost
    >>> store.fail("claim", Fault.NOT_DONE, times=None)  # every claim fails, until `heal`
    >>> store.slow("read", 0.2)                          # the next read takes 0.2 s longer
    >>> store.down()                                     # every request fails, and feeds break

    A request that takes longer than its timeout returns `Failure(unknown=True)`. It still takes
    effect later, when it reaches the inner store. You may give instructions from any thread.

    Announcements and service records are those of the inner store. Instructions do not affect them.

    Args:
        inner: The store to wrap.

    Attributes:
        inner: The wrapped store.
        calls: The names of all requests so far, in order.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.calls: list[Name] = []
        self._next: defaultdict[Name, deque[Instruction]] = defaultdict(deque)
        self._always: dict[Name, Instruction] = {}
        self._feeds: list[
            tuple[asyncio.AbstractEventLoop, asyncio.Queue[Lease | StoreUnavailable]]
        ] = []
        self._lose = self._repeat = 0
        self._under_way: set[asyncio.Future[object]] = set()

    @property
    def url(self) -> str:
        """The URL of the inner store."""
        return self.inner.url

    @property
    def max_clock_skew(self) -> float | None:
        """The clock skew that the inner store allows for, in seconds; None if it is not known."""
        return self.inner.max_clock_skew

    def fail(self, name: Name, fault: Fault, times: int | None = 1) -> None:
        """Make requests fail.

        Args:
            name: Which requests: "open", "claim", "renew", "release", "override", "read" or
                "watch".
            fault: How they fail.
            times: How many of the next requests fail; None for all, until `heal`.

        Raises:
            BadArgument: There are no requests of that name, `fault` is not a `Fault`, or `times` is
                neither None nor an int of at least 0.
        """
        if not isinstance(fault, Fault):
            raise BadArgument("fault", fault, "must be a coord.testing.Fault")
        self._instruct(name, Instruction(fault), times)

    def slow(
        self, name: Name, before: float = 0.0, after: float = 0.0, times: int | None = 1
    ) -> None:
        """Delay requests, their answers, or both.

        Args:
            name: Which requests, as for `fail`.
            before: Seconds by which they reach the store later.
            after: Seconds by which their answers come back later.
            times: How many of the next requests are slow; None for all, until `heal`.

        Raises:
            BadArgument: A delay is not a number of at least 0, or an argument is invalid as for
                `fail`.
        """
        validation.number(before, "before", low=0)
        validation.number(after, "after", low=0)
        self._instruct(name, Instruction(None, before, after), times)

    def down(self, fault: Fault = Fault.NOT_DONE) -> None:
        """Make every request fail until `heal`, and break every open feed.

        Args:
            fault: How the requests fail.
        """
        for name in NAMES:
            self._instruct(name, Instruction(fault), None)
        self.break_feeds()

    def heal(self) -> None:
        """Drop all instructions: requests and feeds work again."""
        self._next.clear()
        self._always.clear()
        self._lose = self._repeat = 0

    def lose_hints(self, times: int) -> None:
        """Drop the next `times` rows that feeds would yield."""
        self._lose += times

    def repeat_hints(self, times: int) -> None:
        """Let feeds yield each of the next `times` rows twice."""
        self._repeat += times

    def whisper(self, lease: Lease) -> None:
        """Let every open feed yield a row that nobody has written.

        A real feed may do that: it may run ahead of the table or lag behind it.

        Args:
            lease: The row to yield.
        """
        self._push(lease)

    def break_feeds(self) -> None:
        """Break every open feed. A new feed can be opened, unless `watch` is to fail."""
        self._push(StoreUnavailable("the feed was broken"))

    def _instruct(self, name: Name, instruction: Instruction, times: int | None) -> None:
        if name not in NAMES:
            raise BadArgument("name", name, f"must be one of {', '.join(NAMES)}")
        if times is not None and (
            isinstance(times, bool) or not isinstance(times, int) or times < 0
        ):
            raise BadArgument("times", times, "must be an int of at least 0, or None")
        if times is None:
            self._always[name] = instruction
        else:
            self._next[name].extend([instruction] * times)

    def _push(self, item: Lease | StoreUnavailable) -> None:
        for loop, queue in tuple(self._feeds):
            if not loop.is_closed():
                loop.call_soon_threadsafe(queue.put_nowait, item)

    async def open(self, timeout: float) -> None:
        """Open the inner store, as instructed."""
        await self._raising("open", lambda: self.inner.open(timeout), timeout)

    async def claim(self, claim: Claim, timeout: float) -> Result:
        """Claim a role, as instructed."""
        return await self._swap("claim", lambda: self.inner.claim(claim, timeout), timeout)

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        """Renew leases. One instruction counts for the whole batch."""
        outcome = await self._ask("renew", lambda: self.inner.renew(renewals, timeout), timeout)
        return [outcome] * len(renewals) if isinstance(outcome, Failure) else outcome

    async def release(self, release: Release, timeout: float) -> Result:
        """Release a role, as instructed."""
        return await self._swap("release", lambda: self.inner.release(release, timeout), timeout)

    async def override(self, override: Override, timeout: float) -> Result:
        """Revoke a lease or pause a role, as instructed.

        Raises:
            BadArgument: The inner store cannot do that.
        """
        inner = overridable(self.inner)
        return await self._swap("override", lambda: inner.override(override, timeout), timeout)

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        """Read the rows of roles, as instructed."""
        return await self._raising("read", lambda: self.inner.read(roles, timeout), timeout)

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        """Read past terms. The instructions for "read" apply."""
        return await self._raising("read", lambda: self.inner.past(roles, timeout), timeout)

    async def kept(self, role: str, timeout: float) -> Kept:
        """Read the text that a role keeps. The instructions for "read" apply.

        Raises:
            BadArgument: The inner store keeps no texts.
        """
        inner = kept_of(self.inner)
        return await self._raising("read", lambda: inner.kept(role, timeout), timeout)

    async def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        """Yield the rows of the inner feed, with the changes that instructions make."""
        await self._raising("watch", _nothing, math.inf)
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[Lease | StoreUnavailable]()
        self._feeds.append((loop, queue))
        pump = loop.create_task(self._pump(roles, queue))
        try:
            while True:
                item = await queue.get()
                if isinstance(item, StoreUnavailable):
                    raise item
                yield item
        finally:
            self._feeds.remove((loop, queue))
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    def announcements(self) -> Announcements:
        """Return the announcements of the inner store. Instructions do not affect them, because
        announcements never decide who leads.

        Raises:
            BadArgument: The inner store keeps no announcements.
        """
        return announcements_of(self.inner)

    def records(self, table: str) -> Records:
        """Return the service records of the inner store. Instructions do not affect them.

        Args:
            table: The name of the table.

        Raises:
            BadArgument: The inner store keeps no service records.
        """
        return records_of(self.inner, table)

    async def close(self) -> None:
        """Cancel the requests under way, and close the inner store."""
        for task in tuple(self._under_way):
            task.cancel()
        await self.inner.close()

    def abandon(self) -> None:
        """Forget everything in a forked child, and let the inner store do the same."""
        self._feeds, self._under_way = [], set()
        self.inner.abandon()

    async def _pump(
        self, roles: Collection[str] | None, queue: asyncio.Queue[Lease | StoreUnavailable]
    ) -> None:
        try:
            async for lease in self.inner.watch(roles):
                if self._lose > 0:
                    self._lose -= 1
                    continue
                queue.put_nowait(lease)
                if self._repeat > 0:
                    self._repeat -= 1
                    queue.put_nowait(lease)
        except StoreUnavailable as err:
            queue.put_nowait(err)

    async def _swap(
        self, name: Name, perform: Callable[[], Awaitable[Result]], timeout: float
    ) -> Result:
        return await self._ask(name, perform, timeout)

    async def _raising(self, name: Name, perform: Callable[[], Awaitable[T]], timeout: float) -> T:
        outcome = await self._ask(name, perform, timeout)
        if isinstance(outcome, Failure):
            raise outcome.error()
        return outcome

    async def _ask(
        self, name: Name, perform: Callable[[], Awaitable[T]], timeout: float
    ) -> T | Failure:
        self.calls.append(name)
        waiting = self._next[name]
        instruction = waiting.popleft() if waiting else self._always.get(name)
        if instruction is None:
            return await perform()
        if instruction.fault is Fault.NOT_DONE:
            return Failure(unknown=False, detail="the test lets it fail")
        if instruction.fault is Fault.PERMANENT:
            return Failure(unknown=False, detail="the test lets it refuse", refusal=AccessDenied)
        if instruction.fault is Fault.RAISES:
            raise RuntimeError("the test lets it raise")
        if instruction.fault is Fault.UNKNOWN_NOT_DONE:
            return Failure(unknown=True, detail="the test lets it be lost")
        # The request is a task of its own: a caller that gives up or is cancelled does not stop it.
        way = asyncio.ensure_future(_travel(instruction, perform))
        kept = cast("asyncio.Future[object]", way)
        self._under_way.add(kept)
        way.add_done_callback(lambda _: self._under_way.discard(kept))
        await asyncio.wait({way}, timeout=None if math.isinf(timeout) else timeout)
        if not way.done():
            return Failure(unknown=True, detail="no answer in time")
        outcome = way.result()
        return (
            Failure(unknown=True, detail="the test lets the answer be lost")
            if instruction.fault
            else outcome
        )


async def _travel(instruction: Instruction, perform: Callable[[], Awaitable[T]]) -> T:
    if instruction.fault is Fault.HANG:
        await asyncio.Event().wait()
    await asyncio.sleep(instruction.before)
    outcome = await perform()
    await asyncio.sleep(instruction.after)
    return outcome


async def _nothing() -> None:
    pass
