"""Who leads the roles that are being watched, answered from memory."""

from __future__ import annotations

import time

from coord.lease import Lease

_UNKNOWN = (None, 0.0)


class Known:
    """Written by the watchers on the coordinator's loop, read from any thread.

    A role is here while somebody watches its leader and the feed is alive; when the feed breaks, what was known is
    forgotten, and lookups ask the store again. As fresh as the feed: a millisecond or so behind the store.
    """

    def __init__(self) -> None:
        self._watched: dict[str, int] = {}
        self._leases: dict[str, tuple[Lease, float]] = {}
        self._before: dict[str, tuple[Lease, float]] = {}
        """What was known until the feed broke: it still tells when those very writes run out."""

    def watch(self, role: str) -> None:
        self._watched[role] = self._watched.get(role, 0) + 1

    def unwatch(self, role: str) -> None:
        self._watched[role] -= 1
        if self._watched[role] == 0:
            del self._watched[role]
            self._leases.pop(role, None)
            self._before.pop(role, None)

    def saw(self, lease: Lease) -> None:
        """The feed, or a read, showed this."""
        if lease.role in self._watched:
            runs_out = time.monotonic() + lease.remaining
            before = self._leases.get(lease.role) or self._before.get(lease.role)
            if before is not None and lease.sight == before[0].sight:
                runs_out = min(runs_out, before[1])  # a feed without a clock gives every row its whole ttl
            if before is None or not lease.older_than(before[0]):
                self._leases[lease.role] = (lease, runs_out)

    def forget(self) -> None:
        """The feed broke: nothing is known any more."""
        self._before |= self._leases
        self._leases.clear()

    def has(self, role: str) -> bool:
        """Whether `leader` is an answer."""
        return role in self._leases

    def leader(self, role: str) -> Lease | None:
        """Who leads, or None for nobody; only where `has` says so."""
        lease, runs_out = self._leases.get(role, _UNKNOWN)
        if lease is None or lease.vacant or lease.reserved:
            return None
        left = runs_out - time.monotonic()
        # As `dataclasses.replace`, in a third of the time.
        seen = lease.renewed_at, left, lease.info, lease.since
        return Lease(lease.role, lease.holder, lease.token, lease.beat, lease.ttl, *seen) if left > 0 else None
