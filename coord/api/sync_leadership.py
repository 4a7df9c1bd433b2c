"""`Leadership`: a candidate for threaded programs, in front of an `AsyncLeadership`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from coord.api.leadership import AsyncLeadership
from coord.core import validation
from coord.core.timing import Timing
from coord.election.callbacks import OnElected, OnInfo, OnLost, OnNewLeader, ThreadDispatcher
from coord.election.session import HasSession
from coord.election.term import Term, current_if, run_under_term
from coord.errors import BadArgument, CoordinatorClosed
from coord.runtime import process, threads
from coord.runtime.facade import HasPortal, PublicDir, blocking
from coord.runtime.portal import Portal

Function = TypeVar("Function", bound=Callable[..., Any])


class SyncCoordinator(HasPortal, Protocol):
    """What a `Leadership` needs of the coordinator that made it."""

    @property
    def inner(self) -> HasSession:
        """Its async counterpart."""


class Leadership(PublicDir, internal=("abandon", "coordinator", "inner", "portal")):
    """A candidate for a role, for threaded programs: it has the settings and methods of
    `AsyncLeadership`.

    Each call blocks until its outcome. Callbacks run in order on a thread of their own; async
    callbacks run in an event loop that is made for the call. `coordinator.leadership(role, ...)`
    makes one. All durations are in seconds.

    Args:
        coordinator: The `Coordinator` whose store and background thread it uses.
        role: The role: a string of 1 to 120 bytes.
        ttl: Lease duration. If the leader crashes, another candidate takes over after at most this
            time.
        renew_every: Time between renewals; None means a third of the ttl.
        attempt_timeout: Time that one request may take; None means a value that fits the ttl (see
            `coord.Timing`).
        margin: Time before the end of the lease at which the leader stops believing; None means a
            value that fits the ttl (see `coord.Timing`).
        info: What others see of this candidate in `leader(role)`: a dict that JSON can hold, at
            most 16 KiB. `host` and `pid` are added, unless it has them. Commands show a `name`.
        on_elected: Called as `on_elected(term)`: a function, plain or async, or a list of them. If
            one raises, the term is resigned (`LossReason.CALLBACK_FAILED`), and the candidate waits
            for a ttl.
        on_lost: Called as `on_lost(term, reason)`, exactly once for each `on_elected`.
        on_new_leader: Called as `on_new_leader(lease)` when another candidate leads.
        on_info: Called as `on_info(lease)` when another candidate that leads has changed its info
            (`update`).
        drain_timeout: Time that `stop` and `step_down` wait for the work of the term to end, before
            they leave the lease to run out; None means the ttl.
        at_most: Time that the work of a term may go without `term.progress()` before the role is
            lost (`LossReason.NO_PROGRESS`); None means no limit.
        token_floor: 0 to 2**53 - 2. Its fencing tokens are greater than this.
        priority: -1000 to 1000. A candidate with a priority above 0 replaces a leader with a lower
            one once the leader's term has lasted `min_tenure`.
        min_tenure: Minimum time that a term of this candidate lasts before a candidate with a
            higher priority may replace it; None means three ttls.

    Raises:
        BadArgument: The role or a setting is invalid.
        CoordinatorClosed: The coordinator was closed.
    """

    def __init__(
        self,
        coordinator: SyncCoordinator,
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
    ) -> None:
        self.coordinator = coordinator
        self.inner = AsyncLeadership(
            coordinator.inner,
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
            dispatcher=ThreadDispatcher(f"coord callbacks {str(role)[:40]!r}"),
            owner=coordinator,
        )

    def __repr__(self) -> str:
        return repr(self.inner).replace("AsyncLeadership", "Leadership", 1)

    @property
    def portal(self) -> Portal:
        """The background thread that it runs on."""
        return self.coordinator.portal

    @property
    def role(self) -> str:
        """The role."""
        return self.inner.role

    @property
    def timing(self) -> Timing:
        """The durations of its lease."""
        return self.inner.timing

    @property
    def is_leader(self) -> bool:
        """Whether this candidate leads, by the clock: no I/O, and never true for longer than the
        lease allows."""
        return self.inner.held is not None

    @property
    def term(self) -> Term:
        """The term that it holds.

        Raises:
            NotLeader: It holds none.
        """
        return self.inner.term

    @property
    def candidate(self) -> str | None:
        """The id under which the lease and `candidates()` name it, new at every start; None while
        it is stopped."""
        return self.inner.candidate

    @property
    def info(self) -> dict[str, Any]:
        """What this candidate says about itself: the argument `info`, or what `update` set last.

        Before an election it is what the next claim will say. `host` and `pid` are not included,
        unless the program gave them.
        """
        return self.inner.info

    @property
    def held(self) -> Term | None:
        """The term that it holds, or None."""
        return self.inner.held

    @property
    def started(self) -> bool:
        """Whether it is a candidate now."""
        return self.inner.started

    def on_elected(self, function: Function) -> Function:
        return self.inner.on_elected(function)

    def on_lost(self, function: Function) -> Function:
        return self.inner.on_lost(function)

    def on_new_leader(self, function: Function) -> Function:
        return self.inner.on_new_leader(function)

    def on_info(self, function: Function) -> Function:
        return self.inner.on_info(function)

    def start(self) -> None:
        process.close_at_exit(self.coordinator, hold=False)
        self.portal.call(self.inner.start)
        if self.inner.callbacks.of_kind("on_elected"):
            threads.warm_up()

    def stop(self, *, linger: float = 0.0) -> None:
        linger = validation.linger(linger)
        try:
            elector = self.inner.elector
            if elector is not None:
                stop = functools.partial(self.inner.stop, linger=linger)
                self.portal.call(stop, before=functools.partial(elector.stop, linger))
        except CoordinatorClosed:
            return  # closing has stopped it
        except BaseException:  # an interruption, perhaps before the call has reached the loop
            self.portal.post(functools.partial(self.inner.stop_soon, linger))
            raise

    def abandon(self) -> None:
        """Stop being a candidate, and do not wait for that. For signal handlers and finalizers."""
        self.portal.post(self.inner.stop_soon)

    update = blocking(AsyncLeadership.update)
    step_down = blocking(AsyncLeadership.step_down)
    transfer = blocking(AsyncLeadership.transfer)
    wait = blocking(AsyncLeadership.wait)

    def __enter__(self) -> Leadership:
        try:
            self.start()
        except BaseException:  # nobody else will stop it
            self.abandon()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        stopped = False
        try:
            self.stop()
            stopped = True
        finally:
            if not stopped:  # a signal handler has raised before `stop` began
                self.abandon()

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> Term | None:
        process.close_at_exit(self.coordinator, hold=False)
        started = self.started
        try:
            return self.portal.call(functools.partial(self.inner.acquire, blocking, timeout))
        except BaseException:  # an interruption, perhaps when it was acquired just now
            if not started:
                self.abandon()
            raise

    def release(self) -> None:
        self.stop()

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Wait for the role, call `function` under the term in this thread, release the role, and
        return the result.

        The function learns of a loss from `coord.current_term()`: it calls `check()` before every
        step that matters.

        Raises:
            BadArgument: `function` is a coroutine function; `AsyncLeadership.run` takes these.
        """
        validation.callback(function, "function")
        if inspect.iscoroutinefunction(function):
            allowed = "must be a plain function; AsyncLeadership.run takes coroutine functions"
            raise BadArgument("function", function, allowed)
        outer = current_if(self.inner._last_term)
        stopped = outer is not None
        try:
            try:
                term = outer or self.acquire()
                assert term is not None  # acquire(blocking=True) raises otherwise
                term.progress()
                return run_under_term(term, None, function, *args, **kwargs)
            finally:
                if outer is None:
                    self.stop()
                stopped = True
        finally:
            if not stopped:  # a signal handler has raised before `stop` began
                self.abandon()

    on_elected.__doc__ = AsyncLeadership.on_elected.__doc__
    on_lost.__doc__ = AsyncLeadership.on_lost.__doc__
    on_new_leader.__doc__ = AsyncLeadership.on_new_leader.__doc__
    on_info.__doc__ = AsyncLeadership.on_info.__doc__
    start.__doc__ = AsyncLeadership.start.__doc__
    stop.__doc__ = AsyncLeadership.stop.__doc__
    acquire.__doc__ = AsyncLeadership.acquire.__doc__
    release.__doc__ = AsyncLeadership.release.__doc__
