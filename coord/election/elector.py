"""One incarnation of a candidate, on asyncio: asks what the core wants asked, waits as it says,
tells what happened."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Callable
from typing import Any

from coord.core.announcements import Candidate, decide_handover
from coord.core.election import HOLDING, Action, Done, Election, Phase, Send, Wait
from coord.core.lease import Lease, LossReason
from coord.core.operations import Answer, Claim, Failure, Release, Renew, Result
from coord.core.timing import Timing
from coord.election import jitter, lifecycle
from coord.election.callbacks import CallbackRunner, Callbacks, Dispatcher
from coord.election.lifecycle import TermLifecycle
from coord.election.session import Session
from coord.election.term import Term
from coord.runtime import log
from coord.runtime.retry import full_jitter
from coord.runtime.timers import within
from coord.stores import requests
from coord.stores.requests import PendingResult


class Elector:
    """From `start` until it is done. Lives on one loop; only `term` is read from other threads."""

    __slots__ = (
        *(
            "first_result_seen",
            "candidate",
            "election",
            "refusal",
            "renewed_at",
            "task",
            "lifecycle_",
        ),
        *(
            "_ahead",
            "_session",
            "_sent_at",
            "_unsubscribes",
            "_failures",
            "_check_later",
            "_loop",
            "_min_tenure",
            "_priority",
        ),
        *("_timer", "_waiters", "_wake"),
    )

    def __init__(
        self,
        session: Session,
        role: str,
        timing: Timing,
        info: dict[str, Any],
        callbacks: Callbacks,
        dispatcher: Dispatcher,
        drain_timeout: float,
        at_most: float | None = None,
        priority: int = 0,
        min_tenure: float = 0.0,
        floor: int = 0,
    ) -> None:
        self.candidate = new_candidate_id()
        self.election = Election(
            role, self.candidate, timing, info, session.max_clock_skew, token_floor=floor
        )
        self._draw_delays(None)
        self.first_result_seen, self._failures = False, 0
        self.refusal: str | None = None
        self._session, announcer = session, CallbackRunner(role, callbacks, dispatcher, session.now)
        self.lifecycle_ = TermLifecycle(
            self.election, announcer, session.now, self._changed, drain_timeout, at_most
        )
        self.renewed_at: float | None = (
            None  # when what was applied last was sent, on the awake clock
        )
        self._ahead: tuple[Action, requests.PendingResult] | None = (
            None  # sent before the task came to its turn
        )
        self._sent_at = session.now()  # when the last question left
        self._wake: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        # there while somebody waits in `wait_until`
        self._waiters: asyncio.Future[None] | None = None
        self._priority, self._min_tenure = priority, min_tenure
        self._check_later: asyncio.TimerHandle | None = None
        self._unsubscribes: tuple[Callable[[], None], ...] = ()  # what ends listening
        self.task = self._loop.create_task(self._run(), name=f"coord {role}")
        self.task.add_done_callback(self._done, context=session.context)

    @property
    def term(self) -> Term | None:
        """The last one, whether it stands or not."""
        return self.lifecycle_.term

    # -- what is asked of it, on its loop
    # ------------------------------------------------------------------------

    async def wait_until(self, predicate: Callable[[], bool], timeout: float | None = None) -> None:
        """Wait until it holds, until this incarnation is done, or for `timeout` seconds."""

        async def turned() -> None:
            while not predicate() and not self.task.done():
                self._waiters = self._waiters or self._loop.create_future()
                await asyncio.shield(self._waiters)

        with contextlib.suppress(asyncio.TimeoutError):
            await within(turned(), timeout)

    def resign(self, reason: LossReason, rest: float, to: str | None = None, by: str = "") -> None:
        """Hand the role over, to the candidate `to` or to anybody, and stand again after `rest`
        seconds."""
        self.election.resign(self._session.now(), reason, rest=rest, to=to, by=by)
        self._changed()

    def check_requests(self) -> None:
        """Look at what was posted about the role, and give way if that is to be
        (`coord/core/announcements.py`)."""
        election, later, self._check_later = self.election, self._check_later, None
        if later is not None:
            later.cancel()
        if election.phase is not Phase.LEADING or not (
            notices := self._session.requests_for(election.role)
        ):
            return
        lifecycle_ = self._session.now().awake - self.lifecycle_.began
        answer = decide_handover(
            notices, election.token, self.candidate, self._priority, lifecycle_, self._min_tenure
        )
        if isinstance(answer, float):
            self._check_later = self._loop.call_later(answer + 0.01, self.check_requests)
        elif answer is not None:
            if answer.key:
                self._session.request_done(election.role, answer.key)
            log.info(
                "leadership.gives_way",
                role=election.role,
                token=election.token,
                to=answer.to,
                by=answer.by,
            )
            rest = election.timing.ttl if answer.rest is None else answer.rest
            self.resign(LossReason.STEPPED_DOWN, rest, answer.to, answer.by)

    def stop(self, linger: float = 0.0) -> None:
        """Hand the role over, and be done."""
        self.election.stop(self._session.now(), linger=linger)
        self._changed()

    def wake(self) -> None:
        """Look at the clock again (after the machine slept)."""
        sleeping, timer, self._wake, self._timer = self._wake, self._timer, None, None
        if timer is not None:
            timer.cancel()
        if sleeping is not None and not sleeping.done():
            sleeping.set_result(None)

    # -- the loop
    # ------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while True:
                self.lifecycle_.check_progress()
                ahead, self._ahead = self._ahead, None
                action, sent = ahead or (self._step(), None)
                if isinstance(action, Send):
                    try:  # no coroutine of its own: ten thousand wait here at a time
                        result = await (
                            sent
                            or self._session.submit(action.operation, action.timeout, self._on_sent)
                        )
                    except Exception as err:
                        result = _store_failed(err, self.election.role)
                    self._answer(action, result)
                    await self.lifecycle_.let_call()
                elif isinstance(action, Wait):
                    self._follow()
                    if action.seconds > 0:
                        await self._asleep(action.seconds)
                elif isinstance(action, Done):
                    return
        except asyncio.CancelledError:
            _discard(None if self._ahead is None else self._ahead[1])
            await self._cancelled()
            raise
        finally:
            self._unfollow()
            self.wake()  # takes the timer away
            if self._check_later is not None:
                self._check_later.cancel()
            self.lifecycle_.end()

    def _step(self) -> Action:
        self._on_sent()
        action = self.election.step(self._sent_at)
        self.lifecycle_.publish()
        return action

    def _on_sent(self) -> None:
        # A deadline counts from when a claim leaves: thousands may wait in turn, for longer than a
        # lease lasts.
        self._sent_at = self._session.now()

    def _send_due_now(self) -> None:
        """What is due is sent in this very turn of the loop, before the task has its own, where the
        store can."""
        if (
            self._wake is not None
            and not self._wake.done()
            and isinstance(action := self._step(), Send)
        ):
            self._ahead = action, _begin(self._session, action)
        self.wake()

    def _answer(self, send: Send, result: Result) -> None:
        self.refusal = result.detail if isinstance(result, Failure) and result.permanent else None
        retry_in = _retry_delay(result, self._failures + 1, self.election.timing.ttl)
        began, now = self._sent_at, self._session.now()
        if (
            isinstance(result, Answer)
            and result.applied
            and not isinstance(send.operation, Release)
        ):
            self.renewed_at = began.awake
            if (
                lifecycle.observer is not None
                and isinstance(send.operation, Renew)
                and self.term is not None
            ):
                lifecycle.observer.renewed(
                    self.term, now.awake - began.awake, self.term.deadline - now.total
                )
        self.election.reply(send, result, began, now, retry_in)
        self.first_result_seen = self.first_result_seen or self._is_first_result(result)
        self.lifecycle_.publish()
        self._notify_waiters()
        if isinstance(send.operation, Claim):
            self.check_requests()

    def _is_first_result(self, result: Result) -> bool:
        """Whether the first try has come to something: an answer, a refusal, or a store that stays
        silent."""
        self._failures = self._failures + 1 if isinstance(result, Failure) else 0
        return (
            not isinstance(result, Failure) or result.permanent or self._failures >= GIVE_UP_AFTER
        )

    def _asleep(self, seconds: float) -> asyncio.Future[None]:
        """Done when `wake` is called, by a timer after so many seconds. No coroutine: ten thousand
        of them sleep."""
        self._wake = self._loop.create_future()
        if seconds < math.inf:
            self._timer = self._loop.call_later(seconds, self.wake, context=self._session.context)
        return self._wake

    def _follow(self) -> None:
        """A candidate that waits hears of releases through the feed, and is listed; one that leads
        needs neither."""
        waits = self.election.phase is Phase.FOLLOWING and self.election.campaigning
        if waits and not self._unsubscribes:
            candidate = Candidate(
                self.election.role, self.candidate, self.election.info, self._priority, time.time()
            )
            unlist = self._session.announce(candidate, self.election.timing.ttl, self._draw_delays)
            self._unsubscribes = (self._session.subscribe(candidate.role, self._row_seen), unlist)
        elif self.election.phase is Phase.LEADING:
            self._unfollow()

    def _draw_delays(self, waiting: int | None) -> None:
        """So many wait for the role: how long this one lets others go first."""
        self.election.takeover_delay, self.election.release_delay = jitter.draw(
            self.election.timing.ttl, waiting
        )

    def _unfollow(self) -> None:
        ends, self._unsubscribes = self._unsubscribes, ()
        for end in ends:
            end()

    def _row_seen(self, lease: Lease) -> None:
        before = self.election.observed
        self.election.hint(lease, self._session.now())
        self.lifecycle_.publish()
        if before is None or lease.vacant or lease.holder != before.holder:
            self._send_due_now()

    def _changed(self) -> None:
        self.lifecycle_.settle()
        self._send_due_now()
        self._notify_waiters()

    def _done(self, _task: asyncio.Task[None]) -> None:
        self._session.leave(self)
        self._notify_waiters()

    def _notify_waiters(self) -> None:
        turn, self._waiters = self._waiters, None
        if turn is not None:
            turn.set_result(None)

    async def _cancelled(self) -> None:
        """The loop is being shut down around us: nothing can be drained any more, but a lease can
        still go back."""
        held = self.election.phase in HOLDING
        self.election.stop(self._session.now())
        self.lifecycle_.end()
        if held:
            self.election.in_flight = None
            self.election.drained(self._session.now())
            if isinstance(action := self.election.step(self._session.now()), Send):
                with contextlib.suppress(Exception):
                    await self._session.submit(action.operation, action.timeout)


def new_candidate_id() -> str:
    """An id for one incarnation of a candidate, that nobody else has. (The module `uuid` is slow to
    import.)"""
    return os.urandom(16).hex()


def _begin(session: Session, send: Send) -> PendingResult:
    """Send it in this very turn of the loop, if that can be done."""
    try:
        return session.begin(send.operation, send.timeout)
    except Exception:  # then it is asked, and what comes of that lived through
        return None


def _store_failed(err: Exception, role: str) -> Failure:
    """A candidate outlives whatever a store does; the outcome is then unknown."""
    log.error("store.misbehaved", err, role=role)
    return Failure(unknown=True, detail=type(err).__name__)


def _discard(sent: PendingResult) -> None:
    """Give up what was sent and nobody will await: it is cancelled where it waits."""
    if sent is not None:
        with contextlib.suppress(StopIteration, asyncio.CancelledError):
            sent.send(None)
            sent.throw(asyncio.CancelledError())


def _retry_delay(result: Result, failures: int, ttl: float) -> float:
    """Seconds for which the next try is held back after that many in a row that failed."""
    if not isinstance(result, Failure):
        return 0.0
    return ttl / 3 if result.permanent else full_jitter(failures, 0.05, min(5.0, ttl / 3))


GIVE_UP_AFTER = 3
"""Tries without an answer after which whoever waits for the outcome of the first claim is told that
there is none."""
