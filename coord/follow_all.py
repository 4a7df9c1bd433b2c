"""`watch_leaders`: every change of any role's leader, those of roles that appear later among them."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from coord import events
from coord.backoff import Backoff
from coord.errors import CoordError
from coord.follow import Rows, taken
from coord.lease import Lease
from coord.story import Story

if TYPE_CHECKING:
    from coord.stores.protocol import Store


class LeaderChange(NamedTuple):
    """Who leads `role` now; None for nobody."""

    role: str
    leader: Lease | None


class Source(Protocol):
    """What it needs of a coordinator."""

    store: Store

    async def read(self, roles: list[str] | None) -> list[Lease]: ...


class _Stories:
    """Those of all roles, and which lease runs out next."""

    def __init__(self) -> None:
        self._all: dict[str, Story] = {}
        self._due: list[tuple[float, str]] = []
        """A heap with one moment for each role, at which to look at it again."""
        self._awaited: set[str] = set()

    def saw(self, row: Lease, now: float) -> LeaderChange | None:
        story = self._all.setdefault(row.role, Story())
        changed = story.saw(row, now)
        self._await(row.role, story, now)
        return LeaderChange(row.role, story.leader(now)) if changed else None

    def left(self, now: float) -> float | None:
        """Seconds until one has to be looked at; None: for ever."""
        return max(0.0, self._due[0][0] - now) if self._due else None

    def run_out(self, now: float) -> list[LeaderChange]:
        """The roles that nobody leads any more since their lease has run out."""
        found = []
        while self._due and self._due[0][0] <= now:
            _, role = heapq.heappop(self._due)
            self._awaited.discard(role)
            story = self._all[role]
            if story.changed(now):
                found.append(LeaderChange(role, story.leader(now)))
            self._await(role, story, now)
        return found

    def _await(self, role: str, story: Story, now: float) -> None:
        if role not in self._awaited and story.leader(now) is not None:
            self._awaited.add(role)
            heapq.heappush(self._due, (story.runs_out, role))


async def changes_of_leaders(source: Source) -> AsyncIterator[LeaderChange]:
    """Each role that somebody leads now, then each change of any role's leader, None for nobody; through outages.

    What was seen in an outage is told after it. As `changes_of_leader`, it tells people; it decides nothing.
    """
    loop, stories, backoff = asyncio.get_running_loop(), _Stories(), Backoff(0.05, 5.0)
    rows = Rows()
    for row in sorted(await source.read(None), key=lambda one: one.role):
        rows.put_nowait((row, loop.time()))
    pump = loop.create_task(_pump(source.store, rows, backoff), name="coord watch_leaders")
    try:
        while True:
            if (came := await taken(rows, stories.left(loop.time()))) is not None:
                if (change := stories.saw(*came)) is not None:
                    yield change
            else:
                for change in stories.run_out(loop.time()):
                    yield change
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)


async def _pump(store: Store, rows: Rows, backoff: Backoff) -> None:
    """The feed's rows, again and again after a failure. The first rows of a feed are the present ones."""
    while True:
        feed = cast("AsyncGenerator[Lease, Any]", store.watch(None))
        try:
            async with contextlib.aclosing(feed):
                async for row in feed:
                    backoff.reset()
                    rows.put_nowait((row, asyncio.get_running_loop().time()))
        except CoordError as err:
            events.debug("feed.broken", error=type(err).__name__)
        await asyncio.sleep(backoff.next())
