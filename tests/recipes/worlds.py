"""Machines on virtual time that share one store, each with a link that may be cut or slow."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from unittest import mock

from hypothesis import Phase
from hypothesis import strategies as st

from coord import AsyncCoordinator, StoreUnavailable
from coord.core.announcements import Announcement
from coord.core.history import PastTerm
from coord.core.lease import Lease
from coord.core.operations import Claim, Failure, Release, Renew, Result
from coord.runtime.retry import rng
from coord.stores.memory.store import MemoryStore
from coord.testing.clocks import Machine, World

T = TypeVar("T")
DELAY = 0.002
"""Seconds that a request and its answer take each."""


class SeededWorld(World):
    """A world in which the ids, delays and backoffs of coord are drawn from a seed too, and the
    wall clock follows the time of the world, so that the same steps cause the same requests at the
    same times. Only one may be open at a time.

    Args:
        seed: The seed. Worlds with the same seed draw the same numbers.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng.seed(seed)
        self._patches = [
            mock.patch.object(os, "urandom", random.Random(seed).randbytes),
            mock.patch.object(time, "time", self.wall),
        ]
        for patch in self._patches:
            patch.start()

    def wall(self) -> float:
        """Return what wall clocks show."""
        return 1_800_000_000 + self.time

    def close(self) -> None:
        """Close every loop. Random numbers and the wall clock come from the system again."""
        try:
            super().close()
        finally:
            for patch in self._patches:
                patch.stop()
            rng.seed()


SEEDS = st.integers(0, 2**16)


@dataclass
class Net:
    """How likely it is that something happens to a request, or to a row of a feed.

    Attributes:
        lost: The request never arrives.
        late: The request arrives after its sender has given it up.
        answer_lost: The request arrives, and its answer does not.
        repeated: The request arrives once more, later.
        row_lost: A feed leaves the row out.
    """

    lost: float = 0.0
    late: float = 0.0
    answer_lost: float = 0.0
    repeated: float = 0.0
    row_lost: float = 0.0


class Link:
    """The store as one machine reaches it.

    Attributes:
        cut: Whether requests arrive no longer.
        deaf: Whether requests arrive and answers do not.
        net: What else may happen to requests and rows.
        last_arrival: The true time at which the last late or repeated request arrives.
    """

    url = "memory://linked"

    def __init__(self, world: World, store: MemoryStore, skew: float | None) -> None:
        self._world, self._store = world, store
        self.max_clock_skew = skew
        self.cut = self.deaf = False
        self.net = Net()
        self.last_arrival = 0.0
        self._random = random.Random(len(world.machines))

    async def open(self, timeout: float) -> None:
        await self.ask(lambda: self._store.open(timeout), timeout)

    async def claim(self, claim: Claim, timeout: float) -> Result:
        return await self._swap(lambda: self._store.claim(claim, timeout), timeout)

    async def release(self, release: Release, timeout: float) -> Result:
        return await self._swap(lambda: self._store.release(release, timeout), timeout)

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        failure: Any = Failure(unknown=True, detail="no answer")
        try:
            return await self.ask(lambda: self._store.renew(renewals, timeout), timeout)
        except StoreUnavailable:
            return [failure] * len(renewals)

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        return await self.ask(lambda: self._store.read(roles, timeout), timeout)

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        return await self.ask(lambda: self._store.past(roles, timeout), timeout)

    async def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        # The order of a set differs between processes.
        feed: Any = self._store.watch(None if roles is None else sorted(roles))
        async with contextlib.aclosing(feed):
            async for lease in feed:
                await asyncio.sleep(DELAY)
                if self.cut or self.deaf:
                    raise StoreUnavailable("the feed broke")
                if self._random.random() >= self.net.row_lost:
                    yield lease

    def announcements(self) -> Any:
        return LinkedAnnouncements(self, self._store)

    async def close(self) -> None: ...

    def abandon(self) -> None: ...

    async def _swap(self, work: Callable[[], Any], timeout: float) -> Any:
        try:
            return await self.ask(work, timeout)
        except StoreUnavailable as err:
            return Failure(unknown=True, detail=str(err))

    async def ask(self, work: Callable[[], Any], timeout: float) -> Any:
        await asyncio.sleep(DELAY)
        net, chance = self.net, self._random.random
        if self.cut or chance() < net.lost:
            pass
        elif chance() < net.late:
            self._perform_after(timeout * (1 + 3 * chance()), work)
        else:
            answer = await work()
            if chance() < net.repeated:
                self._perform_after(5 * chance(), work)
            await asyncio.sleep(DELAY)
            if not self.deaf and chance() >= net.answer_lost:
                return answer
        await asyncio.sleep(timeout)
        raise StoreUnavailable("no answer")

    def _perform_after(self, seconds: float, work: Callable[[], Any]) -> None:
        self.last_arrival = max(self.last_arrival, self._world.time + seconds)
        self._world.after(seconds, lambda: perform(work()))


def perform(work: Coroutine[Any, Any, T]) -> T:
    """Let a store in memory do something now, on no machine, and return the result."""
    try:
        work.send(None)
    except StopIteration as result:
        return result.value  # type: ignore[no-any-return]
    raise AssertionError("the memory store waited")


class LinkedAnnouncements:
    """The announcements as one machine reaches them."""

    def __init__(self, link: Link, store: MemoryStore) -> None:
        self._link, self._kept = link, store.announcements()

    async def post(self, notices: Sequence[Announcement], timeout: float) -> Mapping[str, int]:
        return await self._link.ask(lambda: self._kept.post(notices, timeout), timeout)  # type: ignore[no-any-return]

    async def withdraw(self, keys: Collection[str], timeout: float) -> None:
        await self._link.ask(lambda: self._kept.withdraw(keys, timeout), timeout)

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Announcement]:
        return await self._link.ask(lambda: self._kept.read(roles, timeout), timeout)  # type: ignore[no-any-return]

    async def watch(self) -> AsyncIterator[Announcement]:
        feed: Any = self._kept.watch()
        async with contextlib.aclosing(feed):
            async for announcement in feed:
                await asyncio.sleep(DELAY)
                if self._link.cut or self._link.deaf:
                    raise StoreUnavailable("the feed broke")
                yield announcement

    async def purge(self, timeout: float) -> int:
        return await self._kept.purge(timeout)


class Peer:
    """One process on a machine of its own."""

    def __init__(self, world: World, store: MemoryStore, skew: float | None, rate: float) -> None:
        self.machine: Machine = world.machine(f"m{len(world.machines)}", rate)
        self.link = Link(world, store, skew)
        self.coordinator = AsyncCoordinator(store=self.link, now=self.machine.now)

    @property
    def alive(self) -> bool:
        return not self.machine.dead

    def calm(self) -> None:
        """No fault any more."""
        self.machine.thaw()
        self.link.cut = self.link.deaf = False
        self.link.net = Net()


PHASES = [Phase.generate] if "COORD_MUTANT" in os.environ else list(Phase)
"""What hypothesis does: under a mutant no time is spent on a shorter example."""
CHANCE = st.sampled_from([0.0, 0.0, 0.1, 0.5])
NETS = st.builds(Net, CHANCE, CHANCE, CHANCE, CHANCE, CHANCE)
"""Nets that are bad in some way."""
