"""One role as it is told to people and caches: which row counts, when it runs out, whether who
leads has changed."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from coord.core.lease import Lease
from coord.errors import CoordError
from coord.runtime import log
from coord.runtime.retry import Backoff

if TYPE_CHECKING:
    from coord.stores.protocol import Store


class LeaderTracker:
    """Takes rows as they are read or shown by a feed, in any order and repeated. `now` is a clock
    of this process."""

    def __init__(self) -> None:
        self._row: Lease | None = None
        self._told: tuple[str | None, int] | None = None
        self.runs_out = 0.0
        """When the lease runs out, on that clock, if nobody prolongs it."""

    @property
    def leads(self) -> bool:
        """Whether somebody was said to lead, when it was last asked whether that has changed."""
        return self._told is not None

    def saw(self, row: Lease, now: float) -> bool:
        """Take in what came at `now`; whether somebody else led then, or nobody, than was told
        last."""
        if self._row is None or not row.older_than(self._row):
            runs_out = now + row.remaining
            if self._row is not None and row.revision == self._row.revision:
                # A feed without a clock gives every row its whole ttl: who has seen this write
                # before knows better.
                runs_out = min(runs_out, self.runs_out)
            self._row, self.runs_out = row, runs_out
        return self.changed(now)

    def changed(self, now: float) -> bool:
        """Whether that is so by `now` alone: a lease may have run out with nobody to take it."""
        leader = self.leader(now)
        who = None if leader is None else (leader.holder, leader.token)
        before, self._told = self._told, who
        return who != before

    def leader(self, now: float) -> Lease | None:
        """Who leads at `now`."""
        row = self._row
        if row is None or row.vacant or row.reserved or self.runs_out <= now:
            return None
        return replace(row, remaining=self.runs_out - now)


# -- Who leads the roles that are being watched, answered from memory.

_UNKNOWN = (None, 0.0)


class LeaderCache:
    """Written by the watchers on the coordinator's loop, read from any thread.

    A role is here while somebody watches its leader and the feed is alive; when the feed breaks,
    what was known is forgotten, and lookups ask the store again. As fresh as the feed: a
    millisecond or so behind the store."""

    def __init__(self) -> None:
        self._watched: dict[str, int] = {}
        self._leases: dict[str, tuple[Lease, float]] = {}
        self._before: dict[str, tuple[Lease, float]] = {}
        """What was known until the feed broke: it still tells when those very writes run out."""

    def track(self, role: str) -> None:
        self._watched[role] = self._watched.get(role, 0) + 1

    def untrack(self, role: str) -> None:
        self._watched[role] -= 1
        if self._watched[role] == 0:
            del self._watched[role]
            self._leases.pop(role, None)
            self._before.pop(role, None)

    def update(self, lease: Lease) -> None:
        """The feed, or a read, showed this."""
        if lease.role in self._watched:
            runs_out = time.monotonic() + lease.remaining
            before = self._leases.get(lease.role) or self._before.get(lease.role)
            if before is not None and lease.revision == before[0].revision:
                runs_out = min(
                    runs_out, before[1]
                )  # a feed without a clock gives every row its whole ttl
            if before is None or not lease.older_than(before[0]):
                self._leases[lease.role] = (lease, runs_out)

    def invalidate(self) -> None:
        """The feed broke: nothing is known any more."""
        self._before |= self._leases
        self._leases.clear()

    def covers(self, role: str) -> bool:
        """Whether `leader` is an answer."""
        return role in self._leases

    def leader(self, role: str) -> Lease | None:
        """Who leads, or None for nobody; only where `covers` says so."""
        lease, runs_out = self._leases.get(role, _UNKNOWN)
        if lease is None or lease.vacant or lease.reserved:
            return None
        left = runs_out - time.monotonic()
        # As `dataclasses.replace`, in a third of the time.
        seen = lease.renewed_at, left, lease.info, lease.since
        return (
            Lease(lease.role, lease.holder, lease.token, lease.beat, lease.ttl, *seen)
            if left > 0
            else None
        )


# -- `watch_leader`: every change of a role's leader, "nobody" among them, for as long as somebody
# listens.


class LeaderSource(Protocol):
    """What it needs of a coordinator."""

    leaders: LeaderCache

    def subscribe(self, role: str, listener: Callable[[Lease], None]) -> Callable[[], None]: ...

    async def read(self, roles: Collection[str] | None) -> list[Lease]: ...


RowQueue = asyncio.Queue[tuple[Lease, float]]
"""Rows, each with the moment at which it came: whoever takes them may be slow, and a lease runs on
from then."""


async def next_row(rows: RowQueue, within: float | None) -> tuple[Lease, float] | None:
    """The next row; None when none comes `within` so many seconds (None: wait for ever).

    Not `asyncio.wait_for`: before Python 3.12 it swallows a cancellation that comes together with a
    row."""
    if not rows.empty():
        return rows.get_nowait()
    getting = asyncio.ensure_future(rows.get())
    try:
        await asyncio.wait({getting}, timeout=within)
    finally:
        if not getting.done():
            getting.cancel()
    return getting.result() if getting.done() and not getting.cancelled() else None


async def watch_leader(source: LeaderSource, role: str) -> AsyncIterator[Lease | None]:
    """Who leads now (None for nobody), then each change.

    A lease that runs out with nobody to take it is reported when it does, by the clock of this
    process. A feed may anticipate a write that fails, so this tells people and caches; it decides
    nothing."""
    hints = RowQueue()
    loop, story, begun = asyncio.get_running_loop(), LeaderTracker(), False

    def hinted(lease: Lease) -> None:
        if begun:
            source.leaders.update(lease)
        hints.put_nowait((lease, loop.time()))

    source.leaders.track(role)
    stop = source.subscribe(role, hinted)
    try:
        rows = await source.read([role])
        present = rows[0] if rows else Lease(role)
        source.leaders.update(present)
        begun = True
        story.saw(present, loop.time())
        yield story.leader(loop.time())
        while True:
            row = await next_row(
                hints, max(0.0, story.runs_out - loop.time()) if story.leads else None
            )
            now = loop.time() if row is None else row[1]
            if story.changed(now) if row is None else story.saw(*row):
                yield story.leader(now)
    finally:
        stop()
        source.leaders.untrack(role)


# -- `watch_leaders`: every change of any role's leader, those of roles that appear later among
# them.


class LeaderChange(NamedTuple):
    """Who leads `role` now; None for nobody."""

    role: str
    leader: Lease | None


class LeadersSource(Protocol):
    """What it needs of a coordinator."""

    store: Store

    async def read(self, roles: Collection[str] | None) -> list[Lease]: ...


class _Trackers:
    """Those of all roles, and which lease runs out next."""

    def __init__(self) -> None:
        self._all: dict[str, LeaderTracker] = {}
        self._due: list[tuple[float, str]] = []
        """A heap with one moment for each role, at which to look at it again."""
        self._awaited: set[str] = set()

    def saw(self, row: Lease, now: float) -> LeaderChange | None:
        story = self._all.setdefault(row.role, LeaderTracker())
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

    def _await(self, role: str, story: LeaderTracker, now: float) -> None:
        if role not in self._awaited and story.leader(now) is not None:
            self._awaited.add(role)
            heapq.heappush(self._due, (story.runs_out, role))


async def watch_leaders(source: LeadersSource) -> AsyncIterator[LeaderChange]:
    """Each role that somebody leads now, then each change of any role's leader, None for nobody;
    through outages.

    What was seen in an outage is told after it. As `changes_of_leader`, it tells people; it decides
    nothing."""
    loop, stories, backoff = asyncio.get_running_loop(), _Trackers(), Backoff(0.05, 5.0)
    rows = RowQueue()
    for row in sorted(await source.read(None), key=lambda one: one.role):
        rows.put_nowait((row, loop.time()))
    pump = loop.create_task(_pump(source.store, rows, backoff), name="coord watch_leaders")
    try:
        while True:
            if (came := await next_row(rows, stories.left(loop.time()))) is not None:
                if (change := stories.saw(*came)) is not None:
                    yield change
            else:
                for change in stories.run_out(loop.time()):
                    yield change
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)


async def _pump(store: Store, rows: RowQueue, backoff: Backoff) -> None:
    """The feed's rows, again and again after a failure. The first rows of a feed are the present
    ones."""
    while True:
        feed = cast("AsyncGenerator[Lease, Any]", store.watch(None))
        try:
            async with contextlib.aclosing(feed):
                async for row in feed:
                    backoff.reset()
                    rows.put_nowait((row, asyncio.get_running_loop().time()))
        except CoordError as err:
            log.debug("feed.broken", error=type(err).__name__)
        await asyncio.sleep(backoff.next())
