"""One incarnation of a candidate, on asyncio: asks what the core wants asked, waits as it says, tells what happened."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import random
import uuid
from collections.abc import Callable
from typing import Any, Protocol

from coord import events
from coord.announcer import Announcer
from coord.backoff import Backoff
from coord.callbacks import Callbacks, Dispatcher
from coord.election import HOLDING, Done, Elected, Election, Event, Lost, Phase, Send, Wait
from coord.flag import Flag
from coord.lease import Lease, LossReason
from coord.operations import Failure, Operation, Result
from coord.term import Term
from coord.timing import Instant, Timing


class Surroundings(Protocol):
    """What a standing candidate needs of its coordinator."""

    @property
    def max_clock_skew(self) -> float | None: ...

    def now(self) -> Instant: ...

    async def ask(self, operation: Operation, timeout: float) -> Result: ...

    def follow(self, role: str, listener: Callable[[Lease], None]) -> Callable[[], None]: ...


class Standing:
    """From `start` until it is done. Lives on one loop; only `term` is read from other threads."""

    def __init__(
        self,
        around: Surroundings,
        role: str,
        timing: Timing,
        info: dict[str, Any],
        callbacks: Callbacks,
        dispatcher: Dispatcher,
        drain_timeout: float,
    ) -> None:
        # Spreads candidates over the moment after a lease has run out: few are early, so that of two hundred the first
        # has told the others before many of them ask, and yet one alone is not late. It keeps no secret.
        patience = min(0.1, timing.ttl / 10) * math.sqrt(random.random())  # noqa: S311
        self.candidate = uuid.uuid4().hex
        self.election = Election(
            role, self.candidate, timing, info=info, max_clock_skew=around.max_clock_skew, patience=patience
        )
        self.term: Term | None = None
        self.answered = False
        self.refusal: str | None = None
        self._around, self._announcer = around, Announcer(role, callbacks, dispatcher)
        self.drain_timeout = drain_timeout
        self._backoff = Backoff(0.05, min(5.0, timing.ttl / 3))
        self._wake: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._turn: asyncio.Future[None] | None = None  # there while somebody waits in `until`
        self._unfollow: Callable[[], None] | None = None
        self._drains: list[asyncio.Task[None]] = []
        self.task = self._loop.create_task(self._run(), name=f"coord {role}")
        self.task.add_done_callback(lambda _: self._tell())

    # -- what is asked of it, on its loop ------------------------------------------------------------------------

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Wait until it holds, or until this incarnation is done."""
        while not predicate() and not self.task.done():
            if self._turn is None:
                self._turn = self._loop.create_future()
            await asyncio.shield(self._turn)

    def give_up(self, reason: LossReason, rest: float) -> None:
        """Hand the role over, and stand again after `rest` seconds."""
        self.election.give_up(self._around.now(), reason, rest=rest)
        self._changed()

    def stand_down(self, linger: float = 0.0) -> None:
        """Hand the role over, and be done."""
        self.election.stand_down(self._around.now(), linger=linger)
        self._changed()

    def wake(self) -> None:
        """Look at the clock again (after the machine slept)."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    # -- the loop ------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while True:
                began = self._around.now()
                action = self.election.step(began)
                self._publish()
                if isinstance(action, Send):
                    self._answer(action, await self._ask(action), began)
                elif isinstance(action, Wait):
                    self._listen()
                    await self._sleep(action.seconds)
                elif isinstance(action, Done):
                    return
        except asyncio.CancelledError:
            await self._cancelled()
            raise
        finally:
            if self._unfollow is not None:
                self._unfollow()
            if self.term is not None:
                self.term._end(LossReason.RELEASED)

    async def _ask(self, send: Send) -> Result:
        try:
            return await self._around.ask(send.operation, send.timeout)
        except Exception as err:  # the loop outlives whatever a store does; the outcome is then unknown
            events.failure("store.misbehaved", err, role=self.election.role)
            return Failure(unknown=True, detail=type(err).__name__)

    def _answer(self, send: Send, result: Result, began: Instant) -> None:
        retry_in = 0.0
        if isinstance(result, Failure):
            retry_in = self.election.timing.ttl / 3 if result.permanent else self._backoff.next()
            self.refusal = result.detail if result.permanent else None
        else:
            self._backoff.reset()
            self.refusal = None
        self.election.reply(send, result, began, self._around.now(), retry_in)
        self.answered = True
        self._publish()
        self._tell()

    async def _sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        self._wake = self._loop.create_future()
        timer = None if seconds == float("inf") else self._loop.call_later(seconds, self.wake)
        try:
            await self._wake
        finally:
            self._wake = None
            if timer is not None:
                timer.cancel()

    def _listen(self) -> None:
        """A candidate that waits hears of releases through the feed; one that leads needs no feed."""
        waits = self.election.phase is Phase.FOLLOWING and self.election.standing
        if waits and self._unfollow is None:
            self._unfollow = self._around.follow(self.election.role, self._hinted)
        elif self.election.phase is Phase.LEADING and self._unfollow is not None:
            self._unfollow()
            self._unfollow = None

    def _hinted(self, lease: Lease) -> None:
        before = self.election.seen
        self.election.hint(lease, self._around.now())
        self._publish()
        if before is None or lease.vacant or lease.holder != before.holder:
            self.wake()

    def _changed(self) -> None:
        self._publish()
        self.wake()
        self._tell()

    def _tell(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.set_result(None)

    # -- telling -------------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        term, election = self.term, self.election
        renewed = election.phase is Phase.LEADING and term is not None and term._deadline < election.deadline
        if renewed and term is not None and term.token == election.token and not term._extend(election.deadline):
            election.forfeit(self._around.now())
        for event in self.election.take_events():
            self._tell_of(event)

    def _tell_of(self, event: Event) -> None:
        role = self.election.role
        if isinstance(event, Elected):
            term = Term(role, self.candidate, event.lease.token, event.deadline, self._around.now)
            self.term = term
            events.info("leadership.elected", role=role, token=term.token)
            self._announcer.elected(term, functools.partial(self._on_loop, self._callback_failed, term))
        elif isinstance(event, Lost):
            lost = self.term
            assert lost is not None  # the core says Lost only after Elected
            lost._end(event.reason)
            wanted = event.reason in (LossReason.RELEASED, LossReason.STEPPED_DOWN)
            (events.info if wanted else events.warning)(
                "leadership.lost", role=role, token=event.token, reason=str(event.reason)
            )
            drain = self._loop.create_task(self._drain(lost), name=f"coord drain {role}")
            self._drains.append(drain)
            drain.add_done_callback(self._drains.remove)
        else:
            self._announcer.new_leader(event.lease)

    async def _drain(self, term: Term) -> None:
        """Wait for `on_lost` and for every job under the term, then let the core go on (rule 3)."""
        ended = self._announcer.lost(term)
        try:
            await asyncio.wait_for(_happened(ended), self.drain_timeout)
        except asyncio.TimeoutError:
            events.warning("leadership.not_drained", role=term.role, token=term.token, seconds=self.drain_timeout)
            self.election.abandon(self._around.now())
            self._changed()
            await ended
        self.election.drained(self._around.now())
        self._changed()

    def _on_loop(self, function: Callable[[Term], None], term: Term) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
            self._loop.call_soon_threadsafe(function, term)

    def _callback_failed(self, term: Term) -> None:
        if self.term is term:
            self.give_up(LossReason.CALLBACK_FAILED, self.election.timing.ttl)

    async def _cancelled(self) -> None:
        """The loop is being shut down around us: nothing can be drained any more, but a lease can still go back."""
        held = self.election.phase in HOLDING
        self.election.stand_down(self._around.now())
        if self.term is not None:
            self.term._end(LossReason.RELEASED)
        if not held:
            return
        self.election.in_flight = None
        self.election.drained(self._around.now())
        action = self.election.step(self._around.now())
        if isinstance(action, Send):
            await self._ask(action)


async def _happened(flag: Flag) -> None:
    await flag
