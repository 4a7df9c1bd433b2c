"""What can be asked about roles without standing for one: who leads, who led, and what changes. Nothing here writes."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from coord import checks, urls
from coord.candidate import Candidate, ordered
from coord.follow import changes_of_leader
from coord.follow_all import LeaderChange, changes_of_leaders
from coord.known import Known
from coord.lease import Lease
from coord.past import PastTerm
from coord.retrying import retried
from coord.watcher import Watcher

if TYPE_CHECKING:
    from coord.board.protocol import Board
    from coord.stores.protocol import Store

T = TypeVar("T")


class AsyncLookups:
    """The questions, over a store that whoever inherits this brings along. Each is one query, retried within the
    coordinator's timeout; then it raises `StoreUnavailable`, or at once `StoreRefused`."""

    store: Store
    known: Known
    _watcher: Watcher
    _timeout: float

    async def leader(self, role: str) -> Lease | None:
        """Who leads `role` by the store's clock: holder, token, info, remaining seconds. None for nobody.

        One query; none while the role is being watched (`watch_leader`): then the answer is what the feed last showed.
        """
        if self.known.has(role):
            return self.known.leader(role)
        rows = await self.read([checks.role(role)])
        return next((row for row in rows if row.led), None)

    async def leaders(self) -> list[Lease]:
        """All the roles that somebody leads, by name."""
        rows = await self.read(None)
        return sorted((row for row in rows if row.led), key=lambda row: row.role)

    async def history(self, role: str | None = None) -> list[PastTerm]:
        """The last terms of `role` (None: of every role), newest first: who led, when, under which token, why it ended.

        The store keeps some of them for each role (`coord.past.KEPT`), written by the swaps that began and ended them.
        """
        roles = None if role is None else [checks.role(role)]
        past = await self._retried(lambda timeout: self.store.past(roles, timeout))
        return sorted(past, key=lambda term: (term.role, -term.token))

    async def candidates(self, role: str | None = None) -> list[Candidate]:
        """Who waits for `role` (None: for any role): the highest priority first, then who has waited longest.

        For people: it may be a ttl old, and nothing is decided by it. One query. Raises `NotSetUp` where an older coord
        set up the database.
        """
        roles = None if role is None else [checks.role(role)]
        return ordered(await self._retried(lambda timeout: self.board.read(roles, timeout)))

    def watch_leader(self, role: str) -> AsyncIterator[Lease | None]:
        """Who leads now, then each change, as it happens; None for nobody. Goes on through outages of the store."""
        return changes_of_leader(self, checks.role(role))

    def watch_leaders(self) -> AsyncIterator[LeaderChange]:
        """Each role that somebody leads now, then each change of any role's leader, as it happens; through outages.

        Roles that appear later are among them. A change has the fields `role` and `leader`, which is None for nobody.
        """
        return changes_of_leaders(self)

    # -- what they stand on --------------------------------------------------------------------------------------

    @functools.cached_property
    def board(self) -> Board:
        """The board beside the leases (`coord.board.protocol`); `BadArgument` where the store has none.

        Nothing on it ever decides who leads.
        """
        return urls.make_board(self.store)

    def follow(self, role: str, listener: Callable[[Lease], None]) -> Callable[[], None]:
        """Hear the feed's hints about `role`; returns what ends that."""
        return self._watcher.add(role, listener)

    async def read(self, roles: list[str] | None) -> list[Lease]:
        """The rows, retried within the coordinator's timeout."""
        return await self._retried(lambda timeout: self.store.read(roles, timeout))

    async def _retried(self, ask: Callable[[float], Awaitable[T]]) -> T:
        return await retried(ask, self._timeout)
