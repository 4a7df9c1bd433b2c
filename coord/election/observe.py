"""Who leads, for people and caches: the leader cache, `watch_leader` and `watch_leaders`.

Nothing here decides who leads.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Callable, Collection
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


async def _read_again(store: Store, roles: Collection[str]) -> list[Lease] | None:
    """Return the rows of roles whose lease seems to have expired; None if the store is away.

    A feed may leave renewals out, so only the row itself says whether a lease has expired.
    """
    try:
        return await store.read(roles, READ_TIMEOUT)
    except CoordError:
        return None


async def watch_leader(source: LeaderSource, role: str) -> AsyncIterator[Lease | None]:
    """Yield the lease of the present leader (None if there is none), then each change of the leader
    or of its info.

    A lease that expires without a successor is reported when it expires, by the clock of this
    process, after another look at its row. A feed may show a write that fails later, so use this to
    inform, not to decide.
    """
    rows = RowQueue()
    loop, tracker, first_read = asyncio.get_running_loop(), LeaderTracker(), False

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
        tracker.update(present, loop.time())
        yield tracker.leader(loop.time())
        again = VACANT_AGAIN
        while True:
            left = tracker.expires_at - loop.time() if tracker.has_leader else again
            row = await next_row(rows, max(0.0, left))
            if row is not None:
                changed, now = tracker.update(*row), row[1]
            else:
                read = await _read_again(source.store, [role])
                again, now = VACANT_AGAIN, loop.time()
                if read is None:
                    again, changed = FAILED_AGAIN, tracker.has_changed(now)
                else:
                    present = read[0] if read else Lease(role)
                    source.leaders.update(present)
                    changed = tracker.replace(present, now)
                    if present.led:  # it expires sooner by the clock of this process
                        again = FAILED_AGAIN
            if changed:
                yield tracker.leader(now)
    finally:
        unsubscribe()
        source.leaders.untrack(role)


class LeaderChange(NamedTuple):
    """The new leader of a role.

    Attributes:
        role: The role.
        leader: The lease of the leader; None if there is none.
    """

    role: str
    leader: Lease | None


class LeadersSource(Protocol):
    """What `watch_leaders` needs of a session."""

    store: Store

    async def read(self, roles: Collection[str] | None) -> list[Lease]: ...


class _Trackers:
    """The trackers of all roles, and which lease expires next."""

    def __init__(self) -> None:
        self._all: dict[str, LeaderTracker] = {}
        self._due: list[tuple[float, str]] = []
        """A heap with one time for each role that has a leader: when to check it."""
        self._scheduled: set[str] = set()
        self._unread: set[str] = set()
        """The roles whose lease seems to have expired and whose row could not be read."""

    def update(self, row: Lease, now: float, *, read: bool = False) -> LeaderChange | None:
        tracker = self._all.setdefault(row.role, LeaderTracker())
        changed = tracker.replace(row, now) if read else tracker.update(row, now)
        self._unread.discard(row.role)
        self._schedule(row.role, tracker, now)
        return LeaderChange(row.role, tracker.leader(now)) if changed else None

    def seconds_until_check(self, now: float) -> float | None:
        return max(0.0, self._due[0][0] - now) if self._due else None

    def due(self, before: float) -> list[str]:
        """Return the roles whose lease seems to expire before a time."""
        # A time in the heap is that of an earlier row, if there was a renewal since.
        roles = (role for at, role in self._due if at <= before)
        return [role for role in roles if self._all[role].expires_at <= before]

    def expired(self, now: float) -> list[LeaderChange]:
        """Return the changes of roles whose lease has expired."""
        changes = []
        while self._due and self._due[0][0] <= now:
            _, role = heapq.heappop(self._due)
            self._scheduled.discard(role)
            tracker = self._all[role]
            if tracker.has_changed(now):
                changes.append(LeaderChange(role, tracker.leader(now)))
            if role in self._unread:
                self._scheduled.add(role)
                heapq.heappush(self._due, (now + FAILED_AGAIN, role))
            else:
                self._schedule(role, tracker, now)
        return changes

    def could_not_read(self, roles: Collection[str]) -> None:
        """Note that the store did not say whether the leases of `roles` have expired."""
        self._unread.update(roles)

    def _schedule(self, role: str, tracker: LeaderTracker, now: float) -> None:
        if role not in self._scheduled and tracker.leader(now) is not None:
            self._scheduled.add(role)
            heapq.heappush(self._due, (tracker.expires_at, role))


async def watch_leaders(source: LeadersSource) -> AsyncIterator[LeaderChange]:
    """Yield each role that has a leader, then each change of any role's leader or of its info.

    It continues through outages, and reports afterwards what changed meanwhile. As with
    `watch_leader`, use it to inform, not to decide.
    """
    loop, trackers, rows = asyncio.get_running_loop(), _Trackers(), RowQueue()

    def take(lease: Lease) -> None:
        if not is_agreement(lease):
            rows.put_nowait((lease, loop.time()))

    for lease in sorted(await source.read(None), key=lambda lease: lease.role):
        take(lease)
    feed = loop.create_task(
        reconnecting(lambda: source.store.watch(None), take, Backoff(0.05, 5.0)),
        name="coord watch_leaders",
    )
    try:
        while True:
            row = await next_row(rows, trackers.seconds_until_check(loop.time()))
            if row is None:
                if due := trackers.due(loop.time()):
                    due = trackers.due(loop.time() + SOON)
                    leases = await _read_again(source.store, due)
                    if leases is None:
                        trackers.could_not_read(due)
                    else:
                        by_role = {lease.role: lease for lease in leases}
                        for role in due:
                            row = by_role.get(role) or Lease(role), loop.time()
                            if (new := trackers.update(*row, read=True)) is not None:
                                yield new
                for change in trackers.expired(loop.time()):
                    yield change
            elif (new := trackers.update(*row)) is not None:
                yield new
    finally:
        feed.cancel()
        await asyncio.gather(feed, return_exceptions=True)
