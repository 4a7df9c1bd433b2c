"""`Coordinator`: a store for threaded programs, in front of an `AsyncCoordinator`."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from coord.api.coordinator import AsyncCoordinator
from coord.api.groups import Groups
from coord.api.sync_leadership import Leadership
from coord.core import validation
from coord.core.kept import MAX_KEEP
from coord.core.lease import Lease
from coord.election.callbacks import OnElected, OnInfo, OnLost, OnNewLeader
from coord.election.closing import Closing
from coord.election.session import Session
from coord.errors import BadArgument
from coord.runtime import process
from coord.runtime.facade import ClosesInThread, PublicDir, blocking, iterating
from coord.runtime.portal import Portal

if TYPE_CHECKING:
    from coord.api.once import Once
    from coord.core.ticks import Tick
    from coord.services.registry import ServiceRegistry
    from coord.stores.protocol import Store


class Coordinator(
    Groups,
    PublicDir,
    internal=(
        "after_fork",
        "begin_shared_call",
        "close_quickly",
        "end_shared_call",
        "forget_shared",
        "inner",
        "on_close",
        "portal",
        "session",
        "shared_leadership",
    ),
):
    """A store for threaded programs: leaderships, lookups and requests. It connects when it is
    first used.

    It has the methods of `AsyncCoordinator`; each call blocks until its outcome. All roles share
    one background thread. `coord.connect(url)` makes one and checks the store at once.

    Args:
        url: `sqlite:///absolute/path`,
            `rethinkdb://[user[:password]@]host[:port][,host…]/database`, `memory://`, or the URL of
            another backend. None means the environment variable `COORD_URL`, and without that a
            SQLite file in the state directory of the user.
        timeout: Seconds that a lookup may take, retries included, before it raises
            `StoreUnavailable`.
        store: A store to use instead of a URL (`coord.stores.protocol.Store`).

    Raises:
        BadArgument: The URL is invalid, or the timeout is not a positive number.
    """

    def __init__(
        self, url: str | None = None, *, timeout: float = 5.0, store: Store | None = None
    ) -> None:
        self.inner = AsyncCoordinator(url, timeout=timeout, store=store)
        self.portal = Portal("coord")
        self.on_close: set[ClosesInThread] = set()
        self._shared: dict[str, Leadership] = {}
        self._shared_calls: dict[str, WeakSet[Any]] = {}
        self._shared_lock = threading.RLock()  # a signal handler may call a decorated function
        process.reset_after_fork(self)
        self._closing = Closing(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    @property
    def url(self) -> str:
        """The URL of the store, without secrets."""
        return self.inner.url

    @property
    def store(self) -> Store:
        """The store that keeps the leases. It is driven from the background thread only."""
        return self.inner.store

    @property
    def session(self) -> Session:
        """What all elections of this coordinator share. It lives on the background thread."""
        return self.inner.session

    def __enter__(self) -> Coordinator:
        self.check()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    check = blocking(AsyncCoordinator.check)
    leaders = blocking(AsyncCoordinator.leaders)
    history = blocking(AsyncCoordinator.history)
    notes = blocking(AsyncCoordinator.notes)
    candidates = blocking(AsyncCoordinator.candidates)
    once_done = blocking(AsyncCoordinator.once_done)
    request_step_down = blocking(AsyncCoordinator.request_step_down)
    request_transfer = blocking(AsyncCoordinator.request_transfer)
    evict = blocking(AsyncCoordinator.evict)
    pause = blocking(AsyncCoordinator.pause)
    resume = blocking(AsyncCoordinator.resume)
    retire = blocking(AsyncCoordinator.retire)
    watch_leader = iterating(AsyncCoordinator.watch_leader)
    watch_leaders = iterating(AsyncCoordinator.watch_leaders)

    def leader(self, role: str) -> Lease | None:
        session, now = self.inner.session, time.monotonic()
        observed = session.leaders.known(role, now) if isinstance(role, str) else None
        if observed is not None and not session.closing.is_set():
            return observed.leader(now)  # without the background thread
        return self.portal.call(functools.partial(self.inner.leader, role))

    leader.__doc__ = AsyncCoordinator.leader.__doc__

    def once(
        self,
        job: str,
        tick: Tick,
        function: Callable[..., Any],
        /,
        *args: Any,
        ttl: float = 30.0,
        retry: bool = True,
        within: float | None = None,
        keep: int = MAX_KEEP,
        timeout: float | None = None,
    ) -> Once:
        validation.callback(function, "function")
        if inspect.iscoroutinefunction(function):
            allowed = "must be a plain function; AsyncCoordinator.once takes coroutine functions"
            raise BadArgument("function", function, allowed)
        process.close_at_exit(self, hold=False)
        inner = self.inner
        # Imported only here: most programs need no ticks, and the import takes milliseconds.
        from coord.api.once import OnceCall, run_sync

        call = OnceCall(
            inner, job, tick, ttl=ttl, retry=retry, within=within, keep=keep, timeout=timeout
        )
        return run_sync(self.portal, call, function, *args)

    once.__doc__ = AsyncCoordinator.once.__doc__

    def unique_service(
        self, role: str, candidate: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        if candidate is not None:
            process.close_at_exit(self, hold=False)
        return self.portal.call(functools.partial(self.inner.unique_service, role, candidate))

    unique_service.__doc__ = AsyncCoordinator.unique_service.__doc__
    release = blocking(AsyncCoordinator.release)

    @contextlib.contextmanager
    def releasing(self, role: str, candidate: Mapping[str, Any] | None = None) -> Iterator[None]:
        validation.role(role)
        self.session.check_open("claim the role", role)
        try:
            yield
        finally:
            self.release(role, candidate)

    releasing.__doc__ = AsyncCoordinator.releasing.__doc__

    def leadership(
        self,
        role: str,
        *,
        ttl: float = 30.0,
        renew_every: float | None = None,
        attempt_timeout: float | None = None,
        margin: float | None = None,
        info: Mapping[str, Any] | None = None,
        on_elected: OnElected = None,
        on_lost: OnLost = None,
        on_new_leader: OnNewLeader = None,
        on_info: OnInfo = None,
        drain_timeout: float | None = None,
        at_most: float | None = None,
        token_floor: int = 0,
        priority: int = 0,
        min_tenure: float | None = None,
    ) -> Leadership:
        """Return a candidate for `role`, not started. `Leadership` explains the settings.

        Raises:
            BadArgument: The role or a setting is invalid.
            CoordinatorClosed: The coordinator was closed.
        """
        return Leadership(
            self,
            role,
            ttl=ttl,
            renew_every=renew_every,
            attempt_timeout=attempt_timeout,
            margin=margin,
            info=info,
            on_elected=on_elected,
            on_lost=on_lost,
            on_new_leader=on_new_leader,
            on_info=on_info,
            drain_timeout=drain_timeout,
            at_most=at_most,
            token_floor=token_floor,
            priority=priority,
            min_tenure=min_tenure,
        )

    def forget_shared(self, role: str) -> bool:
        """Stop the candidate that this process shares for `role`, unless it leads, or a call runs
        or waits for the role; return whether it is gone."""
        with self._shared_lock:
            if self._shared_calls.get(role):
                return False
            lead = self._shared.get(role)
            if lead is None:
                self._shared_calls.pop(role, None)
                return True
            elector = lead.inner.elector
            term = None if elector is None else elector.term
            if lead.held is not None or (term is not None and not term.drained):
                return False
            self._shared_calls.pop(role, None)
            del self._shared[role]
        lead.abandon()
        return True

    def begin_shared_call(self, role: str, call: object) -> None:
        """Note that a call uses the shared candidate, which need not exist yet, until
        `end_shared_call` or the deletion of `call`."""
        with self._shared_lock:
            self._shared_calls.setdefault(role, WeakSet()).add(call)

    def end_shared_call(self, role: str, call: object) -> None:
        """Note that a call uses the shared candidate no longer."""
        self._shared_calls.get(role, WeakSet()).discard(call)

    def shared_leadership(
        self, role: str, ttl: float, slots: int | None = None, call: object = None
    ) -> Leadership:
        """Return the one candidate for `role` that this process shares (`@leader_only`), started or
        not.

        Args:
            role: The role.
            ttl: The duration of the lease, in seconds.
            slots: How many may hold the role; None means one.
            call: What uses the candidate, until `end_shared_call` or its deletion; None means that
                nothing does.

        Raises:
            BadArgument: It exists already, with another ttl or another number of slots.
        """
        with self._shared_lock:
            lead = self._shared.get(role)
            if lead is None:
                lead = self._shared[role] = (
                    self.leadership(role, ttl=ttl)
                    if slots is None
                    else self.slots(role, slots, ttl=ttl)
                )
            if call is not None:
                self._shared_calls.setdefault(role, WeakSet()).add(call)
        if lead.timing.ttl != ttl:
            allowed = f"must be {lead.timing.ttl:g}, as in other calls of this process for {role!r}"
            raise BadArgument("ttl", ttl, allowed)
        if getattr(lead, "slots", None) != slots:
            raise BadArgument("slots", slots, f"must be as in other calls for {role!r}")
        return lead

    @functools.cached_property
    def services(self) -> ServiceRegistry:
        """The service registry of the table `services`. For another table:
        `ServiceRegistry(coordinator, table)`.

        Raises:
            BadArgument: The store keeps no service records.
            CoordinatorClosed: The coordinator was closed.
        """
        from coord.services.registry import ServiceRegistry  # few programs use it

        return ServiceRegistry(self)

    def close(self) -> None:
        """Stop every leadership (drain, then release) and every heartbeat, then close the store and
        the thread.

        A closed coordinator stays closed: every call but this one raises `CoordinatorClosed`, also
        those that only return an object, such as `leadership`. `url` and `store` still say what
        it used. Called in a callback or a job of a leadership, it returns before that, because it
        would wait for itself.
        """
        self._closing.close()

    def close_quickly(self) -> None:
        """Do what `close` does within a few seconds, because the process ends. Raises nothing."""
        self._closing.close_quickly()

    def after_fork(self) -> None:
        """In a forked child: the thread is not here, and nothing belongs to this process (rule
        9)."""
        self.portal.forget()
        self.on_close = set()
        self._shared, self._shared_calls = {}, {}
        self._shared_lock = threading.RLock()
        self._closing.after_fork()
