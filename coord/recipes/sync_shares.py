"""`Shares`: a member of a group for threaded programs, in front of an `AsyncShares`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from coord.election.callbacks import ThreadDispatcher
from coord.election.session import HasSession
from coord.election.term import Term
from coord.errors import CoordinatorClosed
from coord.recipes.membership import GroupMember
from coord.recipes.shard_work import Shard, ThreadWork
from coord.recipes.shares import AsyncShares, OnGained, OnLostShard
from coord.runtime import process
from coord.runtime.facade import HasPortal, PublicDir, blocking
from coord.runtime.portal import Portal

Function = TypeVar("Function", bound=Callable[..., Any])


class SyncCoordinator(HasPortal, Protocol):
    """What `Shares` needs of the coordinator that made it."""

    @property
    def inner(self) -> HasSession:
        """Its async counterpart."""


class Shares(PublicDir, internal=("coordinator", "inner", "portal")):
    """A member of a group, for threaded programs: it has the settings and methods of `AsyncShares`.

    Each call blocks until its outcome. Callbacks and the work on a shard run in threads.
    `coordinator.share(group, shards)` makes one. All durations are in seconds.

    Args:
        coordinator: The `Coordinator` whose store and background thread it uses.
        group: The name of the group: a string of 1 to 100 bytes.
        shards: How many shards there are, 1 to 4,096, which are then called 0, 1, 2, …; or the
            names of the shards. All members must give the same.
        on_gained: Called as `on_gained(shard, term)`.
        on_lost: Called as `on_lost(shard, term, reason)`, exactly once for each `on_gained`.
        ttl: Lease duration of a shard. If a member crashes, the others take its shards after at
            most this time.
        info: What others see of this member: a dict that JSON can hold.
        drain_timeout: Time that the work on a shard has to end before its lease is left to run out;
            None means the ttl.
        grace: Time for which a member that has left still counts. A rolling restart then moves
            fewer shards. After a crash its shards wait for so long.

    Raises:
        BadArgument: The group, the shards or a setting is invalid, or the store keeps no
            announcements.
        CoordinatorClosed: The coordinator was closed.
    """

    def __init__(
        self,
        coordinator: SyncCoordinator,
        group: str,
        shards: int | Sequence[str],
        *,
        on_gained: OnGained = None,
        on_lost: OnLostShard = None,
        ttl: float = 30.0,
        info: Mapping[str, Any] | None = None,
        drain_timeout: float | None = None,
        grace: float = 0.0,
    ) -> None:
        self.coordinator = coordinator
        self.inner = AsyncShares(
            coordinator.inner,
            group,
            shards,
            on_gained=on_gained,
            on_lost=on_lost,
            ttl=ttl,
            info=info,
            drain_timeout=drain_timeout,
            grace=grace,
            dispatcher=lambda role: ThreadDispatcher(f"coord callbacks {role[:40]!r}"),
            run_work=ThreadWork(),
            owner=coordinator,
        )

    def __repr__(self) -> str:
        return repr(self.inner).replace("AsyncShares", "Shares", 1)

    @property
    def portal(self) -> Portal:
        """The background thread that it runs on."""
        return self.coordinator.portal

    @property
    def group(self) -> str:
        """The name of the group."""
        return self.inner.group

    @property
    def shards(self) -> Sequence[Shard]:
        """All shards of the group."""
        return self.inner.shards

    @property
    def mine(self) -> dict[Any, Term]:
        """The shards that this member holds, by the clock, each with its term."""
        return self.inner.mine

    @property
    def members(self) -> list[GroupMember]:
        """The members of the group as this one knows them, by id; empty while it is stopped."""
        return self.inner.members

    @property
    def settled(self) -> bool:
        """Whether every shard is held, and every member has what it should, as this one knows."""
        return self.inner.settled

    def work(self, function: Function) -> Function:
        return self.inner.work(function)

    def start(self) -> None:
        process.close_at_exit(self.coordinator, hold=False)
        self.portal.call(self.inner.start)

    def stop(self) -> None:
        try:
            self.portal.call(self.inner.stop)
        except CoordinatorClosed:
            return  # closing has stopped it
        except BaseException:  # an interruption, perhaps before the call has reached the loop
            self.portal.post(self.inner.stop_soon)
            raise

    wait_settled = blocking(AsyncShares.wait_settled)

    def __enter__(self) -> Shares:
        try:
            self.start()
        except BaseException:  # nobody else will stop it
            self.portal.post(self.inner.stop_soon)
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        stopped = False
        try:
            self.stop()
            stopped = True
        finally:
            if not stopped:  # a signal handler has raised before `stop` began
                self.portal.post(self.inner.stop_soon)

    work.__doc__ = AsyncShares.work.__doc__
    start.__doc__ = AsyncShares.start.__doc__
    stop.__doc__ = AsyncShares.stop.__doc__
