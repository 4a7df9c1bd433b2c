"""The terms of one candidate, one after the other: what is informed of their begin and their end,
and when the work under them has ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from coord.core.actions import (
    Elected,
    Event,
    InfoObserved,
    LeaderObserved,
    Lost,
    PauseObserved,
)
from coord.core.election import Election
from coord.core.lease import LossReason
from coord.core.phases import Phase
from coord.core.timing import Instant
from coord.election.callbacks import CallbackRunner, Dispatcher, RunningCallback
from coord.election.kept import KeptText
from coord.election.term import NEVER, Term, Watchdog
from coord.runtime import log
from coord.runtime.threads import Latch, until_set
from coord.runtime.timers import within


class Observer(Protocol):
    """Is informed of elections, on coord's loop, between two requests. It must be quick. What it
    raises is logged, and decides nothing."""

    def elected(self, term: Term) -> None:
        """A term begins."""

    def lost(self, term: Term, reason: LossReason) -> None:
        """A term has ended."""

    def renewed(self, term: Term, latency: float, remaining: float) -> None:
        """Record that a renewal was answered.

        Args:
            term: The term that was renewed.
            latency: Seconds from the request to its answer.
            remaining: Seconds from the answer to the deadline of the term.
        """


observer: Observer | None = None
"""The observer of this process; None while there is none. `coord.metrics.enable` sets it."""


def notify_observer(role: str, notify: Callable[[Observer], None]) -> None:
    """Call `notify` with the observer, if there is one. What it raises is logged."""
    if observer is not None:
        try:
            notify(observer)
        except Exception as err:
            log.error("metrics.failed", err, role=role)


IDLE_CHECK_EVERY = 0.25
"""Seconds between two checks whether a job that was interrupted keeps a lost term."""
AFTER_CALLBACKS = 0.001
"""Seconds that callbacks of an election have before this thread goes on."""


class TermOwner(Protocol):
    """The candidate whose terms begin and end."""

    def send_what_is_due(self) -> None:
        """Look at the election again: it has something to send, because work has ended or
        failed."""

    def open_text(self, term: Term) -> KeptText:
        """Return how `term` reads and writes what its role keeps."""


class TermLifecycle:
    """Turns what the election decides into terms, callbacks and log events.

    It lives on one loop. Other threads may read `term`. What decides comes first and what reports
    comes last, so that a log or an observer that fails delays nothing.

    Args:
        election: The election of the candidate.
        callbacks: Calls the callbacks.
        now: Reads the clocks.
        owner: The candidate. None means one that looks at its election by itself, and whose terms
            keep nothing.
        drain_timeout: Seconds that the work of a lost term has to end, before its lease is left to
            expire.
        at_most: Seconds that the work of a term may go without `Term.progress`, counted from its
            election; None means no limit. Calls of `@leader_only` have their own.
        slot: The number of the slot whose role it is; None for another role.

    Attributes:
        term: The last term, held or over; None before the first.
        loop: The event loop that it lives on.
        drain_timeout: See above.
        began_at: When the last term began, on the awake clock.
        failed: Whether the last term ended because a callback failed or a job made no progress.
        still_draining: The lost term whose work did not end within `drain_timeout`, until it ends.
    """

    __slots__ = (
        "_at_most",
        "_callbacks",
        "_drain",
        "_elected",
        "_election",
        "_ended",
        "_now",
        "_owner",
        "_slot",
        "_watchdog",
        "began_at",
        "drain_timeout",
        "failed",
        "loop",
        "still_draining",
        "term",
    )

    def __init__(
        self,
        election: Election,
        callbacks: CallbackRunner,
        now: Callable[[], Instant],
        *,
        owner: TermOwner | None,
        drain_timeout: float,
        at_most: float | None,
        slot: int | None = None,
    ) -> None:
        self._slot = slot
        self.term: Term | None = None
        self.drain_timeout, self._at_most = drain_timeout, at_most
        self._election, self._callbacks = election, callbacks
        self._now, self._owner = now, owner
        self.loop = asyncio.get_running_loop()
        self._watchdog: Watchdog | None = None
        self.began_at = 0.0
        self.failed = False
        self._drain: asyncio.Task[None] | None = None
        self._elected = False  # a term has just begun
        # Set while nothing but a turn of the loop keeps the lease.
        self._ended: asyncio.Handle | None = None
        self.still_draining: Term | None = None

    @property
    def draining(self) -> bool:
        """Whether work or an `on_lost` of a lost term still runs."""
        return self._drain is not None and not self._drain.done()

    @property
    def dispatcher(self) -> Dispatcher:
        """Where the callbacks run."""
        return self._callbacks.dispatcher

    @property
    def running(self) -> RunningCallback | None:
        """The callback that runs now."""
        return self._callbacks.running

    async def yield_to_callbacks(self) -> None:
        """Let the callbacks of an election go first: their thread waits while this one works."""
        if self._elected and self.dispatcher.has_thread:
            await asyncio.sleep(AFTER_CALLBACKS)
        self._elected = False

    def apply_events(self) -> None:
        """Apply what the election has decided since the last call."""
        self.check_term()
        term, election = self.term, self._election
        if (
            term is not None
            and election.phase is Phase.LEADING
            and term.token == election.token
            and term._deadline < election.deadline
            and not term._extend(election.deadline)
        ):
            self.check_term()
        for event in election.take_events():
            self._apply(event)

    def check_term(self) -> None:
        """Let the election know if the term is over already: somebody has seen its end (rule 6).

        A term whose job makes no progress is not released, because the job still runs: its lease
        expires (rule 3). Others come first, so this candidate waits until they have had a chance.
        """
        term, election = self.term, self._election
        if term is None or election.phase is not Phase.LEADING or term.token != election.token:
            return
        if term._stalled:
            now, timing = self._now(), election.timing
            election.resign(now, LossReason.NO_PROGRESS, rest=timing.ttl + timing.renew_every)
            election.abandon(now)
        elif term._over:
            election.expire_now(self._now())

    def callback_added(self) -> None:
        """Call the `on_elected` callbacks that were added since the term began."""
        self._callbacks.call_added()

    def _apply(self, event: Event) -> None:
        if isinstance(event, Elected):
            self._begin(event)
        elif isinstance(event, Lost):
            self._lose(event)
        elif isinstance(event, LeaderObserved):
            self._callbacks.new_leader(event.lease)
        elif isinstance(event, InfoObserved):
            self._callbacks.info_changed(event.lease)
        elif isinstance(event, PauseObserved) and event.lease.paused:
            log.info("role.paused", role=self._election.role, by=event.lease.withheld_by)
        elif isinstance(event, PauseObserved):
            log.info("role.resumed", role=self._election.role)

    def _begin(self, elected: Elected) -> None:
        role = self._election.role
        term = Term(
            role, self._election.candidate, elected.lease.token, elected.deadline, self._now
        )
        term.slot = self._slot
        term._host = self
        if self._at_most is not None:
            term._watch_all(self._at_most)
        self.term, self.began_at, self._elected = term, self._now().awake, True
        self._callbacks.elected(term)
        notify_observer(role, lambda observer: observer.elected(term))
        log.info("leadership.elected", role=role, token=term.token)

    def _lose(self, event: Lost) -> None:
        term, role = self.term, self._election.role
        assert term is not None  # the election emits Lost only after Elected
        term._end(event.reason)
        ended = self._callbacks.lost(term)
        if ended:
            self._ended = self.loop.call_soon(self._drained)
        else:
            drain = self._drain_term(term, ended)
            self._drain = self.loop.create_task(drain, name=f"coord drain {role}")
        reason = term.reason or event.reason
        self.failed = reason in (LossReason.CALLBACK_FAILED, LossReason.NO_PROGRESS)
        notify_observer(role, lambda observer: observer.lost(term, reason))
        on_purpose = reason in (LossReason.RELEASED, LossReason.STEPPED_DOWN, LossReason.PAUSED)
        (log.info if on_purpose else log.warning)(
            "leadership.lost", role=role, token=event.token, reason=str(reason)
        )

    @property
    def keeps_text(self) -> bool:
        """Whether terms read and write what the role keeps."""
        return self._owner is not None

    def open_text(self, term: Term) -> KeptText:
        """Return how `term` reads and writes what its role keeps."""
        assert self._owner is not None
        return self._owner.open_text(term)

    def watch_soon(self) -> None:
        """A job must be checked earlier than planned. Called on any thread."""
        self._on_loop(self._watch)

    def _watch(self) -> None:
        if self.term is not None:
            self._watchdog = self._watchdog or Watchdog(self.loop, self._stalled)
            self._watchdog.watch(self.term)

    def _stalled(self) -> None:
        self.check_term()
        self._changed()

    async def _drain_term(self, term: Term, ended: Latch) -> None:
        """Wait for `on_lost` and for every job under the term, then let the election go on (rule
        3)."""
        deadline, late = self.loop.time() + self.drain_timeout, False
        while not ended:
            if not late and self.loop.time() >= deadline:
                late, self.still_draining = True, term
                self._leave_to_expire(term)
            remaining = NEVER if late else max(deadline - self.loop.time(), 0.0)
            with contextlib.suppress(asyncio.TimeoutError):
                await within(until_set(ended), min(remaining, IDLE_CHECK_EVERY))
            term._tell_if_idle()  # a job that was interrupted may have ended without that
        self.still_draining = None
        self._drain = None
        self._drained()

    def _leave_to_expire(self, term: Term) -> None:
        self._election.abandon(self._now())
        self._changed()
        seconds = self.drain_timeout
        log.warning("leadership.not_drained", role=term.role, token=term.token, seconds=seconds)

    def apply_and_continue(self) -> None:
        """Apply what the election has decided, and let it go on now if nothing is left to wait
        for."""
        self.apply_events()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended.cancel()
            self._election.drained(self._now())

    def end(self) -> None:
        """End the last term, whatever else becomes known about it later."""
        if self.term is not None:
            self.term._end(LossReason.RELEASED)

    def _drained(self) -> None:
        self._ended = None
        self._election.drained(self._now())
        self._changed()

    def _changed(self) -> None:
        if self._owner is not None:
            self._owner.send_what_is_due()

    def _on_loop(self, function: Callable[..., None], *args: Term) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
            self.loop.call_soon_threadsafe(function, *args)

    def callback_failed(self, term: Term) -> None:
        """An `on_elected` callback of `term` has raised. Called on any thread."""
        self._on_loop(self._callback_failed, term)

    def _callback_failed(self, term: Term) -> None:
        # The callback may belong to an earlier term, which says nothing about the present one.
        if self.term is term:
            rest = self._election.timing.ttl
            self._election.resign(self._now(), LossReason.CALLBACK_FAILED, rest=rest)
            self._changed()
