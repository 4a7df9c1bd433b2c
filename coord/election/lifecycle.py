"""Who is told how elections go, for figures: nobody, until somebody asks (`coord.metrics`). Off, it
costs one look."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Protocol

from coord.core.election import Elected, Election, Event, Lost, Phase
from coord.core.lease import LossReason
from coord.core.timing import Instant
from coord.election.callbacks import CallbackRunner, Dispatcher, RunningCallback
from coord.election.term import Term, Watchdog
from coord.runtime import log
from coord.runtime.threads import Latch
from coord.runtime.timers import within


class Observer(Protocol):
    """Called on coord's loop, between two requests: it must be quick, and must not raise."""

    def elected(self, term: Term) -> None:
        """A term begins."""

    def lost(self, term: Term, reason: LossReason) -> None:
        """A term has ended."""

    def renewed(self, term: Term, latency: float, left: float) -> None:
        """A renewal was answered, `latency` seconds after it was sent and `left` seconds before the
        term's deadline."""


observer: Observer | None = None
"""The one that is told. Set by `coord.metrics.enable`."""


# -- The terms of one candidate, one after the other: who is told of their begin and end, and when
# their work is over.

AFTER_CALLBACKS = 0.001
"""Seconds that a callback has for itself when it begins."""


class TermLifecycle:
    """Turns what the core says into terms, log events and callbacks. Lives on one loop; `term` is
    read from anywhere.

    at_most: seconds that the work of a term may stand still (`Term.progress`), from its election
    on; None: without
        end. Calls of `@leader_only` bring an `at_most` of their own.
    """

    __slots__ = (
        "_at_most",
        "_callbacks",
        "_changed",
        "_drain",
        "_elected",
        "_election",
        "_ended",
        "_loop",
        "_now",
        "_watchdog",
        "began_at",
        "drain_timeout",
        "still_draining",
        "term",
    )

    def __init__(
        self,
        election: Election,
        callbacks: CallbackRunner,
        now: Callable[[], Instant],
        changed: Callable[[], None],
        drain_timeout: float,
        at_most: float | None,
    ) -> None:
        self.term: Term | None = None
        self.drain_timeout, self._at_most = drain_timeout, at_most
        self._election, self._callbacks, self._now, self._changed = (
            election,
            callbacks,
            now,
            changed,
        )
        self._loop = asyncio.get_running_loop()
        self._watchdog: Watchdog | None = None
        self.began_at = 0.0
        """When the last term began, on the awake clock."""
        self._drain: asyncio.Task[None] | None = None
        self._elected = False  # just now
        self._ended: asyncio.Handle | None = (
            None  # there while nothing but a turn of the loop keeps the lease
        )
        self.still_draining: Term | None = None
        """The lost term whose work has not ended within `drain_timeout`, until it does."""

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
        """Callbacks of an election go first: their thread cannot run while this one does what else
        comes of it."""
        if self._elected and not self._callbacks.idle:
            await asyncio.sleep(AFTER_CALLBACKS)
        self._elected = False

    def apply_events(self) -> None:
        """Tell what the core has decided since the last time."""
        self.check_progress()
        term, election = self.term, self._election
        renewed = (
            election.phase is Phase.LEADING
            and term is not None
            and term._deadline < election.deadline
        )
        if (
            renewed
            and term is not None
            and term.token == election.token
            and not term._extend(election.deadline)
        ):
            self.check_progress()
            election.expire_now(self._now())
        for event in election.take_events():
            self._apply(event)

    def check_progress(self) -> None:
        """A term whose job stands still is lost. It is not renewed from here on, nor released: the
        job still runs, so the lease runs out by itself (rule 3). Others come first: we rest until
        they have had their chance."""
        term, election = self.term, self._election
        if term is None or term._progress is None or election.phase is not Phase.LEADING:
            return
        if term.token == election.token and term._stalled:
            now, timing = self._now(), election.timing
            election.resign(now, LossReason.NO_PROGRESS, rest=timing.ttl + timing.renew_every)
            election.abandon(now)

    def _apply(self, event: Event) -> None:
        role = self._election.role
        if isinstance(event, Elected):
            term = self._begin(event)
            log.info("leadership.elected", role=role, token=term.token)
            if observer is not None:
                observer.elected(term)
            self._elected = True
            self._callbacks.elected(
                term, functools.partial(self._on_loop, self._callback_failed, term)
            )
        elif isinstance(event, Lost):
            lost = self.term
            assert lost is not None  # the core says Lost only after Elected
            lost._end(event.reason)
            reason = lost.reason or event.reason
            wanted = reason in (LossReason.RELEASED, LossReason.STEPPED_DOWN)
            (log.info if wanted else log.warning)(
                "leadership.lost", role=role, token=event.token, reason=str(reason)
            )
            if observer is not None:
                observer.lost(lost, reason)
            ended = self._callbacks.lost(lost)
            if ended:
                self._ended = self._loop.call_soon(self._drained)
            else:
                self._drain = self._loop.create_task(
                    self._drain_term(lost, ended), name=f"coord drain {role}"
                )
        else:
            self._callbacks.new_leader(event.lease)

    def _begin(self, elected: Elected) -> Term:
        term = Term(
            self._election.role,
            self._election.candidate,
            elected.lease.token,
            elected.deadline,
            self._now,
        )
        term._on_earlier_check = self._watch_soon
        if self._at_most is not None:
            term._watch(self._at_most)
        self.term, self.began_at = term, self._now().awake
        return term

    def _watch_soon(self) -> None:
        """Something that runs under the term is to be looked at earlier than planned; said on any
        thread."""
        self._on_loop(self._watch)

    def _watch(self) -> None:
        if self.term is not None:
            self._watchdog = self._watchdog or Watchdog(self._loop, self._stalled)
            self._watchdog.watch(self.term)

    def _stalled(self) -> None:
        self.check_progress()
        self._changed()

    async def _drain_term(self, term: Term, ended: Latch) -> None:
        """Wait for `on_lost` and for every job under the term, then let the core go on (rule 3)."""
        try:
            await within(_happened(ended), self.drain_timeout)
        except asyncio.TimeoutError:
            log.warning(
                "leadership.not_drained",
                role=term.role,
                token=term.token,
                seconds=self.drain_timeout,
            )
            self._election.abandon(self._now())
            self._changed()
            self.still_draining = term
            await ended
            self.still_draining = None
        self._drain = None
        self._drained()

    def apply_and_continue(self) -> None:
        """Tell what the core has decided, and let it go on now where nothing is left to wait
        for."""
        self.apply_events()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended.cancel()
            self._election.drained(self._now())

    def end(self) -> None:
        """Nobody is to believe in the last term any more, whatever is told of it later."""
        if self.term is not None:
            self.term._end(LossReason.RELEASED)

    def _drained(self) -> None:
        self._ended = None
        self._election.drained(self._now())
        self._changed()

    def _on_loop(self, function: Callable[..., None], *args: Term) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
            self._loop.call_soon_threadsafe(function, *args)

    def _callback_failed(self, term: Term) -> None:
        if self.term is term:
            self._election.resign(
                self._now(), LossReason.CALLBACK_FAILED, rest=self._election.timing.ttl
            )
            self._changed()


async def _happened(flag: Latch) -> None:
    await flag
