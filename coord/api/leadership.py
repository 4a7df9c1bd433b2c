"""`AsyncLeadership`: what people hold of a candidate, on asyncio. `standing.py` runs the loop
behind it."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from coord.core import validation
from coord.core.election import Phase
from coord.core.lease import LossReason
from coord.core.timing import Timing
from coord.election.callbacks import (
    CallbackDecorators,
    Callbacks,
    Dispatcher,
    TaskDispatcher,
    ThreadDispatcher,
    current_dispatcher,
)
from coord.election.elector import Elector
from coord.election.term import Term, run_async_under_term, run_under_term
from coord.errors import AcquireTimeout, BadArgument, NotLeader, StoreRefused
from coord.runtime import process, threads

if TYPE_CHECKING:
    from coord.api.coordinator import AsyncCoordinator, Coordinator


class AsyncLeadership(CallbackDecorators):
    """Stands for a role for as long as it is started, through every outage, and holds the term when
    it is elected.

    Made by `coordinator.leadership(role, ...)`. All durations are in seconds. Bad ones raise
    `BadArgument` at once.

    ttl, renew_every, attempt_timeout, margin: see `coord.Timing`.
    info: what others see of this candidate in `leader(role)`; a dict that JSON can hold.
    on_elected(term), on_lost(term, reason), on_new_leader(lease): a function, plain or async, or a
    list of them. They
        run in order in a task of their own; `on_lost` exactly once for each `on_elected`. What
        raises is logged; when it is an `on_elected`, the term is given up
        (`LossReason.CALLBACK_FAILED`) and the candidate rests for a ttl.
    drain_timeout: how long `stop` and `step_down` wait for the work of the term to end before they
    leave the lease
        to run out by itself (the ttl).
    at_most: seconds that the work of a term may go without `term.progress()` before the role is
    lost
        (`LossReason.NO_PROGRESS`), counted from the start of the term, or of `run`'s function.
        None: for ever.
    token_floor: 0 to 2**53 - 1; its tokens are above it (after a restore `coord init --token-floor`
    does it for all).
    priority: -1000 to 1000, shown in `candidates()` while it waits. One that is above 0 and above
    the leader's gets the
        role, by the way of `transfer`, as soon as the leader's term has lasted `min_tenure`.
    min_tenure: seconds for which a term of this candidate lasts before it gives way to one of a
    higher priority: so
        often, at most, does the role move for that (3 ttls, after which a candidate that has died
        is listed no more).
    """

    __slots__ = (
        *(
            "at_most",
            "callbacks",
            "drain_timeout",
            "info",
            "min_tenure",
            "priority",
            "role",
            "timing",
            "token_floor",
        ),
        *("_coordinator", "_dispatcher", "_epoch", "_standing", "__weakref__"),
    )

    def __init__(
        self,
        coordinator: AsyncCoordinator,
        role: str,
        *,
        ttl: float = 30.0,
        renew_every: float | None = None,
        attempt_timeout: float | None = None,
        margin: float | None = None,
        info: Mapping[str, Any] | None = None,
        on_elected: object = None,
        on_lost: object = None,
        on_new_leader: object = None,
        drain_timeout: float | None = None,
        at_most: float | None = None,
        token_floor: int = 0,
        priority: int = 0,
        min_tenure: float | None = None,
        dispatcher: Dispatcher | None = None,
    ) -> None:
        self.role = validation.role(role)
        self.timing = Timing.of(ttl, renew_every, attempt_timeout, margin)
        self.info = validation.info(info)
        self.drain_timeout = validation.drain_timeout(drain_timeout, self.timing.ttl)
        self.at_most = validation.at_most(at_most)
        self.token_floor = validation.token_floor(token_floor)
        self.priority = validation.priority(priority)
        self.min_tenure = validation.min_tenure(min_tenure, self.timing.ttl)
        self.callbacks = Callbacks.of(on_elected, on_lost, on_new_leader)
        self._coordinator = coordinator
        self._dispatcher = dispatcher or TaskDispatcher()
        self._standing: Elector | None = None
        self._epoch = process.fork_generation

    def __repr__(self) -> str:
        term = self.held
        return f"<{type(self).__name__} of {self.role!r}, {f'token {term.token}' if term else 'not leading'}>"

    @property
    def is_leader(self) -> bool:
        """Whether this candidate leads, by the clock: no I/O, and true nowhere for longer than the
        lease allows."""
        return self.held is not None

    @property
    def term(self) -> Term:
        """The term that is held. Raises `NotLeader` when none is."""
        term = self.held
        if term is None:
            raise NotLeader(self.role)
        return term

    @property
    def started(self) -> bool:
        """Whether it stands for the role."""
        standing = self._standing
        return (
            standing is not None
            and self._epoch == process.fork_generation
            and not standing.task.done()
        )

    @property
    def candidate(self) -> str | None:
        """The id of the running incarnation, by which the lease and `candidates()` name it; None
        when it is stopped."""
        return self._standing.candidate if self._standing is not None and self.started else None

    @property
    def held(self) -> Term | None:
        """The term that is held, or None."""
        term = None if self._standing is None else self._standing.tenure.term
        return term if term is not None and term.held else None

    async def start(self) -> None:
        """Stand for the role from now on. Does not wait for anything; does nothing when it stands
        already."""
        if self.started:
            return
        if self._epoch != process.fork_generation:
            self._dispatcher.forget()
            self._epoch = process.fork_generation
        seen = (self.role, self.timing, self.info, self.callbacks, self._dispatcher)
        held = (self.drain_timeout, self.at_most, self.priority, self.min_tenure, self.token_floor)
        self._standing = self._coordinator._stand(lambda around: Elector(around, *seen, *held))

    async def stop(self, *, linger: float = 0.0) -> None:
        """Stand no more: tell `on_lost`, wait for the work to end (`drain_timeout`), then release
        the lease.

        `linger`: seconds that the role rests before anybody gets it. Work that does not end in time
        keeps its lease until that runs out."""
        standing = self._standing
        if standing is None or not self.started:
            return
        standing.stop(linger)
        if (
            current_dispatcher.get() is not self._dispatcher
        ):  # a callback that stops its own leadership does not wait for itself
            await asyncio.wait(
                {standing.task}, timeout=self.drain_timeout + 2 * self.timing.attempt_timeout
            )

    async def step_down(self, cooldown: float | None = None) -> None:
        """Hand the role to another: `on_lost`, drain, release. Stands again after `cooldown`
        seconds (one ttl)."""
        rest = (
            self.timing.ttl if cooldown is None else validation.number(cooldown, "cooldown", low=0)
        )
        await self._give_up(rest)

    async def transfer(self, to: str) -> None:
        """Hand the role to a certain candidate: `on_lost`, drain, then a release that leaves the
        role to it alone for a while (`renew_every`). If it does not come, anybody gets it, this
        candidate too, which goes on standing.

        to: a candidate that waits (`coordinator.candidates(role)`): its id, the first four or more
        characters of it, or
            the `name` in its info. Raises `BadArgument` for any other, `NotLeader`, and what
            `candidates` raises.
        """
        term = self.term
        candidate = await self._coordinator.waiting_candidate(self.role, to)
        if self.held is not term:
            raise NotLeader(self.role)
        await self._give_up(0.0, candidate.candidate)

    async def _give_up(self, rest: float, to: str | None = None) -> None:
        standing = self._standing
        if standing is None or not self.started:
            return
        standing.resign(LossReason.STEPPED_DOWN, rest, to)
        if current_dispatcher.get() is not self._dispatcher:
            await standing.until(
                lambda: standing.election.phase not in (Phase.DRAINING, Phase.RELEASING)
            )

    async def __aenter__(self) -> AsyncLeadership:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until this candidate leads, at most `timeout` seconds (None: without end). Whether
        it leads.

        It must have been started; once it is stopped, nobody waits any longer.
        """
        validation.timeout(timeout)
        if (standing := self._standing) is not None and not self.is_leader:
            await standing.until(lambda: self.is_leader, timeout)
        return self.is_leader

    async def acquire(self, blocking: bool = True, timeout: float | None = None) -> Term | None:
        """Start, and wait until this candidate leads: its term.

        `blocking=False` waits for the outcome of one claim only, and answers None when another
        leads. Raises `AcquireTimeout` after `timeout` seconds, and `StoreRefused` (`NotSetUp`,
        `AccessDenied`) when waiting will not help. A candidate that was started by a call that
        failed is stopped again."""
        validation.timeout(timeout)
        fresh = not self.started
        await self.start()
        assert self._standing is not None
        standing = self._standing
        try:
            await standing.until(
                lambda: (
                    self.is_leader
                    or standing.refusal is not None
                    or (standing.answered and not blocking)
                ),
                timeout,
            )
            if (term := self.held) is not None:
                fresh = False
                return term
            if standing.refusal is not None:
                await self._refused(standing.refusal)
            if blocking:
                raise AcquireTimeout(self.role, timeout or 0.0, self._coordinator.trouble)
            return None
        finally:
            if fresh:
                await self.stop()

    async def first_outcome(self) -> Term | None:
        """Start, wait for the outcome of the first claim, and go on standing: the term, or None
        when another leads.

        Raises `StoreRefused` when the store will go on refusing; the candidate stands all the same,
        for when it mends."""
        await self.start()
        assert self._standing is not None
        standing = self._standing
        await standing.until(lambda: self.is_leader or standing.answered)
        if self.held is None and standing.refusal is not None:
            await self._refused(standing.refusal)
        return self.held

    async def _refused(self, refusal: str) -> NoReturn:
        await self._coordinator.check()  # raises what fits better, when it still is so
        raise StoreRefused(refusal)

    async def release(self) -> None:
        """The other end of `acquire`: the same as `stop()`."""
        await self.stop()

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Wait for the role, call `function` under it, release, and return what it returned.

        A coroutine function is cancelled when the term is lost, and `LeadershipLost` is raised. A
        plain function blocks the loop; it learns of a loss from `coord.current_term()`."""
        validation.callback(function, "function")
        term = await self.acquire()
        assert term is not None  # acquire(blocking=True) raises otherwise
        try:
            term.progress()
            if inspect.iscoroutinefunction(function):
                return await run_async_under_term(term, None, function, *args, **kwargs)
            return run_under_term(term, None, function, *args, **kwargs)
        finally:
            await self.stop()


# -- `Leadership`: a candidate for threaded programs. The loop runs on the coordinator's background
# thread.

Function = TypeVar("Function", bound=Callable[..., Any])


class Leadership:
    """Stands for a role for as long as it is started, through every outage, and holds the term when
    it is elected.

    The same as `AsyncLeadership`, whose settings it takes, for plain threads: each call waits for
    its outcome, and callbacks run in order on a thread of their own (async ones in a loop made for
    the call)."""

    def __init__(self, coordinator: Coordinator, role: str, **settings: Any) -> None:
        self.coordinator = coordinator
        self.inner = AsyncLeadership(
            coordinator.inner,
            role,
            dispatcher=ThreadDispatcher(f"coord callbacks {role[:40]!r}"),
            **settings,
        )

    def __repr__(self) -> str:
        return repr(self.inner).replace("AsyncLeadership", "Leadership", 1)

    @property
    def role(self) -> str:
        return self.inner.role

    @property
    def timing(self) -> Timing:
        return self.inner.timing

    @property
    def is_leader(self) -> bool:
        """Whether this candidate leads, by the clock: no I/O, and true nowhere for longer than the
        lease allows."""
        return self.inner.held is not None

    @property
    def term(self) -> Term:
        """The term that is held. Raises `NotLeader` when none is."""
        return self.inner.term

    @property
    def candidate(self) -> str | None:
        """The id of the running incarnation, by which the lease and `candidates()` name it; None
        when it is stopped."""
        return self.inner.candidate

    @property
    def held(self) -> Term | None:
        """The term that is held, or None."""
        return self.inner.held

    @property
    def started(self) -> bool:
        """Whether it stands for the role."""
        return self.inner.started

    def on_elected(self, function: Function) -> Function:
        """Adds a callback; usable as a decorator."""
        return self.inner.on_elected(function)

    def on_lost(self, function: Function) -> Function:
        """Adds a callback; usable as a decorator."""
        return self.inner.on_lost(function)

    def on_new_leader(self, function: Function) -> Function:
        """Adds a callback; usable as a decorator."""
        return self.inner.on_new_leader(function)

    def start(self) -> None:
        """Stand for the role from now on. Does not wait for anything; does nothing when it stands
        already."""
        process.close_at_exit(self.coordinator)
        self.coordinator.portal.call(self.inner.start)
        if self.inner.callbacks.elected:
            threads.warm_up()

    def stop(self, *, linger: float = 0.0) -> None:
        """Stand no more: tell `on_lost`, wait for the work to end (`drain_timeout`), then release
        the lease.

        `linger`: seconds that the role rests before anybody gets it. Work that does not end in time
        keeps its lease until that runs out."""
        standing = self.inner._standing
        if standing is not None and self.started:
            stop = functools.partial(self.inner.stop, linger=linger)
            self.coordinator.portal.call(stop, before=functools.partial(standing.stop, linger))

    def step_down(self, cooldown: float | None = None) -> None:
        """Hand the role to another: `on_lost`, drain, release. Stands again after `cooldown`
        seconds (one ttl)."""
        self.coordinator.portal.call(functools.partial(self.inner.step_down, cooldown))

    def transfer(self, to: str) -> None:
        """Hand the role to a certain candidate: `on_lost`, drain, then a release that leaves the
        role to it alone for a while (`renew_every`). If it does not come, anybody gets it, this
        candidate too, which goes on standing.

        to: a candidate that waits (`coordinator.candidates(role)`): its id, the first four or more
        characters of it, or
            the `name` in its info. Raises `BadArgument` for any other, `NotLeader`, and what
            `candidates` raises.
        """
        self.coordinator.portal.call(functools.partial(self.inner.transfer, to))

    def __enter__(self) -> Leadership:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until this candidate leads, at most `timeout` seconds (None: without end). Whether
        it leads.

        It must have been started; once it is stopped, nobody waits any longer.
        """
        return self.coordinator.portal.call(functools.partial(self.inner.wait, timeout))

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> Term | None:
        """Start, and wait until this candidate leads: its term.

        `blocking=False` waits for the outcome of one claim only, and answers None when another
        leads. Raises `AcquireTimeout` after `timeout` seconds, and `StoreRefused` (`NotSetUp`,
        `AccessDenied`) when waiting will not help. A candidate that was started by a call that
        failed is stopped again."""
        process.close_at_exit(self.coordinator)
        return self.coordinator.portal.call(
            functools.partial(self.inner.acquire, blocking, timeout)
        )

    def release(self) -> None:
        """The other end of `acquire`: the same as `stop()`."""
        self.stop()

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Wait for the role, call `function` under it in this thread, release, and return what it
        returned.

        The function learns of a loss from `coord.current_term()`: `check()` it before every step
        that matters."""
        validation.callback(function, "function")
        if inspect.iscoroutinefunction(function):
            raise BadArgument(
                "function",
                function,
                "a plain function; AsyncLeadership.run takes coroutine functions",
            )
        term = self.acquire()
        assert term is not None  # acquire(blocking=True) raises otherwise
        try:
            term.progress()
            return run_under_term(term, None, function, *args, **kwargs)
        finally:
            self.stop()
