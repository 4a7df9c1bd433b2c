"""A store that fails as told: every class of error that rule 8 knows, delays, hangs, and feeds that
misbehave."""

from __future__ import annotations

import asyncio
import enum
import math
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

from coord.core.history import PastTerm
from coord.core.lease import Lease
from coord.core.operations import Claim, Failure, Release, Renew, Result
from coord.errors import AccessDenied, BadArgument, StoreUnavailable
from coord.stores.protocol import Announcements, HasAnnouncements, HasRecords, Records, Store

T = TypeVar("T")
Name = Literal["open", "claim", "renew", "release", "read", "watch"]
NAMES: tuple[Name, ...] = ("open", "claim", "renew", "release", "read", "watch")


class Fault(enum.Enum):
    """What becomes of a request."""

    NOT_DONE = "not done, and the store says so"
    UNKNOWN_DONE = "done, and the answer is lost"
    UNKNOWN_NOT_DONE = "lost on the way; nobody can tell"
    PERMANENT = "refused: no rights"
    HANG = "lost on the way; the request waits until its timeout"
    RAISES = "the store has a defect, and raises what it should not"


@dataclass(frozen=True, slots=True)
class Instruction:
    """`before` and `after`: seconds on the way there, and on the way back. No `fault`: it is only
    slow."""

    fault: Fault | None = None
    before: float = 0.0
    after: float = 0.0


class FaultyStore:
    """Wraps any store. Without instructions it is the store that it wraps.

    >>> store = FaultyStore(MemoryStore())
    >>> store.fail("renew", Fault.UNKNOWN_DONE)          # the next renewal is done, and the answer
    lost
    >>> store.fail("claim", Fault.NOT_DONE, times=None)  # every claim fails, until `heal`
    >>> store.slow("read", 0.2)                          # the next read takes 0.2 s longer
    >>> store.down()                                     # nothing reaches the store any more, feeds
    included

    A request that outlasts its timeout answers `Failure(unknown=True)`, and takes effect later,
    when it arrives. Instructions may come from any thread. `calls` lists what was asked, by name.
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
        return self.inner.url

    @property
    def max_clock_skew(self) -> float | None:
        return self.inner.max_clock_skew

    # -- instructions
    # ------------------------------------------------------------------------------------------

    def fail(self, name: Name, fault: Fault, times: int | None = 1) -> None:
        """Let the next `times` requests of that name fail so; None: all, until `heal`."""
        self._instruct(name, Instruction(fault), times)

    def slow(
        self, name: Name, before: float = 0.0, after: float = 0.0, times: int | None = 1
    ) -> None:
        """Let them arrive `before` seconds later, and their answers `after` seconds later."""
        self._instruct(name, Instruction(None, before, after), times)

    def down(self, fault: Fault = Fault.NOT_DONE) -> None:
        """The store cannot be reached: everything fails so, and feeds die, until `heal`."""
        for name in NAMES:
            self._instruct(name, Instruction(fault), None)
        self.break_feeds()

    def heal(self) -> None:
        """Forget all instructions."""
        self._next.clear()
        self._always.clear()
        self._lose = self._repeat = 0

    def lose_hints(self, times: int) -> None:
        """The next `times` rows that feeds should tell are lost."""
        self._lose += times

    def repeat_hints(self, times: int) -> None:
        """The next `times` rows that feeds tell are told twice."""
        self._repeat += times

    def whisper(self, lease: Lease) -> None:
        """Every open feed tells this row, which nobody has written (a feed may run ahead, or come
        late)."""
        self._tell(lease)

    def break_feeds(self) -> None:
        """Every open feed dies. Feeds can be opened anew, unless `watch` fails."""
        self._tell(StoreUnavailable("the feed was broken"))

    def _instruct(self, name: Name, trouble: Instruction, times: int | None) -> None:
        if name not in NAMES:
            raise ValueError(f"no operation {name!r}: {', '.join(NAMES)}")
        if times is None:
            self._always[name] = trouble
        else:
            self._next[name].extend([trouble] * times)

    def _tell(self, what: Lease | StoreUnavailable) -> None:
        for loop, queue in tuple(self._feeds):
            if not loop.is_closed():
                loop.call_soon_threadsafe(queue.put_nowait, what)

    # -- the store
    # ---------------------------------------------------------------------------------------------

    async def open(self, timeout: float) -> None:
        await self._raising("open", lambda: self.inner.open(timeout), timeout)

    async def claim(self, claim: Claim, timeout: float) -> Result:
        return await self._swap("claim", lambda: self.inner.claim(claim, timeout), timeout)

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        outcome = await self._ask("renew", lambda: self.inner.renew(renewals, timeout), timeout)
        return [outcome] * len(renewals) if isinstance(outcome, Failure) else outcome

    async def release(self, release: Release, timeout: float) -> Result:
        return await self._swap("release", lambda: self.inner.release(release, timeout), timeout)

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        return await self._raising("read", lambda: self.inner.read(roles, timeout), timeout)

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        return await self._raising("read", lambda: self.inner.past(roles, timeout), timeout)

    async def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        await self._raising("watch", _nothing, math.inf)
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[Lease | StoreUnavailable]()
        self._feeds.append((loop, queue))
        pump = loop.create_task(self._pump(roles, queue))
        try:
            while True:
                told = await queue.get()
                if isinstance(told, StoreUnavailable):
                    raise told
                yield told
        finally:
            self._feeds.remove((loop, queue))
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    def announcements(self) -> Announcements:
        """The inner store's. It fails by no instruction: nothing is decided by it."""
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

    async def close(self) -> None:
        for task in tuple(self._under_way):
            task.cancel()
        await self.inner.close()

    def abandon(self) -> None:
        self._feeds, self._under_way = [], set()
        self.inner.abandon()

    # -- inside
    # ------------------------------------------------------------------------------------------------

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
            raise (AccessDenied if outcome.permanent else StoreUnavailable)(outcome.detail)
        return outcome

    async def _ask(
        self, name: Name, perform: Callable[[], Awaitable[T]], timeout: float
    ) -> T | Failure:
        self.calls.append(name)
        waiting = self._next[name]
        trouble = waiting.popleft() if waiting else self._always.get(name)
        if trouble is None:
            return await perform()
        if trouble.fault is Fault.NOT_DONE:
            return Failure(unknown=False, detail="told to fail")
        if trouble.fault is Fault.PERMANENT:
            return Failure(unknown=False, detail="told to refuse", permanent=True)
        if trouble.fault is Fault.RAISES:
            raise RuntimeError("told to raise")
        if trouble.fault is Fault.UNKNOWN_NOT_DONE:
            return Failure(unknown=True, detail="told to be lost")
        # The request goes its own way: who gives it up, or is cancelled, does not call it back.
        way = asyncio.ensure_future(_travel(trouble, perform))
        kept = cast("asyncio.Future[object]", way)
        self._under_way.add(kept)
        way.add_done_callback(lambda _: self._under_way.discard(kept))
        await asyncio.wait({way}, timeout=None if math.isinf(timeout) else timeout)
        if not way.done():
            return Failure(unknown=True, detail="no answer in time")
        outcome = way.result()
        return Failure(unknown=True, detail="told to lose the answer") if trouble.fault else outcome


async def _travel(trouble: Instruction, perform: Callable[[], Awaitable[T]]) -> T:
    if trouble.fault is Fault.HANG:
        await asyncio.Event().wait()
    await asyncio.sleep(trouble.before)
    outcome = await perform()
    await asyncio.sleep(trouble.after)
    return outcome


async def _nothing() -> None:
    pass
