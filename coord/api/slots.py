"""`AsyncSlots` and `Slots`: a candidate for a role that several may hold at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from coord.api.leadership import AsyncLeadership
from coord.api.sync_leadership import Leadership, SyncCoordinator
from coord.core import validation
from coord.election.callbacks import Dispatcher, OnElected, OnLost, ThreadDispatcher
from coord.election.session import HasSession
from coord.errors import CoordError, SlotsDiffer, StoreUnavailable
from coord.recipes.slot_elector import (
    SlotElector,
    agree_on_slots,
    slot_role,
)
from coord.runtime.facade import blocking

NO_TRANSFER = "cannot transfer a slot of {!r}: nobody chooses who gets a slot; use step_down()"


class AsyncSlots(AsyncLeadership, internal=()):
    """A candidate for a role that several candidates may hold at a time, each in a slot of its own.

    It has the methods of `AsyncLeadership`. `term.slot` is the number of the slot, from 0. Fencing
    tokens are those of the slot: give each slot data of its own, or fence by the slot and the
    token. `coordinator.slots(role, n)` makes one. All durations are in seconds.

    Args:
        coordinator: The `AsyncCoordinator` whose store and event loop it uses.
        role: The role: a string of 1 to 117 bytes.
        slots: How many may hold the role, 1 to 64. All candidates must give the same.
        ttl: Lease duration. If a holder crashes, another candidate takes its slot after at most
            this time.
        renew_every: Time between renewals; None means a third of the ttl.
        info: What others see of this candidate: a dict that JSON can hold.
        on_elected: Called as `on_elected(term)`.
        on_lost: Called as `on_lost(term, reason)`, exactly once for each `on_elected`.
        drain_timeout: Time that the work of a term has to end, before its lease is left to run out;
            None means the ttl.
        at_most: Time that the work of a term may go without `term.progress()` before the slot is
            lost; None means no limit.
        dispatcher: Where callbacks run; None means a task on the loop.
        owner: Kept alive while it is a candidate; None means nothing.

    Raises:
        BadArgument: The role or a setting is invalid.
        CoordinatorClosed: The coordinator was closed.
    """

    __slots__ = ("_verified", "slots")

    def __init__(
        self,
        coordinator: HasSession,
        role: str,
        slots: int,
        *,
        ttl: float = 30.0,
        renew_every: float | None = None,
        info: Mapping[str, Any] | None = None,
        on_elected: OnElected = None,
        on_lost: OnLost = None,
        drain_timeout: float | None = None,
        at_most: float | None = None,
        dispatcher: Dispatcher | None = None,
        owner: object = None,
    ) -> None:
        super().__init__(
            coordinator,
            role,
            ttl=ttl,
            renew_every=renew_every,
            info=info,
            on_elected=on_elected,
            on_lost=on_lost,
            drain_timeout=drain_timeout,
            at_most=at_most,
            dispatcher=dispatcher,
            owner=owner,
        )
        validation.role(slot_role(self.role, validation.MAX_SLOTS))
        self.slots = validation.slots(slots)
        self._verified = False

    async def start(self) -> None:
        """Become a candidate. Does nothing if it is one already.

        Raises:
            SlotsDiffer: The role has another number of slots.
            CoordinatorClosed: The coordinator was closed, or belongs to another event loop.
        """
        self._session.check_usable(f"start the candidate for {self.role!r}")
        if self.elector is None:
            there, self._verified = self.slots, False
            with contextlib.suppress(StoreUnavailable):  # it verifies that itself, later
                there = await agree_on_slots(self._session, self.role, self.slots)
                self._verified = True
            if there != self.slots:
                raise SlotsDiffer(self.role, there, self.slots)
        await super().start()

    async def transfer(self, to: str, *, hold: float | None = None) -> None:
        """Raise an error: nobody chooses who gets a slot. `step_down` gives it to anybody.

        Raises:
            CoordError: Always.
            CoordinatorClosed: The coordinator was closed.
        """
        self._check_open("transfer a slot of")
        raise CoordError(NO_TRANSFER.format(self.role))

    def _new_elector(self) -> SlotElector:
        return SlotElector(
            self._session,
            self.role,
            self.slots,
            options=self.options,
            callbacks=self.callbacks,
            dispatcher=self._dispatcher,
            owner=self._owner,
            verified=self._verified,
        )


class Slots(Leadership, internal=()):
    """A candidate for a role that several candidates may hold at a time, for threaded programs: it
    has the settings and methods of `AsyncSlots`.

    Args:
        coordinator: The `Coordinator` whose store and background thread it uses.
        role: The role: a string of 1 to 117 bytes.
        slots: How many may hold the role, 1 to 64. All candidates must give the same.
        ttl: Lease duration. If a holder crashes, another candidate takes its slot after at most
            this time.
        renew_every: Time between renewals; None means a third of the ttl.
        info: What others see of this candidate: a dict that JSON can hold.
        on_elected: Called as `on_elected(term)`.
        on_lost: Called as `on_lost(term, reason)`, exactly once for each `on_elected`.
        drain_timeout: Time that the work of a term has to end, before its lease is left to run out;
            None means the ttl.
        at_most: Time that the work of a term may go without `term.progress()` before the slot is
            lost; None means no limit.

    Raises:
        BadArgument: The role or a setting is invalid.
        CoordinatorClosed: The coordinator was closed.
    """

    def __init__(
        self,
        coordinator: SyncCoordinator,
        role: str,
        slots: int,
        *,
        ttl: float = 30.0,
        renew_every: float | None = None,
        info: Mapping[str, Any] | None = None,
        on_elected: OnElected = None,
        on_lost: OnLost = None,
        drain_timeout: float | None = None,
        at_most: float | None = None,
    ) -> None:
        self.coordinator = coordinator
        self.inner: AsyncSlots = AsyncSlots(
            coordinator.inner,
            role,
            slots,
            ttl=ttl,
            renew_every=renew_every,
            info=info,
            on_elected=on_elected,
            on_lost=on_lost,
            drain_timeout=drain_timeout,
            at_most=at_most,
            dispatcher=ThreadDispatcher(f"coord callbacks {str(role)[:40]!r}"),
            owner=coordinator,
        )

    def __repr__(self) -> str:
        return repr(self.inner).replace("AsyncSlots", "Slots", 1)

    @property
    def slots(self) -> int:
        """How many may hold the role."""
        return self.inner.slots

    def start(self) -> None:
        super().start()

    start.__doc__ = AsyncSlots.start.__doc__
    transfer = blocking(AsyncSlots.transfer)  # type: ignore[arg-type] # `inner` is an AsyncSlots
