"""The rows of the shards of a group, as the feed and reads show them to one member."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from coord.core.lease import Lease, Observation
from coord.core.timing import Instant
from coord.election.session import Session
from coord.errors import CoordError
from coord.recipes.membership import member_of

SILENT, UNSEEN = 0.45, 0.2
"""Parts of a ttl without news of a lease of another member after which it is read: if the feed
shows renewals, which come three times in a ttl, and if it leaves them out. Then the takeover of a
lease is due soon after a ttl without renewals, by the clock of this machine, too (rule 4)."""


@dataclass(slots=True)
class _Row:
    """One shard.

    Attributes:
        lease: Its lease as it was received last.
        since: When it was first received at this revision, on the awake clock.
        heard_at: When it was last received.
        free_at: When it may be claimed without the consent of its holder, on the awake clock.
        expired: Whether a read has shown after `free_at` that it is still at this revision.
        free_since: Since when the shard is free; None while it is not.
    """

    lease: Lease
    since: float
    heard_at: float
    free_at: float
    expired: bool = False
    free_since: float | None = None


class ShardRows:
    """What one member knows of the rows of all shards. It lives on one loop.

    Args:
        session: The session whose feed it follows.
        roles: The roles of the shards.
        me: This member, whose own leases need not be watched.
        changed: Called when a shard has another holder.
    """

    def __init__(
        self, session: Session, roles: Sequence[str], me: str, changed: Callable[[], None]
    ) -> None:
        self._session, self._me, self._changed = session, me, changed
        now, never = session.now().awake, float("inf")
        self._rows = {role: _Row(Lease(role), now, now, never, free_since=now) for role in roles}
        self._feed_shows_renewals = True
        self._unsubscribes: list[Callable[[], None]] = []

    async def open(self) -> None:
        """Read all rows, and follow them from now on.

        Raises:
            StoreUnavailable: The store did not answer within the timeout of the session.
            StoreRefused: The store will go on refusing.
        """
        if not self._unsubscribes:
            self._unsubscribes = [self._session.subscribe(role, self.take) for role in self._rows]
        await self._read(self._rows)

    def close(self) -> None:
        """Follow them no longer."""
        unsubscribes, self._unsubscribes = self._unsubscribes, []
        for unsubscribe in unsubscribes:
            unsubscribe()

    def take(self, lease: Lease) -> None:
        """Take a row from the feed, from a read, or from the answer to a request of this member."""
        row, now = self._rows.get(lease.role), self._session.now()
        if row is None or lease.older_than(row.lease):
            return
        before, row.heard_at = row.lease, now.awake
        free_at = self._free_at(lease, row, now)
        if lease.revision != before.revision:
            row.since, row.expired, row.free_at = now.awake, False, free_at
            earlier = self._session.observations.get(lease.role)
            if earlier is not None and earlier.revision == lease.revision:
                row.since = min(row.since, earlier.since)
                row.free_at = min(free_at, row.since + lease.ttl)
        else:
            row.free_at = min(row.free_at, free_at)
        row.lease = lease
        if not lease.vacant:
            row.free_since = None
        elif row.free_since is None:
            row.free_since = now.awake
        if (lease.holder, lease.reserved) != (before.holder, before.reserved):
            self._changed()

    def _free_at(self, lease: Lease, row: _Row, now: Instant) -> float:
        if lease.vacant or lease.paused:
            return float("inf")
        since = row.since if lease.revision == row.lease.revision else now.awake
        skew, expiry = self._session.max_clock_skew, since + lease.ttl
        return expiry if skew is None else min(expiry, now.awake + max(lease.remaining, 0.0) + skew)

    @property
    def due(self) -> float:
        """Seconds until a lease seems to have expired, or was silent for long, and must be read."""
        times = [self._due(row) for row in self._rows.values()]
        return max(0.0, min(times, default=float("inf")) - self._session.now().awake)

    def _due(self, row: _Row) -> float:
        if row.expired or row.lease.vacant:
            return float("inf")
        if member_of(row.lease.holder) == self._me:
            return row.free_at
        silent = SILENT if self._feed_shows_renewals else UNSEEN
        return min(row.free_at, row.heard_at + silent * row.lease.ttl)

    async def check_expired(self) -> None:
        """Read the rows that seem to have expired, or that were silent for long. If the store does
        not answer, they are read again later."""
        now = self._session.now().awake
        due = {role: row for role, row in self._rows.items() if self._due(row) <= now}
        if not due:
            return
        before = {role: row.lease for role, row in due.items()}
        try:
            await self._read(due)
        except CoordError:
            for row in due.values():
                row.heard_at, row.free_at = now, max(row.free_at, now + 1.0)
            return
        for role, row in due.items():
            row.heard_at = max(row.heard_at, now)  # also if somebody has deleted the row
            was = before[role]
            if (was.holder, was.token) == row.lease.revision[:2] and was.beat < row.lease.beat:
                self._feed_shows_renewals = False
            elif not row.lease.vacant and row.free_at <= now:
                row.expired, row.free_since = True, now
                self._changed()

    async def _read(self, roles: Collection[str]) -> None:
        for lease in await self._session.read(roles):
            self.take(lease)

    def owner(self, role: str) -> str | None:
        """Return the member that has a shard, or for which it is reserved; None if it is free."""
        row = self._rows[role]
        if row.lease.vacant or row.expired:
            return None
        return member_of(row.lease.holder) or "unknown"

    def reserved(self, role: str) -> str | None:
        """Return the id of the candidate that a shard is reserved for; None if it is not."""
        lease = self._rows[role].lease
        return lease.holder if lease.reserved and not self._rows[role].expired else None

    def free_for(self, role: str) -> float:
        """Return for how many seconds a shard has been free; 0 if it is not."""
        since = self._rows[role].free_since
        return 0.0 if since is None else self._session.now().awake - since

    def observation(self, role: str) -> Observation | None:
        """Return since when the lease of a shard has been at its revision; None if it is
        vacant."""
        row = self._rows[role]
        return None if row.lease.vacant else Observation(row.lease.revision, row.since)
