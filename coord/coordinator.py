"""`Coordinator`: a store and everything that can be done with it, for threaded programs."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from coord import checks, events, forking, leaving, urls
from coord.async_coordinator import AsyncCoordinator
from coord.engine import Engine
from coord.errors import BadArgument
from coord.leadership import Leadership
from coord.sync_orders import Orders

if TYPE_CHECKING:
    from coord.heartbeat import Heartbeat
    from coord.registry import ServiceRegistry
    from coord.stores.protocol import Store

T = TypeVar("T")
EXIT_DRAIN = 5.0
"""Seconds that the end of a process waits for work to end; what does not end keeps its lease until it runs out."""


class Coordinator(Orders):
    """Everything about roles on one store, from plain threads. One background thread, whatever the number of roles.

    Takes what `AsyncCoordinator` takes. Makes no connection until something is asked; `coord.connect` checks at once.
    """

    def __init__(self, url: str | None = None, *, timeout: float = 5.0, store: Store | None = None) -> None:
        self.inner = AsyncCoordinator(url, timeout=timeout, store=store)
        self.engine = Engine("coord")
        self.closing: set[Heartbeat] = set()
        """What ends before the store is let go of."""
        self._shared: dict[str, Leadership] = {}
        self._lock = threading.Lock()
        forking.watch(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    @property
    def _asked(self) -> AsyncCoordinator:
        return self.inner

    @property
    def url(self) -> str:
        """Where it is, without secrets."""
        return self.inner.url

    def __enter__(self) -> Coordinator:
        self.check()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def check(self, timeout: float | None = None) -> None:
        """See that the store can be reached and used. Raises `StoreUnavailable`, `NotSetUp` or `AccessDenied`."""
        self.engine.call(functools.partial(self.inner.check, timeout))

    def close(self) -> None:
        """Stop every leadership (drain, release) and heartbeat, then let go of the store and of the thread."""
        heartbeats = tuple(self.closing)
        for one in heartbeats:
            one.halt()
        for one in heartbeats:
            one.join()
        if heartbeats:
            self.engine.call(lambda: _together(one.farewell() for one in heartbeats))
        with self._lock:
            self._shared.clear()
        if self.engine.running:
            self.engine.call(self.inner.close)
            self.engine.stop()
        leaving.forget(self)

    def leave(self) -> None:
        """What the end of the process does: `close`, but in a few seconds, and raising nothing."""
        for standing in tuple(self.inner._standings):
            standing.tenure.drain_timeout = min(standing.tenure.drain_timeout, EXIT_DRAIN)
        with contextlib.suppress(Exception):
            self.close()

    def leadership(self, role: str, **settings: Any) -> Leadership:
        """A candidate for `role`, not started. The settings are `AsyncLeadership`'s."""
        return Leadership(self, checks.role(role), **settings)

    def shared_leadership(self, role: str, ttl: float) -> Leadership:
        """The one candidate by which this whole process stands for `role` (`@leader_only`), started or not."""
        with self._lock:
            lead = self._shared.get(role)
            if lead is None:
                lead = self._shared[role] = self.leadership(role, ttl=ttl)
        if lead.timing.ttl != ttl:
            raise BadArgument(
                "ttl", ttl, f"this process already stands for {role!r} with a ttl of {lead.timing.ttl:g} s"
            )
        return lead

    def unique_service(self, role: str, candidate: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """The one service of that role, after claiming or keeping it for `candidate` when one is given.

        `candidate` is a dict with at least `ttl` (seconds); the rest is what others see, and is kept as given. It
        claims a free role, or renews the hold of an earlier call, in one query; call it again within the ttl, for
        instance on each pass of a loop. Either way the answer is the record of who has the role (the fields of its
        candidate with `role`, `ttl`, `holder`, `token`, `last_heartbeat`, and `mine`), or None when nobody has.
        Raises `StoreUnavailable` or `StoreRefused`; then the role may or may not have been had (rule 8).
        """
        if candidate is not None:
            leaving.release_at_exit(self)
        return self.engine.call(functools.partial(self.inner.unique_service, role, candidate))

    @functools.cached_property
    def services(self) -> ServiceRegistry:
        """The service registry of the table `services`; `ServiceRegistry(coordinator, table)` for another."""
        from coord.registry import ServiceRegistry

        return ServiceRegistry(self)

    def after_fork(self) -> None:
        """In a forked child: the thread is not here, and nothing is ours (rule 9)."""
        self.engine = Engine("coord")
        self.closing = set()
        self._shared = {}
        self._lock = threading.Lock()


async def _together(steps: Iterable[Awaitable[None]]) -> None:
    await asyncio.gather(*steps)


class _Default:
    def __init__(self) -> None:
        self.coordinator: Coordinator | None = None
        self.lock = threading.Lock()
        forking.watch(self)

    def after_fork(self) -> None:
        self.lock = threading.Lock()


_default = _Default()


def default() -> Coordinator:
    """The coordinator of this process for `COORD_URL`, else the embedded SQLite file; made when first asked for."""
    with _default.lock:
        if _default.coordinator is None:
            _default.coordinator = Coordinator()
            events.debug("coordinator.default", url=_default.coordinator.url)
        return _default.coordinator


def resolve_url(url: str | None = None) -> str:
    """The full URL, secrets included: what a child process must be given to reach the same store."""
    return urls.resolve(url)
