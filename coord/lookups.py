"""`AsyncLookups` for threads."""

from __future__ import annotations

import asyncio
import functools
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

from coord import checks
from coord.async_lookups import AsyncLookups
from coord.candidate import Candidate
from coord.engine import Engine
from coord.follow_all import LeaderChange
from coord.lease import Lease
from coord.past import PastTerm

T = TypeVar("T")


class Lookups:
    """The questions of `AsyncLookups`, asked on the coordinator's thread."""

    engine: Engine

    @property
    def _asked(self) -> AsyncLookups:
        raise NotImplementedError

    def leader(self, role: str) -> Lease | None:
        """Who leads `role` by the store's clock: holder, token, info, remaining seconds. None for nobody.

        One query; none while the role is being watched (`watch_leader`): then the answer is what the feed last showed.
        """
        known = self._asked.known
        return known.leader(role) if known.has(role) else self.engine.call(functools.partial(self._asked.leader, role))

    def leaders(self) -> list[Lease]:
        """All the roles that somebody leads, by name."""
        return self.engine.call(self._asked.leaders)

    def history(self, role: str | None = None) -> list[PastTerm]:
        """The last terms of `role` (None: of every role), newest first: who led, when, under which token, why it ended.

        The store keeps some of them for each role (`coord.past.KEPT`), written by the swaps that began and ended them.
        """
        return self.engine.call(functools.partial(self._asked.history, role))

    def candidates(self, role: str | None = None) -> list[Candidate]:
        """Who waits for `role` (None: for any role): the highest priority first, then who has waited longest.

        For people: it may be a ttl old, and nothing is decided by it. One query. Raises `NotSetUp` where an older coord
        set up the database.
        """
        return self.engine.call(functools.partial(self._asked.candidates, role))

    def watch_leader(self, role: str) -> Iterator[Lease | None]:
        """Who leads now, then each change, as it happens; None for nobody. Goes on through outages of the store."""
        checks.role(role)
        return self.iterate(lambda: self._asked.watch_leader(role))

    def watch_leaders(self) -> Iterator[LeaderChange]:
        """Each role that somebody leads now, then each change of any role's leader, as it happens; through outages.

        Roles that appear later are among them. A change has the fields `role` and `leader`, which is None for nobody.
        """
        return self.iterate(self._asked.watch_leaders)

    def iterate(self, begin: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
        """What an async iterator of this coordinator brings, for the calling thread; ends when this is closed."""
        brought: queue.SimpleQueue[tuple[T] | BaseException] = queue.SimpleQueue()

        async def pump() -> None:
            try:
                async for item in begin():
                    brought.put((item,))
            except BaseException as err:
                brought.put(err)
                raise
            brought.put(StopIteration())

        task = asyncio.run_coroutine_threadsafe(pump(), self.engine.loop())
        try:
            while True:
                item = brought.get()
                if isinstance(item, (StopIteration, asyncio.CancelledError)):
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item[0]
        finally:
            task.cancel()
