"""Who leads, for people and caches: the leader cache, `watch_leader` and `watch_leaders`.

Nothing here decides who leads.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from coord.core.info import ObservedInfo
from coord.core.lease import Lease, with_remaining
from coord.core.sharing import is_agreement
from coord.errors import CoordError
from coord.runtime.retry import Backoff, reconnecting

if TYPE_CHECKING:
    from coord.stores.protocol import Store

READ_TIMEOUT = 2.0
"""Seconds that a look at a lease may take that seems to have expired."""
SOON = 1.0
"""Leases that expire within so many seconds are looked at together."""
FAILED_AGAIN, VACANT_AGAIN = 2.0, 30.0
"""Seconds until a role is looked at again: after the store did not answer, and while it has no
leader. A feed may leave renewals out, and may lose the row of a new leader."""
MAX_OUTDATED = 100
"""So many times at which leases of earlier leaders would have expired, and no more than there are
roles, a watcher keeps."""


class ObservedLease(NamedTuple):
    """A lease as this process last saw it, and when it expires on a clock of this process."""

    lease: Lease
    expires_at: float
    has_leader: bool
    """Whether the holder leads until the lease expires. It is computed once for all lookups."""

    def leader(self, now: float) -> Lease | None:
        """Return the lease if it has a leader at `now`, with `remaining` counted from `now`."""
        remaining = self.expires_at - now
        if not self.has_leader or remaining <= 0:
            return None
        return with_remaining(self.lease, remaining)


def latest(before: ObservedLease | None, row: Lease, now: float) -> ObservedLease:
    """Return what is known of a role after `row` was received at `now`.

    A feed may repeat rows and deliver an old one late, so an older row changes nothing. RethinkDB's
    feeds carry no server time, so `remaining` is the full ttl there. If this revision was seen
    before, the earlier expiry counts. They carry no info either, so what an earlier read said of
    the same term still counts.
    """
    expires_at = now + row.remaining
    if before is not None:
        if row.older_than(before.lease):
            return before
        if row.revision == before.lease.revision:
            expires_at = min(expires_at, before.expires_at)
        same_term = (row.holder, row.token) == (before.lease.holder, before.lease.token)
        if same_term and not row.info and before.lease.info:
            row = replace(row, info=before.lease.info)
    return ObservedLease(row, expires_at, not (row.vacant or row.reserved or row.withheld))


class LeaderTracker:
    """Tells when the leader of one role changes, or what the leader says about itself.

    It takes rows from reads and feeds, in any order and repeated. `now` is always a time in seconds
    on one clock of this process.
    """

    def __init__(self) -> None:
        self._observed: ObservedLease | None = None
        self._reported: tuple[str | None, int] | None = None
        self._reported_info = ObservedInfo()

    @property
    def expires_at(self) -> float:
        """When the lease expires unless it is renewed, on the clock of this process."""
        return 0.0 if self._observed is None else self._observed.expires_at

    @property
    def has_leader(self) -> bool:
        """Whether the role had a leader at the last call of `update` or `has_changed`."""
        return self._reported is not None

    def update(self, row: Lease, now: float) -> bool:
        """Take a row that was received at `now`, and return `has_changed(now)`."""
        self._observed = latest(self._observed, row, now)
        return self.has_changed(now)

    def replace(self, row: Lease, now: float) -> bool:
        """Take a row of a read that was sent after the last row had been received, and return
        `has_changed(now)`.

        An older row counts, too: the feed has shown a write that was lost.
        """
        if self._observed is not None and row.older_than(self._observed.lease):
            self._observed = None
        return self.update(row, now)

    def has_changed(self, now: float) -> bool:
        """Return whether the leader at `now`, or what it says, differs from the last call.

        It may change without a row: a lease expires, and nobody takes it.
        """
        leader = self.leader(now)
        current = None if leader is None else (leader.holder, leader.token)
        previous, self._reported = self._reported, current
        if leader is None:
            return current != previous
        self._reported_info, says_more = self._reported_info.after(leader, current == previous)
        return current != previous or says_more

    def leader(self, now: float) -> Lease | None:
        """Return the lease of the leader at `now`; None if there is none."""
        return None if self._observed is None else self._observed.leader(now)


class LeaderCache:
    """Answers who leads the roles that are being watched, from memory.

    The feed writes it on the session's event loop; any thread reads it. It knows a role while
    somebody watches the role's leader and the feed is alive. When the feed breaks, or a lease seems
    to have expired, lookups ask the store again: a feed may leave renewals out. It is as fresh as
    the feed: about a millisecond behind the store.
    """

    def __init__(self) -> None:
        self._watched: dict[str, int] = {}
        self._leases: dict[str, ObservedLease] = {}
        self._before: dict[str, ObservedLease] = {}
        """What was known until the feed broke: it still says when those revisions expire."""

    def track(self, role: str) -> None:
        """Remember what `update` brings about `role`, until as many calls of `untrack`."""
        self._watched[role] = self._watched.get(role, 0) + 1

    def untrack(self, role: str) -> None:
        """Undo one call of `track`."""
        self._watched[role] -= 1
        if self._watched[role] == 0:
            del self._watched[role]
            self._leases.pop(role, None)
            self._before.pop(role, None)

    def update(self, lease: Lease) -> None:
        """Take a row of the feed or of a read."""
        role = lease.role
        if role in self._watched:
            before = self._leases.get(role) or self._before.get(role)
            observed = latest(before, lease, time.monotonic())
            if observed is not before:
                self._leases[role] = observed

    def refresh(self, lease: Lease) -> None:
        """Take a row that a lookup read, if the feed of its role is alive."""
        if lease.role in self._leases:
            self.update(lease)

    def invalidate(self) -> None:
        """Forget who leads: the feed broke."""
        self._before |= self._leases
        self._leases.clear()

    def known(self, role: str, now: float) -> ObservedLease | None:
        """Return what is known of a role at `now`, a time of `time.monotonic`; None if the store
        has to be asked."""
        observed = self._leases.get(role)
        if observed is None or observed.expires_at > now or observed.lease.vacant:
            return observed
        return None


class LeaderSource(Protocol):
    """What `watch_leader` needs of a session."""

    leaders: LeaderCache
    store: Store

    def subscribe(self, role: str, listener: Callable[[Lease], None]) -> Callable[[], None]: ...

    async def read(self, roles: Collection[str] | None) -> list[Lease]: ...


RowQueue = asyncio.Queue[tuple[Lease, float]]
"""Rows, each with the time at which it was received: its consumer may be slow, and the lease runs
from that time."""


async def next_row(rows: RowQueue, timeout: float | None) -> tuple[Lease, float] | None:
    """Return the next row; None if none comes within `timeout` seconds (None: no limit)."""
    # Not `asyncio.wait_for`: before Python 3.12 it swallows a cancellation that comes together with
    # a row.
    if not rows.empty():
        return rows.get_nowait()
    getting = asyncio.ensure_future(rows.get())
    try:
        await asyncio.wait({getting}, timeout=timeout)
    finally:
        if not getting.done():
            getting.cancel()
    return getting.result() if getting.done() and not getting.cancelled() else None


async def _read_again(store: Store, roles: Collection[str] | None) -> list[Lease] | None:
    """Return the rows of `roles` (None: of all roles); None if the store is away.

    A feed may leave renewals out, so only the row itself says whether a lease has expired.
    """
    try:
        rows = await store.read(roles, READ_TIMEOUT)
    except CoordError:
        return None
    return [row for row in rows if roles is not None or not is_agreement(row)]


class LeaderChange(NamedTuple):
    """The new leader of a role.

    Attributes:
        role: The role.
        leader: The lease of the leader; None if there is none.
    """

    role: str
    leader: Lease | None


class WatchedRoles:
    """Who leads the roles that a watcher follows, and when to read which rows again.

    A row is read again when its lease seems to have expired, and soon after a read that failed. All
    rows of roles without a leader are read every half a minute; a watcher of all roles reads all
    rows then, because a role may also have got its first row.

    Args:
        role: The role that is watched; None for all roles.
        now: The time in seconds, on the clock of all later calls.
    """

    def __init__(self, role: str | None, now: float) -> None:
        self._role = role
        self._trackers: dict[str, LeaderTracker] = {}
        self._reads: list[tuple[float, str]] = []
        """A heap with times to read single roles. Only those in `_read_at` count."""
        self._read_at: dict[str, float] = {}
        self._read_vacant_at = now + VACANT_AGAIN

    def leader(self, role: str, now: float) -> Lease | None:
        """Return the lease of the leader of `role` at `now`; None if there is none."""
        return self._trackers[role].leader(now)

    def received(self, row: Lease, now: float) -> list[LeaderChange]:
        """Take a row that was received at `now`, and return what it changes."""
        tracker = self._trackers.setdefault(row.role, LeaderTracker())
        return self._after(row.role, now, changed=tracker.update(row, now))

    def seconds_until_read(self, now: float) -> float:
        """Return in how many seconds `due` may have something to read."""
        times = [at for at, _ in self._reads[:1]]
        if self._has_vacant():
            times.append(self._read_vacant_at)
        return max(0.0, min(times) - now) if times else VACANT_AGAIN

    def due(self, now: float) -> Collection[str] | None:
        """Return the roles to read at `now`, which may be none; None means all roles."""
        if self._has_vacant() and self._read_vacant_at <= now:
            return None if self._role is None else [self._role]
        due = self._expired(now)
        return due + self._expired(now + SOON) if due else []

    def read(
        self, roles: Collection[str] | None, rows: Collection[Lease], now: float
    ) -> list[LeaderChange]:
        """Take the rows that a read of `roles` (None: of all roles) returned at `now`, and return
        what they change."""
        self._vacant_was_read(roles, now + VACANT_AGAIN)
        by_role = {row.role: row for row in rows}
        changes = []
        for role in sorted(self._trackers.keys() | by_role if roles is None else roles):
            row = by_role.get(role) or Lease(role)
            tracker = self._trackers.setdefault(role, LeaderTracker())
            changed = tracker.replace(row, now)
            changes += self._after(role, now, changed=changed)
            if row.led and not tracker.has_leader:  # it expires sooner by the clock of this process
                self._schedule(role, now + FAILED_AGAIN)
            if roles is None and role not in by_role:  # it was retired
                del self._trackers[role]
        return changes

    def read_failed(self, roles: Collection[str] | None, now: float) -> list[LeaderChange]:
        """Note that a read of `roles` (None: of all roles) failed, and return who leads no longer:
        nobody knows of a renewal."""
        self._vacant_was_read(roles, now + FAILED_AGAIN)
        changes = []
        for role in self._expired(now) if roles is None else roles:
            changes += self._after(role, now, changed=self._trackers[role].has_changed(now))
            self._schedule(role, now + FAILED_AGAIN)
        return changes

    def _has_vacant(self) -> bool:
        """Whether a role that is watched may have no leader."""
        if self._role is None:
            return True
        return self._role not in self._trackers or not self._trackers[self._role].has_leader

    def _vacant_was_read(self, roles: Collection[str] | None, again_at: float) -> None:
        if self._role is not None or roles is None:
            self._read_vacant_at = again_at

    def _after(self, role: str, now: float, *, changed: bool) -> list[LeaderChange]:
        tracker = self._trackers[role]
        if tracker.has_leader:
            self._schedule(role, tracker.expires_at)
        else:
            self._read_at.pop(role, None)
            if self._role is not None:
                self._read_vacant_at = max(self._read_vacant_at, now + VACANT_AGAIN)
        return [LeaderChange(role, tracker.leader(now))] if changed else []

    def _schedule(self, role: str, at: float) -> None:
        if at < self._read_at.get(role, math.inf):
            self._read_at[role] = at
            heapq.heappush(self._reads, (at, role))
            # A role that changes hands often would leave one time behind for each term.
            if len(self._reads) > 2 * len(self._read_at) + MAX_OUTDATED:
                self._reads = [(at, role) for role, at in self._read_at.items()]
                heapq.heapify(self._reads)

    def _expired(self, before: float) -> list[str]:
        """Take the roles from the heap that are to be read before a time, unless they were renewed
        since."""
        expired = []
        while self._reads and self._reads[0][0] <= before:
            at, role = heapq.heappop(self._reads)
            if self._read_at.get(role) != at:
                continue
            del self._read_at[role]
            tracker = self._trackers[role]
            if tracker.has_leader and tracker.expires_at > before:
                self._schedule(role, tracker.expires_at)
            else:
                expired.append(role)
        return expired


async def _changes(
    store: Store, watched: WatchedRoles, rows: RowQueue, on_read: Callable[[Lease], None]
) -> AsyncGenerator[LeaderChange, None]:
    """Yield what the rows of a feed change, and the reads that `watched` asks for.

    `on_read` is called with each row of a read.
    """
    loop = asyncio.get_running_loop()
    while True:
        row = await next_row(rows, watched.seconds_until_read(loop.time()))
        if row is not None:
            changes = watched.received(*row)
        elif (due := watched.due(loop.time())) == []:
            continue
        elif (leases := await _read_again(store, due)) is None:
            changes = watched.read_failed(due, loop.time())
        else:
            for lease in leases:
                on_read(lease)
            changes = watched.read(due, leases, loop.time())
        for change in changes:
            yield change


async def watch_leader(source: LeaderSource, role: str) -> AsyncIterator[Lease | None]:
    """Yield the lease of the present leader (None if there is none), then each change of the leader
    or of its info.

    A lease that expires without a successor is reported when it expires, by the clock of this
    process, after another look at its row. A feed may show a write that fails later, so use this to
    inform, not to decide.
    """
    rows = RowQueue()
    loop, first_read = asyncio.get_running_loop(), False

    def receive(lease: Lease) -> None:
        if first_read:
            source.leaders.update(lease)
        rows.put_nowait((lease, loop.time()))

    source.leaders.track(role)
    unsubscribe = source.subscribe(role, receive)
    try:
        leases = await source.read([role])
        present = leases[0] if leases else Lease(role)
        source.leaders.update(present)
        first_read = True
        watched = WatchedRoles(role, loop.time())
        watched.received(present, loop.time())
        yield watched.leader(role, loop.time())
        changes = _changes(source.store, watched, rows, source.leaders.update)
        async with aclosing(changes):
            async for _, leader in changes:
                yield leader
    finally:
        unsubscribe()
        source.leaders.untrack(role)


class LeadersSource(Protocol):
    """What `watch_leaders` needs of a session."""

    store: Store

    async def read(self, roles: Collection[str] | None) -> list[Lease]: ...


async def watch_leaders(source: LeadersSource) -> AsyncIterator[LeaderChange]:
    """Yield each role that has a leader, then each change of any role's leader or of its info.

    It continues through outages, and reports afterwards what changed meanwhile. As with
    `watch_leader`, use it to inform, not to decide.
    """
    loop, rows = asyncio.get_running_loop(), RowQueue()

    def take(lease: Lease) -> None:
        if not is_agreement(lease):
            rows.put_nowait((lease, loop.time()))

    for lease in sorted(await source.read(None), key=lambda lease: lease.role):
        take(lease)
    watched = WatchedRoles(None, loop.time())
    feed = loop.create_task(
        reconnecting(lambda: source.store.watch(None), take, Backoff(0.05, 5.0)),
        name="coord watch_leaders",
    )
    try:
        changes = _changes(source.store, watched, rows, lambda _: None)
        async with aclosing(changes):
            async for change in changes:
                yield change
    finally:
        feed.cancel()
        await asyncio.gather(feed, return_exceptions=True)
