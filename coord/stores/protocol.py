"""What a store must do: four small atomic operations on one row a role, a read, and a feed of hints.

A store is driven from one asyncio loop. Swaps (`claim`, `renew`, `release`) never raise for trouble: they answer with
a `Failure` that says whether the request may have been applied (rule 8 in `coord/election.py`). Reads raise
`StoreUnavailable` or `StoreRefused`. Every call is bounded by its `timeout` (seconds), connecting included, and a swap
that was given up must not leave a connection behind on which its late answer could be taken for another's.

`coord.testing.StoreContract` is the suite that a store must pass.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from typing import Any, Protocol, runtime_checkable

from coord.lease import Lease
from coord.operations import Claim, Operation, Release, Renew, Result
from coord.past import PastTerm


@runtime_checkable
class Store(Protocol):
    """One place where leases are kept. All times are in seconds."""

    @property
    def url(self) -> str:
        """The URL it was made from, with any password taken out."""

    @property
    def max_clock_skew(self) -> float | None:
        """How far the store's clock may be off, for takeover by that clock; None switches it off (rule 4)."""

    async def open(self, timeout: float) -> None:
        """Reach the store and see that it is usable. Raises `StoreUnavailable`, `NotSetUp` or `AccessDenied`."""

    async def claim(self, claim: Claim, timeout: float) -> Result:
        """One query. Applied or not, the answer carries the row as it stands after it."""

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        """One query for all of them (each for another role); the results are in the order of the requests.

        What the row says of its holder (`info`, `since`) may be missing in the answer to one that was applied.
        """

    async def release(self, release: Release, timeout: float) -> Result:
        """One query."""

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        """The rows of these roles that exist (None: of every role), as last committed, in any order. One query."""

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        """The terms that these roles' rows remember (None: of every role), newest first within a role. One query.

        They were written by the swaps themselves: see `coord/past.py`.
        """

    def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        """Rows of these roles (None: of every role, those that appear later, too): first all that exist, then each as
        it changes, as soon as possible.

        Only a hint: may lose, repeat or anticipate writes. But what it shows of a row is of one write, ttl included: a
        challenger may count a takeover from it. A feed that shows renewals too spares challengers their queries.
        Ends by raising `StoreUnavailable`; never ends otherwise until it is closed (`aclose`).
        """

    async def close(self) -> None:
        """Let go of everything. Never raises, and takes no longer than a second."""

    def abandon(self) -> None:
        """In a forked child: forget every connection without touching it (rule 9)."""


@runtime_checkable
class Prompt(Protocol):
    """What a store may be able to do besides: send before anybody awaits. A handover does not wait for tasks then."""

    def begin(self, operation: Operation, timeout: float) -> Coroutine[Any, Any, Result] | None:
        """Send a claim, a release or one renewal in this very turn of the loop. What is returned must be awaited, and
        is its result, as of the method of that name; None: that cannot be done now, and nothing was sent."""


@runtime_checkable
class Bulk(Protocol):
    """What a store may be able to do besides: many swaps as one. Thousands of roles are claimed and given back in
    seconds then, whether a process starts, ends, or takes over from one that was killed."""

    async def swap_all(self, asked: Sequence[Claim | Release], timeout: float) -> Sequence[Result]:
        """As `claim` and `release` for each (each for another role), in a few queries however many they are; the
        results are in the order of the requests. Each row is swapped atomically, not all of them together."""
