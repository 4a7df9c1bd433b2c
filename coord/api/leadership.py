"""`AsyncLeadership`: a candidate on the running event loop, as its user holds it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from coord.core import validation
from coord.core.lease import LossReason, copy_info
from coord.core.timing import Timing
from coord.election.callbacks import (
    CallbackDecorators,
    Callbacks,
    Dispatcher,
    OnElected,
    OnInfo,
    OnLost,
    OnNewLeader,
    TaskDispatcher,
)
from coord.election.candidate_options import CandidateOptions
from coord.election.elector import Elector
from coord.election.operators import paused_by
from coord.election.session import HasSession
from coord.election.term import Term, current_if, run_async_under_term, run_under_term
from coord.errors import (
    AcquireTimeout,
    CoordError,
    NotLeader,
)
from coord.runtime import process
from coord.runtime.facade import PublicDir

if TYPE_CHECKING:
    from coord.recipes.slot_elector import SlotElector

Function = TypeVar("Function", bound=Callable[..., Any])


class AsyncLeadership(
    CallbackDecorators,
    PublicDir,
    internal=("answered", "callbacks", "elector", "first_outcome", "options", "stop_soon"),
):
    """A candidate for a role: it runs from `start` to `stop`, through every outage, and holds the
    term when elected.

    `coordinator.leadership(role, ...)` makes one. All durations are in seconds.

    Args:
        coordinator: The `AsyncCoordinator` whose store and event loop it uses.
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
        dispatcher: Where callbacks run; None means a task on the loop.
        owner: Kept alive while it is a candidate; None means nothing.

    Raises:
        BadArgument: The role or a setting is invalid.
        CoordinatorClosed: The coordinator was closed.
    """

    __slots__ = (
        "__weakref__",
        "_dispatcher",
        "_elector",
        "_fork_generation",
        "_owner",
        "_session",
        "callbacks",
        "options",
        "role",
    )

    def __init__(
        self,
        coordinator: HasSession,
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
        dispatcher: Dispatcher | None = None,
        owner: object = None,
    ) -> None:
        self.role = validation.elected_role(role)
        self.options = CandidateOptions.validated(
            Timing.of(ttl, renew_every, attempt_timeout, margin),
            info=info,
            drain_timeout=drain_timeout,
            at_most=at_most,
            token_floor=token_floor,
            priority=priority,
            min_tenure=min_tenure,
        )
        self.callbacks = Callbacks.of(on_elected, on_lost, on_new_leader, on_info)
        self._session = coordinator.session
        self._session.check_open("be a candidate for", self.role)
        self._dispatcher = dispatcher or TaskDispatcher()
        self._owner = owner
        self._elector: Elector | SlotElector | None = None
        self._fork_generation = process.fork_generation

    def __repr__(self) -> str:
        term = self.held
        state = f"token {term.token}" if term else "not leading"
        return f"<{type(self).__name__} of {self.role!r}, {state}>"

    @property
    def timing(self) -> Timing:
        """The durations of its lease."""
        return self.options.timing

    @property
    def is_leader(self) -> bool:
        """Whether this candidate leads, by the clock: no I/O, and never true for longer than the
        lease allows."""
        return self.held is not None

    @property
    def term(self) -> Term:
        """The term that it holds.

        Raises:
            NotLeader: It holds none.
        """
        term = self.held
        if term is None:
            raise NotLeader(self.role)
        return term

    @property
    def held(self) -> Term | None:
        """The term that it holds, or None."""
        elector = self._elector
        term = None if elector is None else elector.term
        return term if term is not None and term.held else None

    @property
    def _last_term(self) -> Term | None:
        return None if self._elector is None else self._elector.term

    @property
    def started(self) -> bool:
        """Whether it is a candidate now. False from `stop` on, though its work may go on."""
        elector = self.elector
        return elector is not None and not elector.stopping

    @property
    def answered(self) -> bool:
        """Whether its first claim was answered or given up, if it has made one."""
        return self._elector is None or self._elector.first_result_seen

    @property
    def candidate(self) -> str | None:
        """The id under which the lease and `candidates()` name it, new at every start; None while
        it is stopped."""
        elector = self.elector
        return None if elector is None or elector.stopping else elector.candidate

    @property
    def info(self) -> dict[str, Any]:
        """What this candidate says about itself: the argument `info`, or what `update` set last.

        Before an election it is what the next claim will say. `host` and `pid` are not included,
        unless the program gave them.
        """
        return copy_info(self.options.info)

    @property
    def elector(self) -> Elector | SlotElector | None:
        """What runs it; None while it is stopped."""
        elector = self._elector
        if elector is None or elector.task.done():
            return None
        return elector if self._fork_generation == process.fork_generation else None

    def on_elected(self, function: Function) -> Function:
        super().on_elected(function)
        elector = self.elector
        if elector is not None:
            elector.callback_added()
        return function

    on_elected.__doc__ = CallbackDecorators.on_elected.__doc__

    async def start(self) -> None:
        """Become a candidate. Returns at once; does nothing if it is one already.

        After a `stop` whose work has not ended, it becomes a candidate when the work has ended.

        Raises:
            CoordinatorClosed: The coordinator was closed, or belongs to another event loop.
        """
        self._session.check_usable(f"start the candidate for {self.role!r}")
        elector = self.elector
        if elector is not None:
            if elector.stopping:
                elector.resume()
            return
        if self._fork_generation != process.fork_generation:
            self._dispatcher.forget()
            self._fork_generation = process.fork_generation
        self._elector = self._new_elector()
        self._session.join(self._elector)

    def _new_elector(self) -> Elector | SlotElector:
        return Elector(
            self._session,
            self.role,
            self.options,
            callbacks=self.callbacks,
            dispatcher=self._dispatcher,
            owner=self._owner,
        )

    async def stop(self, *, linger: float = 0.0) -> None:
        """Stop being a candidate: call `on_lost`, wait for the work to end, then release the lease.

        Work that does not end within `drain_timeout` keeps its lease until that runs out.

        Args:
            linger: Seconds for which nobody gets the role.

        Raises:
            BadArgument: `linger` is not a number from 0 to 2,678,400.
        """
        linger = validation.linger(linger)
        elector = self.elector
        if elector is None:
            return
        elector.stop(linger)
        if not elector.is_calling():
            await elector.wait_until_stopped()

    def stop_soon(self, linger: float = 0.0) -> None:
        """Do what `stop` does, and do not wait for it. Called on the loop."""
        elector = self.elector
        if elector is not None:
            elector.stop(linger)

    async def update(self, info: Mapping[str, Any]) -> None:
        """Change what the leader says about itself, during its term, and wait until it is stored.

        `on_info` of the other candidates and `watch_leader` show the change at once. Several calls
        within one renewal become one, and the last one wins. Later terms of this candidate say it,
        too. It is no history and no compare-and-swap.

        Args:
            info: What others see from now on, as for the argument `info`. It replaces the old one.

        Raises:
            BadArgument: `info` is invalid.
            NotLeader: This candidate does not lead. Nothing changes.
            LeadershipLost: The term ended before the store answered.
            OutcomeUnknown: The store did not answer. The next renewal carries the info again.
            CoordinatorClosed: The coordinator was closed.
        """
        checked = validation.info(info)
        elector = self.elector
        self._check_open("change the info of")
        if elector is None or self.held is None:
            raise NotLeader(self.role)
        self.options = self.options._replace(info=checked)
        await elector.update_info(checked)

    async def step_down(self, cooldown: float | None = None) -> None:
        """Hand the role to another candidate: call `on_lost`, drain, release.

        Args:
            cooldown: Seconds for which it is no candidate afterwards; None means one ttl.

        Raises:
            CoordinatorClosed: The coordinator was closed.
        """
        if cooldown is None:
            cooldown = self.timing.ttl
        else:
            cooldown = validation.number(cooldown, "cooldown", low=0)
        self._check_open("step down from")
        await self._resign(cooldown)

    async def transfer(self, to: str, *, hold: float | None = None) -> None:
        """Hand the role to one candidate: call `on_lost`, drain, then reserve the role for it.

        If it does not claim the role in time, anybody gets it. This candidate goes on as one.

        Args:
            to: A candidate that waits: its id, the first four or more characters of its id, or the
                `name` in its info.
            hold: Seconds for which the role is reserved for it, from 0.1 on; None means
                `renew_every`, at most 1 second.

        Raises:
            BadArgument: `to` names no candidate that waits, or several, or `hold` is invalid.
            NotLeader: This candidate does not lead.
            StoreUnavailable: The store did not answer within the timeout of the coordinator.
            StoreRefused: The store will go on refusing.
            CoordinatorClosed: The coordinator was closed.
        """
        to, hold = validation.candidate_name(to), validation.hold(hold)
        self._check_open("transfer")
        term = self.term
        successor = await self._session.find_candidate(self.role, to)
        if self.held is not term:
            raise NotLeader(self.role)
        await self._resign(0.0, successor.id, hold)

    def _check_open(self, purpose: str) -> None:
        """Check that nobody has closed the coordinator, if this is no candidate: one that still
        ends its work may use its methods."""
        if self.elector is None:
            self._session.check_open(purpose, self.role)

    async def _resign(
        self, cooldown: float, to: str | None = None, hold: float | None = None
    ) -> None:
        elector = self.elector
        if elector is None:
            return
        elector.resign(LossReason.STEPPED_DOWN, cooldown, to, hold=hold)
        if not elector.is_calling():
            await elector.wait_until_handed_over()

    async def __aenter__(self) -> AsyncLeadership:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until this candidate leads, and return whether it does.

        When it is stopped, waiting ends.

        Args:
            timeout: Seconds to wait; None means no limit.

        Raises:
            CoordError: It was never started.
            CoordinatorClosed: The coordinator was closed.
        """
        timeout = validation.timeout(timeout)
        self._check_open("wait for")
        elector = self._elector
        if elector is None or self._fork_generation != process.fork_generation:
            raise CoordError(
                f"cannot wait for the role {self.role!r}: this candidate was not started; "
                "call start() first, or acquire()"
            )
        if not self.is_leader:
            await elector.wait_until(lambda: self.is_leader or elector.stopping, timeout)
        return self.is_leader

    async def acquire(self, blocking: bool = True, timeout: float | None = None) -> Term | None:
        """Start, wait until this candidate leads, and return its term.

        If the call fails, a candidate that it started is stopped again.

        Args:
            blocking: False waits for the result of one claim only, and returns None if another
                candidate leads.
            timeout: Seconds to wait; None means no limit. With `blocking=False`, None means until
                the store has answered, or not answered three attempts, which takes half a ttl by
                default.

        Raises:
            AcquireTimeout: It does not lead after `timeout` seconds, and `blocking` is True.
            StoreRefused: The store will go on refusing (`NotSetUp`, `AccessDenied`).
        """
        validation.timeout(timeout)
        fresh = not self.started
        await self.start()
        elector = self._elector
        assert elector is not None
        try:
            await elector.wait_until(
                lambda: (
                    self.is_leader
                    or elector.refusal is not None
                    or (elector.first_result_seen and not blocking)
                ),
                timeout,
            )
            if (term := self.held) is not None:
                fresh = False
                return term
            if elector.refusal is not None:
                raise elector.refusal.error()
            self._session.check_usable(f"acquire the role {self.role!r}")
            if blocking:
                lease = elector.seen
                paused = "" if lease is None or not lease.paused else f"it is {paused_by(lease)}"
                raise AcquireTimeout(self.role, timeout or 0.0, self._session.last_error or paused)
            return None
        finally:
            if fresh:  # it does not wait for that: the store may be silent
                self.stop_soon()

    async def first_outcome(self, timeout: float | None = None) -> Term | None:
        """Start, wait for the result of the first claim, and stay a candidate.

        Args:
            timeout: Seconds to wait; None means until the store has answered, or not answered
                three attempts.

        Returns:
            The term, or None if another candidate leads.

        Raises:
            StoreRefused: The store will go on refusing. It stays a candidate all the same, in case
                that is fixed.
        """
        await self.start()
        elector = self._elector
        assert elector is not None
        await elector.wait_until(lambda: self.is_leader or elector.first_result_seen, timeout)
        if self.held is None and elector.refusal is not None:
            raise elector.refusal.error()
        return self.held

    async def release(self) -> None:
        """Do the same as `stop()`: the counterpart of `acquire`."""
        await self.stop()

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Wait for the role, call `function` under the term, release the role, and return the
        result.

        A coroutine function is cancelled when the term is lost. A plain function blocks the event
        loop; it learns of a loss from `coord.current_term()`.

        Raises:
            LeadershipLost: The term was lost while a coroutine function ran.
        """
        validation.callback(function, "function")
        outer = current_if(self._last_term)
        term = outer or await self.acquire()
        assert term is not None  # acquire(blocking=True) raises otherwise
        try:
            term.progress()
            if inspect.iscoroutinefunction(function):
                return await run_async_under_term(term, None, function, *args, **kwargs)
            return run_under_term(term, None, function, *args, **kwargs)
        finally:
            if term is not outer:
                await self.stop()
