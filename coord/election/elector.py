"""The elector runs one candidate on an event loop: it sends the requests of the election, waits as
it says, and applies what it decides."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from coord.core.actions import Action, Send, Wait
from coord.core.announcements import Candidate, decide_handover
from coord.core.election import Election
from coord.core.lease import Lease, LossReason
from coord.core.operations import Answer, Claim, Failure, Release, Renew, Result
from coord.core.phases import HOLDING, Phase
from coord.core.timing import Instant
from coord.election import jitter
from coord.election.callbacks import (
    CallbackRunner,
    Callbacks,
    Dispatcher,
    current_dispatcher,
)
from coord.election.candidate_options import CandidateOptions, new_candidate_id
from coord.election.kept import KeptText
from coord.election.lifecycle import TermLifecycle, notify_observer
from coord.election.results import refused_claim, retry_delay, send_now, store_failed
from coord.election.session import Session
from coord.election.term import Term, is_inside
from coord.errors import LeadershipLost, NotLeader, OutcomeUnknown
from coord.runtime import log
from coord.runtime.retry import full_jitter, rng
from coord.runtime.timers import Alarm, within
from coord.stores.requests import PendingResult, discard

RESTART_FIRST = 0.1
"""Seconds until the task of a candidate goes on after its first failure, at most."""
NOT_SENT = Instant(0.0, 0.0)
"""When a request was sent, while none is under way."""
GIVE_UP_AFTER = 3
"""Tries without an answer after which the first claim counts as unanswered."""


class Elector:
    """Runs one incarnation of a candidate, from its creation until it is done. It lives on one
    event loop.

    Only `term` may be read from other threads.

    Args:
        session: The session that it shares with other elections.
        role: The role that it is a candidate for.
        options: Its settings.
        callbacks: What it calls when something happens.
        dispatcher: Where it calls them.
        owner: Kept alive while it runs; None means nothing.
        candidate: Its id, which no incarnation of a candidate for the role had before; None means
            a random one.

    Attributes:
        candidate: Its id, new for each incarnation.
        election: The state of the election.
        first_result_seen: Whether the first claim was answered, refused, or unanswered several
            times.
        refusal: The refusal of the store, if it refuses the last request; None if it does not.
        failure: Why its task failed last; "" if it has done its work since.
        lifecycle: Its terms.
        renewed_at: When the last applied claim or renewal was sent, on the awake clock; None before
            the first.
        task: The task that runs it.
    """

    __slots__ = (
        "_ahead",
        "_announced",
        "_check_later",
        "_error",
        "_failures",
        "_loop",
        "_options",
        "_owner",
        "_restarts",
        "_sent_at",
        "_session",
        "_timer",
        "_unsubscribes",
        "_waiters",
        "_waiting",
        "_wake",
        "candidate",
        "election",
        "failure",
        "first_result_seen",
        "lifecycle",
        "refusal",
        "renewed_at",
        "task",
    )

    def __init__(
        self,
        session: Session,
        role: str,
        options: CandidateOptions,
        *,
        callbacks: Callbacks,
        dispatcher: Dispatcher,
        owner: object = None,
        candidate: str | None = None,
    ) -> None:
        self._session, self._options, self._owner = session, options, owner
        self.candidate = candidate or new_candidate_id()
        self.election = Election(
            role,
            self.candidate,
            options.timing,
            session.described(options.info),
            session.max_clock_skew,
            token_floor=options.token_floor,
        )
        self._draw_delays(None)
        self.first_result_seen, self._failures = False, 0
        self.refusal: Failure | None = None
        self.failure, self._restarts = "", 0
        self._error: Exception | None = None
        self.lifecycle = TermLifecycle(
            self.election,
            CallbackRunner(role, callbacks, dispatcher, session.now),
            session.now,
            owner=self,
            drain_timeout=options.drain_timeout,
            at_most=options.at_most,
            slot=options.slot,
        )
        self.renewed_at: float | None = None
        # A request that was sent by a feed callback, ahead of this elector's own task; the task
        # awaits it first.
        self._ahead: tuple[Action, PendingResult] | None = None
        self._sent_at = NOT_SENT
        self._wake: asyncio.Future[None] | None = None
        self._timer: Alarm | None = None
        self._loop = asyncio.get_running_loop()
        self._waiters: asyncio.Future[None] | None = None
        self._check_later: asyncio.TimerHandle | None = None
        self._announced: Candidate | None = None
        self._unsubscribes: tuple[Callable[[], None], ...] = ()
        self.task = self._loop.create_task(self._run(), name=f"coord {role}")
        self.task.add_done_callback(self._done, context=session.context)

    @property
    def role(self) -> str:
        """The role that it is a candidate for."""
        return self.election.role

    @property
    def term(self) -> Term | None:
        """Its last term, held or over; None before the first."""
        return self.lifecycle.term

    @property
    def seen(self) -> Lease | None:
        """The lease as it was seen last; None before the first answer."""
        return self.election.observed

    @property
    def running_jobs(self) -> int:
        """How many calls run under its last term."""
        return 0 if self.term is None else self.term._running_jobs

    @property
    def stalled(self) -> bool:
        """Whether its last term ended because a job made no progress."""
        return self.term is not None and self.term._stalled

    def store_is_silent(self, now: Instant) -> bool:
        """Return whether it waits for an answer of the store, or the last request had none."""
        in_flight = self.election.in_flight
        waits = in_flight is not None and now.awake < self._sent_at.awake + in_flight.timeout + 1
        return waits or self.election.failing

    @property
    def stop_timeout(self) -> float:
        """Seconds that it may take from `stop` until it is done."""
        return self.lifecycle.drain_timeout + 2 * self.election.timing.attempt_timeout

    async def wait_until(self, predicate: Callable[[], bool], timeout: float | None = None) -> None:
        """Wait until `predicate()` holds, this elector is done, or `timeout` seconds have passed
        (None: never)."""

        async def holds() -> None:
            while not predicate() and not self.task.done():
                self._waiters = self._waiters or self._loop.create_future()
                await asyncio.shield(self._waiters)

        with contextlib.suppress(asyncio.TimeoutError):
            await within(holds(), timeout)

    def open_text(self, term: Term) -> KeptText:
        """Return how `term` reads and writes what the role keeps."""
        return KeptText(self._session, self, term)

    @property
    def kept_text(self) -> KeptText:
        """What the role keeps, under the last term. There must have been one."""
        assert self.term is not None
        return self.term._notes_access().text

    def send_what_is_due(self) -> None:
        """Look at the election again: it has something to send."""
        self._changed()

    async def update_info(self, info: Mapping[str, Any]) -> None:
        """Say something else, and wait for the answer of the store.

        Args:
            info: The new info, validated.

        Raises:
            NotLeader: The candidate does not lead, and goes on saying what it said.
            LeadershipLost: It lost the term meanwhile.
            OutcomeUnknown: The store did not answer. The next renewal carries the info again.
        """
        election, term = self.election, self.term
        if term is None or not term.held:
            raise NotLeader(self.role)
        number = election.update_info(self._session.described(info))
        self._changed()
        await self.wait_until(
            lambda: (
                max(election.updates.stored, election.updates.unanswered) >= number or not term.held
            )
        )
        if not term.held:
            raise LeadershipLost(self.role, term.token, term.reason)
        if election.updates.stored < number:
            raise OutcomeUnknown(
                f"cannot say whether {self._session.store.url} has the new info of {self.role!r}: "
                f"{self._session.last_error or 'no answer'}; the next renewal sends it again"
            )

    def resign(
        self,
        reason: LossReason,
        cooldown: float,
        to: str | None = None,
        by: str = "",
        hold: float | None = None,
    ) -> None:
        """Hand the role to the candidate `to` (None: to anybody), for which it is reserved for
        `hold` seconds (None: the default), and be a candidate again after the cooldown."""
        self.election.resign(self._session.now(), reason, rest=cooldown, to=to, hold=hold, by=by)
        self._changed()

    def check_requests(self) -> None:
        """Look at the announcements for the role, and hand it over if one asks for that
        (`decide_handover`)."""
        election, later, self._check_later = self.election, self._check_later, None
        if later is not None:
            later.cancel()
        if election.phase is not Phase.LEADING:
            return
        announcements = self._session.requests_for(election.role)
        if not announcements:
            return
        options, tenure = self._options, self._session.now().awake - self.lifecycle.began_at
        decision = decide_handover(
            announcements,
            token=election.token,
            candidate=self.candidate,
            priority=options.priority,
            tenure=tenure,
            min_tenure=options.min_tenure,
        )
        if isinstance(decision, float):
            self._check_later = self._loop.call_later(decision + 0.01, self.check_requests)
        elif decision is not None:
            self._session.gave_way(election.role, decision)
            cooldown = election.timing.ttl if decision.rest is None else decision.rest
            role, token, to, by = election.role, election.token, decision.to, decision.by
            log.info("leadership.gives_way", role=role, token=token, to=to, by=by)
            self.resign(decision.reason, cooldown, to, by, decision.hold)

    def stop(self, linger: float = 0.0) -> None:
        """Hand the role over, and be done. Nobody gets the role before `linger` seconds have
        passed."""
        self.election.stop(self._session.now(), linger=linger)
        self._changed()

    def resume(self) -> None:
        """Go on as a candidate, after a `stop` whose work has not ended yet."""
        self.election.resume()
        self._changed()

    @property
    def stopping(self) -> bool:
        """Whether it was stopped and has not been resumed."""
        return not self.election.campaigning

    async def wait_until_stopped(self) -> None:
        """Wait until what `stop` began is over: it is done, or it was resumed and holds nothing of
        the term that was stopped. Waits for `stop_timeout` seconds at most."""
        deadline = self.stop_timeout
        await self.wait_until(lambda: not (self.stopping or self._handing_over()), deadline)

    async def wait_until_handed_over(self) -> None:
        """Wait until the work of the last term has ended, and its lease is released or expires."""
        await self.wait_until(lambda: not self._handing_over())

    def _handing_over(self) -> bool:
        return self.election.phase in (Phase.DRAINING, Phase.RELEASING)

    def is_calling(self) -> bool:
        """Return whether the calling code is a callback or a job of this candidate, which must not
        wait for its own end."""
        return current_dispatcher.get() is self.lifecycle.dispatcher or is_inside(self.term)

    def callback_added(self) -> None:
        """Call the `on_elected` callbacks that were added since its term began. From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has closed: the term is over
            self._loop.call_soon_threadsafe(self.lifecycle.callback_added)

    def try_now(self, *, skip_cooldown: bool = False) -> None:
        """Send the next request at once. For test kits: `skip_cooldown` ends a cooldown and a
        backoff, too."""
        self.election.try_now(skip_cooldown=skip_cooldown)
        self.wake()

    def lose(self, reason: LossReason) -> None:
        """Lose the term as if `reason` had come about; for test kits."""
        self.election.lose(reason)
        self._changed()

    def after_fork(self) -> None:
        """In a forked child: the term, if there is one, belongs to the parent."""
        if self.term is not None:
            self.term._end_in_fork()

    def wake(self) -> None:
        """Look at the clock again: the machine was suspended."""
        sleeping, timer, self._wake, self._timer = self._wake, self._timer, None, None
        if timer is not None:
            self._session.timer.cancel(timer)
        if sleeping is not None and not sleeping.done():
            sleeping.set_result(None)

    async def _run(self) -> None:
        try:
            while True:
                try:
                    if self.election.observed is None:
                        await self._session.turns.wait(self.role)
                    # Ten thousand electors wait here at a time. So they wait in this coroutine,
                    # and keep no action and no result while they sleep.
                    while True:
                        action, pending = self._next_action()
                        if isinstance(action, Send):
                            try:
                                result = await (pending or self._submit(action))
                            except Exception as err:
                                result = store_failed(err, self.role)
                            await self._answered(action, result)
                            del result
                        elif isinstance(action, Wait):
                            self._follow()
                            if action.seconds > 0:
                                sleep = self._sleep(action.seconds)
                                del action, pending
                                await sleep
                                del sleep
                        else:
                            return
                except Exception as err:
                    await self._sleep(self._failed(err))
        except asyncio.CancelledError:
            discard(None if self._ahead is None else self._ahead[1])
            await self._cancelled()
            raise
        finally:
            self._unfollow()
            self.wake()  # removes the timer
            if self._check_later is not None:
                self._check_later.cancel()
            self.lifecycle.end()

    def _next_action(self) -> tuple[Action, PendingResult]:
        """Return what to do now; and what to await, if that is a request that was sent already."""
        error, self._error = self._error, None
        if error is not None:
            raise error
        self.lifecycle.check_term()
        ahead, self._ahead = self._ahead, None
        return ahead or (self._step(), None)

    async def _answered(self, send: Send, result: Result) -> None:
        if refused_claim(send, result) and not self._session.observations.loaded:
            await self._session.observations.load()
        self._apply_result(send, result)
        await self.lifecycle.yield_to_callbacks()

    def _submit(self, send: Send) -> Awaitable[Result]:
        return self._session.submit(send.operation, send.timeout, self._on_sent)

    def _failed(self, err: Exception) -> float:
        """Prepare to go on after a failure of this task, and return the seconds until then.

        The outcome of a request under way is unknown then, which the election can handle (rule 8).
        """
        self.failure = f"its task failed: {type(err).__name__}: {err}"
        self._restarts += 1
        delay = full_jitter(self._restarts, RESTART_FIRST, self.election.timing.ttl / 10)
        log.error("candidate.failed", err, role=self.role)
        self._unfollow()
        in_flight, now = self.election.in_flight, self._session.now()
        ahead, self._ahead = self._ahead, None
        discard(None if ahead is None else ahead[1])
        if in_flight is not None:
            unknown = Failure(unknown=True, detail=self.failure)
            self.election.reply(in_flight, unknown, self._sent_at, now, delay)
        return delay

    def _step(self) -> Action:
        now = self._session.now()
        action = self.election.step(now)
        if isinstance(action, Send):
            self._sent_at = now
        self.lifecycle.apply_events()
        return action

    def _on_sent(self) -> None:
        # A deadline counts from when a claim is sent: thousands may wait in turn, for longer than a
        # lease lasts.
        self._sent_at = self._session.now()

    def _send_due_now(self) -> bool:
        """Send what is due in this very iteration of the loop, ahead of the task, if the store can
        do that. Return whether nothing is due, so that the task need not wake."""
        if self._wake is None or self._wake.done():
            return False
        action = self._step()
        if isinstance(action, Send):
            self._ahead = action, send_now(self._session, action)
        elif isinstance(action, Wait) and action.seconds > 0:
            self._set_timer(action.seconds)
            return True
        return False

    def _apply_result(self, send: Send, result: Result) -> None:
        self.refusal = result if isinstance(result, Failure) and result.permanent else None
        delay = retry_delay(result, self._failures + 1, self.election.timing.ttl)
        sent_at, self._sent_at = self._sent_at, NOT_SENT
        now = self._session.now()
        applied = isinstance(result, Answer) and result.applied
        if applied and not isinstance(send.operation, Release):
            self.renewed_at = sent_at.awake
        elif applied:
            self._session.turns.gave_back(self.role)
        remaining = self.election.deadline - now.total
        self.election.reply(send, result, sent_at, now, delay)
        if refused_claim(send, result):
            earlier = self._session.observations.get(self.election.role)
            if earlier is not None:
                self.election.recall(earlier)
        self.first_result_seen = self.first_result_seen or self._is_first_result(result, now)
        self.lifecycle.apply_events()
        self._notify_waiters()
        self.failure, self._restarts = "", 0
        term = self.term
        if applied and isinstance(send.operation, Renew) and term is not None:
            latency = now.awake - sent_at.awake
            notify_observer(self.role, lambda observer: observer.renewed(term, latency, remaining))
        if isinstance(send.operation, Claim):
            self.check_requests()

    def _is_first_result(self, result: Result, now: Instant) -> bool:
        """Return whether the first try is settled: an answer, a refusal, or a store that stays
        silent. It is not settled if a claim for a lease that was observed to expire follows."""
        self._failures = self._failures + 1 if isinstance(result, Failure) else 0
        if not isinstance(result, Failure):
            return not self.election.claims_now(now)
        return result.permanent or self._failures >= GIVE_UP_AFTER

    def _sleep(self, seconds: float) -> asyncio.Future[None]:
        """Return a future that is done after so many seconds, or when `wake` is called.

        It is no coroutine, because ten thousand electors sleep at a time.
        """
        self._wake = self._loop.create_future()
        self._set_timer(seconds)
        return self._wake

    def _set_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._session.timer.cancel(self._timer)
            self._timer = None
        if seconds < math.inf:
            self._timer = self._session.timer.wake_later(self, seconds)

    def _follow(self) -> None:
        """Subscribe to the feed and announce this candidate while it waits. A leader needs
        neither."""
        election = self.election
        if election.phase is Phase.FOLLOWING and election.campaigning:
            # A leader that gave way to a candidate which rests or fails would only lose its term.
            resting = self.lifecycle.failed or election.cooldown(self._session.now()) > 0
            if self._announced is not None and self._announced.resting is resting:
                return
            since = time.time() if self._announced is None else self._announced.since
            self._unfollow()
            priority, ttl = self._options.priority, election.timing.ttl
            self._announced = candidate = Candidate(
                election.role, self.candidate, election.info, priority, since, resting
            )
            withdraw = self._session.announce(candidate, ttl, self._counted)
            unsubscribe = self._session.subscribe_candidate(candidate.role, self._row_seen)
            self._unsubscribes = (unsubscribe, withdraw)
        elif election.phase is Phase.LEADING:
            self._unfollow()

    def _draw_delays(self, waiting: int | None) -> None:
        """Draw how long this candidate lets others go first, given how many wait for the role
        (None: unknown)."""
        election, self._waiting = self.election, waiting
        election.takeover_delay, election.release_delay = jitter.draw(election.timing.ttl, waiting)

    def _counted(self, waiting: int) -> None:
        """Draw the delays again if many more or fewer candidates wait than was known."""
        count_before = self._waiting
        if count_before is None or abs(waiting - count_before) * 4 > count_before:
            with self._failures_to_task():
                self._draw_delays(waiting)
                if not self._send_due_now():  # the timer was set for the earlier delays
                    self.wake()

    def _unfollow(self) -> None:
        unsubscribes, self._unsubscribes, self._announced = self._unsubscribes, (), None
        for unsubscribe in unsubscribes:
            unsubscribe()

    def _row_seen(self, lease: Lease, local: int = 1) -> bool:
        with self._failures_to_task():
            before, waiting = self.election.observed, self._waiting
            if local > 1 and waiting:
                self.election.release_delay = jitter.release_delay(
                    self.election.timing.ttl, rng.random(), waiting, local
                )
            self.election.hint(lease, self._session.now())
            self.lifecycle.apply_events()
            if before is None or lease.vacant or lease.holder != before.holder:
                if waiting and not lease.vacant:  # who claims at once changes with each term
                    self._draw_delays(waiting)
                # The loop of a process with many candidates is soon free again for the answer to
                # the claim of one, if the tasks of the others do not wake.
                if not self._send_due_now():
                    self.wake()
        return not self.lifecycle.failed and self.election.may_claim(self._session.now())

    def _changed(self) -> None:
        with self._failures_to_task():
            self.lifecycle.apply_and_continue()
            self._send_due_now()
        self.wake()
        self._notify_waiters()

    @contextlib.contextmanager
    def _failures_to_task(self) -> Iterator[None]:
        """Let the task of this elector fail with what the block raises, as it handles failures."""
        try:
            yield
        except Exception as err:
            self._error = err
            self.wake()

    def _done(self, _task: asyncio.Task[None]) -> None:
        self._session.leave(self)
        self._session.observations.keep(self.election.role, self.election.observation)
        self._notify_waiters()

    def _notify_waiters(self) -> None:
        waiters, self._waiters = self._waiters, None
        if waiters is not None:
            waiters.set_result(None)

    async def _cancelled(self) -> None:
        """The loop is being shut down: nothing can be drained any more, but the lease can still be
        released."""
        held = self.election.phase in HOLDING
        self.election.stop(self._session.now())
        self.lifecycle.end()
        if held:
            self.election.in_flight = None
            self.election.drained(self._session.now())
            if isinstance(action := self.election.step(self._session.now()), Send):
                with contextlib.suppress(Exception):
                    await self._session.submit(action.operation, action.timeout)
