"""What several processes do together, as methods of the coordinators: slots, and shared shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from coord.election.callbacks import OnElected, OnLost
from coord.election.session import HasSession

if TYPE_CHECKING:
    from coord.api.slots import AsyncSlots, Slots
    from coord.api.sync_leadership import SyncCoordinator
    from coord.recipes.shares import AsyncShares, OnGained, OnLostShard
    from coord.recipes.sync_shares import Shares


class AsyncGroups:
    """The methods of `AsyncCoordinator`."""

    __slots__ = ()

    def slots(
        self: HasSession,
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
    ) -> AsyncSlots:
        """Return a candidate for a role that several may hold at a time, not started. `AsyncSlots`
        explains the settings.

        Raises:
            BadArgument: The role or a setting is invalid.
            CoordinatorClosed: The coordinator was closed.
        """
        from coord.api.slots import AsyncSlots  # few programs use it

        return AsyncSlots(
            self,
            role,
            slots,
            ttl=ttl,
            renew_every=renew_every,
            info=info,
            on_elected=on_elected,
            on_lost=on_lost,
            drain_timeout=drain_timeout,
            at_most=at_most,
        )

    def share(
        self: HasSession,
        group: str,
        shards: int | Sequence[str],
        *,
        on_gained: OnGained = None,
        on_lost: OnLostShard = None,
        ttl: float = 30.0,
        info: Mapping[str, Any] | None = None,
        drain_timeout: float | None = None,
        grace: float = 0.0,
    ) -> AsyncShares:
        """Return a member of `group`, not started. The group shares its shards fairly, and each
        shard is worked on by one member at a time. `AsyncShares` explains the settings.

        Raises:
            BadArgument: The group, the shards or a setting is invalid, or the store keeps no
                announcements.
            CoordinatorClosed: The coordinator was closed.
        """
        from coord.recipes.shares import AsyncShares  # few programs use it

        return AsyncShares(
            self,
            group,
            shards,
            on_gained=on_gained,
            on_lost=on_lost,
            ttl=ttl,
            info=info,
            drain_timeout=drain_timeout,
            grace=grace,
        )


class Groups:
    """The methods of `Coordinator`."""

    __slots__ = ()

    def slots(
        self: SyncCoordinator,
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
    ) -> Slots:
        """Return a candidate for a role that several may hold at a time, not started. `Slots`
        explains the settings.

        Raises:
            BadArgument: The role or a setting is invalid.
            CoordinatorClosed: The coordinator was closed.
        """
        from coord.api.slots import Slots  # few programs use it

        return Slots(
            self,
            role,
            slots,
            ttl=ttl,
            renew_every=renew_every,
            info=info,
            on_elected=on_elected,
            on_lost=on_lost,
            drain_timeout=drain_timeout,
            at_most=at_most,
        )

    def share(
        self: SyncCoordinator,
        group: str,
        shards: int | Sequence[str],
        *,
        on_gained: OnGained = None,
        on_lost: OnLostShard = None,
        ttl: float = 30.0,
        info: Mapping[str, Any] | None = None,
        drain_timeout: float | None = None,
        grace: float = 0.0,
    ) -> Shares:
        """Return a member of `group`, not started. The group shares its shards fairly, and each
        shard is worked on by one member at a time. `Shares` explains the settings.

        Raises:
            BadArgument: The group, the shards or a setting is invalid, or the store keeps no
                announcements.
            CoordinatorClosed: The coordinator was closed.
        """
        from coord.recipes.sync_shares import Shares  # few programs use it

        return Shares(
            self,
            group,
            shards,
            on_gained=on_gained,
            on_lost=on_lost,
            ttl=ttl,
            info=info,
            drain_timeout=drain_timeout,
            grace=grace,
        )
