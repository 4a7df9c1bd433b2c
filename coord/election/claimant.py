"""The candidate behind calls of `unique_service`: it claims or renews when its caller calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from coord.core.actions import Send
from coord.core.announcements import Candidate, Handover, decide_handover
from coord.core.election import Election
from coord.core.lease import Lease
from coord.core.operations import Claim, Failure, Read, Release, Renew, Result
from coord.core.phases import HOLDING, Phase
from coord.core.timing import Instant, Timing
from coord.election.callbacks import CallbackRunner, Callbacks, TaskDispatcher
from coord.election.candidate_options import new_candidate_id
from coord.election.lifecycle import TermLifecycle, notify_observer
from coord.election.results import send_now
from coord.election.session import Session
from coord.election.term import Term
from coord.errors import StoreRefused, StoreUnavailable
from coord.runtime import log
from coord.runtime.retry import Backoff

MAX_ROUNDS = 4
"""Requests, without reads, that one call sends at most. Two are enough unless others write to the
row between them."""
MIN_TENURE_TTLS = 3.0
"""A term lasts this many ttls, at least, before a candidate with a higher priority ends it. It is
the default of `Leadership`."""


class Claimant:
    """One candidate whose caller renews its claim by calling again within every ttl.

    The work of its term is what the caller does between two calls. So the term ends only in a call,
    or by the clock: a request to step down is carried out by the next call, after the work that
    preceded it.

    It lives on the loop of its session. While its caller calls, it is a member of the session. It
    leaves when nobody has called for a ttl.

    Args:
        session: The session that its requests go to.
        role: The role that it claims.
        timing: The timing of its lease.
    """

    __slots__ = (
        "_active_until",
        "_lifecycle",
        "_lock",
        "_session",
        "_since",
        "_timer",
        "_withdraw",
        "election",
        "renewed_at",
        "task",
    )

    def __init__(self, session: Session, role: str, timing: Timing) -> None:
        self._session = session
        self.election = Election(
            role, new_candidate_id(), timing, max_clock_skew=session.max_clock_skew
        )
        self.renewed_at: float | None = None
        """When the last applied claim or renewal was sent, on the awake clock."""
        self.task: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when it is no member of the session."""
        self.task.set_result(None)
        self._lock = asyncio.Lock()
        self._lifecycle: TermLifecycle | None = None  # most candidates never lead
        self._since = 0.0
        self._active_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._withdraw: Callable[[], None] | None = None

    @property
    def role(self) -> str:
        """The role that it is a candidate for."""
        return self.election.role

    @property
    def candidate(self) -> str:
        """Its id, which is the holder in its lease: random, and new for each claimant."""
        return self.election.candidate

    @property
    def term(self) -> Term | None:
        """Its last term, held or over; None before the first."""
        return None if self._lifecycle is None else self._lifecycle.term

    @property
    def leads(self) -> bool:
        """Whether it leads the role, by the clock."""
        return self.term is not None and self.term.held

    @property
    def holding(self) -> bool:
        """Whether it may hold the lease of the role."""
        return self.election.phase in HOLDING

    @property
    def stopped(self) -> bool:
        """Whether it has released the role, and has stopped claiming."""
        return not self.election.campaigning

    @property
    def first_heartbeat(self) -> float:
        """When its last term began, in seconds since 1970 by the store's clock; 0 if unknown."""
        return self._since

    @property
    def stop_timeout(self) -> float:
        """Seconds that it may take from `stop` until it is done."""
        return 2 * self.election.timing.attempt_timeout

    # The calls of the caller.

    async def claim(self, timing: Timing, info: Mapping[str, Any]) -> Lease | None:
        """Claim the role, or renew the claim.

        Args:
            timing: The timing of the lease from now on.
            info: What the lease says about its holder from now on.

        Returns:
            The row of the role at the end; None if this claimant has been stopped meanwhile.

        Raises:
            StoreUnavailable: The store did not answer. Whether it did what it was asked is unknown.
            StoreRefused: The store refuses the request, and will go on refusing.
        """
        async with self._lock:
            if self.stopped:
                return None
            self.election.timing, self.election.info = timing, info
            self._join()
            try:
                return await self._claim(stepping_down=self._obey_requests())
            finally:
                self._follow()

    async def give_back(self, patience: float) -> bool:
        """Release the lease if this candidate holds it, and stop claiming.

        Args:
            patience: Seconds to repeat requests that fail; 0 means to send each request once.

        Returns:
            Whether this candidate led, by the clock, when the call began.

        Raises:
            StoreUnavailable: The store did not answer. The lease may run until its end.
            StoreRefused: The store refuses the request.
        """
        backoff, until = Backoff(0.05, 1.0), self._session.now().awake + patience
        async with self._lock:
            now = self._session.now()
            held = self.election.leads(now)
            try:
                self.election.stop(now)
                self._apply_events()
                self.election.drained(now)
                while isinstance(action := self.election.step(self._session.now()), Send):
                    result, _ = await self._send(action, self._session.now())
                    if not isinstance(result, Failure):
                        continue
                    if self._session.now().awake >= until or result.permanent:
                        raise result.error()
                    await asyncio.sleep(backoff.next())
            finally:
                self._apply_events()
                self.leave()
            return held

    # What the session wants of a member.

    def wake(self) -> None:
        """Look at the clock again: the machine was suspended."""
        self._check_clock()

    def check_requests(self) -> None:
        """Do nothing now: the next call obeys, because the work goes on until then."""

    def stop(self) -> None:
        """Give the role back, and leave the session."""
        loop = asyncio.get_running_loop()
        giving = loop.create_task(self._stop(), name=f"coord release {self.role}")
        giving.add_done_callback(lambda _: self.leave())

    async def _stop(self) -> None:
        try:
            await self.give_back(0.0)
        except (StoreUnavailable, StoreRefused) as err:
            log.warning("leadership.not_released", role=self.role, because=str(err))

    def is_calling(self) -> bool:
        """Return False: it has no callbacks, and does not wait for the work of its caller."""
        return False

    def after_fork(self) -> None:
        """In a forked child: the term, if there is one, belongs to the parent."""
        if self.term is not None:
            self.term._end_in_fork()

    def leave(self) -> None:
        """Leave the session, until the next call. A lease that is held runs out by itself."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self._withdraw_announcement()
        if not self.task.done():
            self._session.leave(self)
            self.task.set_result(None)

    def _join(self) -> None:
        if self.task.done():
            self.task = asyncio.get_running_loop().create_future()
            self._session.join(self)

    # One call.

    async def _claim(self, *, stepping_down: bool) -> Lease:
        """Send what has to be sent until the outcome is clear.

        An exception leaves the term as it was, so that the caller may go on until its deadline. If
        the term has ended in this call, the call returns although a later request failed.
        """
        election, rounds = self.election, 0
        if election.observed is None:
            await self._session.turns.wait(self.role)
        lease: Lease | None = None
        over: Lease | None = Lease(self.role) if stepping_down else None
        while rounds < MAX_ROUNDS:
            now = self._session.now()
            election.drained(now)  # the work is the caller's, who is here, between two passes
            self._apply_events()
            election.try_now()
            action = election.step(now)
            if not isinstance(action, Send):  # it stepped down, and waits until others had a chance
                return lease or await self._session.leader(self.role) or Lease(self.role)
            result, now = await self._send(action, now)
            if isinstance(result, Failure):
                if over is None:
                    raise result.error()
                if isinstance(action.operation, Release):
                    log.warning("leadership.not_released", role=self.role, because=result.detail)
                return over
            operation, lease = action.operation, result.lease
            if isinstance(operation, Read) and election.paused:
                break
            if isinstance(operation, Read):
                continue  # the claim follows: a row that was only read is never adopted (rule 8)
            if election.leads(now):
                break
            if isinstance(operation, Renew):
                over = lease  # another has the lease, or had it
            if isinstance(operation, Claim) and not result.applied:
                await self._recall()
                fresh = operation.expected is None or self._led_by_another(lease)
                if fresh and not election.claims_now(self._session.now()):
                    break  # the store looked at the row as it is, and refused
            # Nobody leads, but the store did not see that: it compared the row with what this
            # candidate had observed before, which is out of date. Try again with what is known now.
            rounds += 1
        return lease or Lease(self.role)

    async def _recall(self) -> None:
        """Count the takeover from what earlier candidates on this machine observed."""
        observations = self._session.observations
        if not observations.loaded:
            await observations.load()
        earlier = observations.get(self.role)
        if earlier is not None:
            self.election.recall(earlier)
        observations.keep(self.role, self.election.observation)

    def _led_by_another(self, lease: Lease) -> bool:
        return lease.led and lease.holder != self.candidate

    async def _send(self, action: Send, began: Instant) -> tuple[Result, Instant]:
        """Send a request, and tell the election its result.

        If the caller is cancelled, the outcome is unknown.

        Returns:
            The result, and the time at which it arrived.
        """
        session, election, operation = self._session, self.election, action.operation
        result: Result = Failure(unknown=True, detail="the call was cancelled")

        def on_sent() -> None:  # it may have waited in turn for longer than a lease lasts
            nonlocal began
            began = session.now()

        try:
            immediate = send_now(session, action)
            result = await (immediate or session.submit_call(operation, action.timeout, on_sent))
        finally:
            now = session.now()
            election.reply(action, result, began, now)
            if not isinstance(result, Failure) and result.applied:
                self._applied(operation, result.lease, began, now)
            self._apply_events()
        return result, now

    def _applied(self, operation: object, lease: Lease, began: Instant, now: Instant) -> None:
        if isinstance(operation, Release):
            self._session.turns.gave_back(self.role)
        elif isinstance(operation, Claim):
            self._since, self.renewed_at = lease.since, began.awake
        elif isinstance(operation, Renew):
            self.renewed_at = began.awake
            term = self.term
            if term is not None:
                latency, remaining = now.awake - began.awake, term.deadline - now.total
                notify_observer(
                    self.role, lambda observer: observer.renewed(term, latency, remaining)
                )

    def _obey_requests(self) -> bool:
        """Step down if an announcement asks for it, and this candidate leads.

        Returns:
            Whether it steps down.
        """
        election, session = self.election, self._session
        announcements = session.requests_for(self.role)
        if not announcements or self._lifecycle is None or election.phase is not Phase.LEADING:
            return False
        now, ttl = session.now(), election.timing.ttl
        decision = decide_handover(
            announcements,
            token=election.token,
            candidate=self.candidate,
            priority=0,
            tenure=now.awake - self._lifecycle.began_at,
            min_tenure=MIN_TENURE_TTLS * ttl,
        )
        if not isinstance(decision, Handover):
            return False
        session.gave_way(self.role, decision)
        log.info(
            "leadership.gives_way",
            role=self.role,
            token=election.token,
            to=decision.to,
            by=decision.by,
        )
        rest = ttl if decision.rest is None else decision.rest
        to, hold, by = decision.to, decision.hold, decision.by
        election.resign(now, decision.reason, rest=rest, to=to, hold=hold, by=by)
        self._apply_events()
        return True

    # Between two calls.

    def _apply_events(self) -> None:
        """Begin and end the term as the election decided."""
        if self._lifecycle is None:
            if self.election.phase is not Phase.LEADING:
                self.election.take_events()
                return
            callbacks = CallbackRunner(self.role, Callbacks(), TaskDispatcher(), self._session.now)
            self._lifecycle = TermLifecycle(
                self.election,
                callbacks,
                self._session.now,
                owner=None,
                drain_timeout=0.0,
                at_most=None,
            )
        self._lifecycle.apply_and_continue()

    def _follow(self) -> None:
        """After a call: announce a candidate that waits, and look at the clock again in time."""
        now, election = self._session.now(), self.election
        self._active_until = now.awake + election.timing.ttl
        if self.holding:
            self._withdraw_announcement()
        elif self._withdraw is None and election.phase is Phase.FOLLOWING:
            candidate = Candidate(self.role, self.candidate, election.info, 0, time.time())
            self._withdraw = self._session.announce(
                candidate, election.timing.ttl, lambda _waiting: None
            )
        if self._timer is None:
            self._look_again(now)

    def _withdraw_announcement(self) -> None:
        withdraw, self._withdraw = self._withdraw, None
        if withdraw is not None:
            withdraw()

    def _check_clock(self) -> None:
        """End a term whose deadline has passed, and leave the session after a ttl without a call.

        One timer does both. A call does not move it: it finds out when it fires.
        """
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        now, held = self._session.now(), self.holding
        if held and not self.leads:
            self.election.expire_now(now)
            self._apply_events()
            if not self.holding:
                self._lease_ended()
        if self.holding or now.awake < self._active_until:
            self._look_again(now)
        elif not self._lock.locked():  # otherwise the end of that call sets the timer
            self.leave()

    def _lease_ended(self) -> None:
        """The lease has run out between two calls; for subclasses."""

    def _look_again(self, now: Instant) -> None:
        remaining = self._active_until - now.awake
        if self.holding:
            remaining = self.election.deadline - now.total
        loop, context = asyncio.get_running_loop(), self._session.context
        self._timer = loop.call_later(max(remaining, 0.001), self._check_clock, context=context)
