"""One candidate for one role, as a pure state machine. No clock, no I/O, no threads, no randomness
in here.

A shell calls `step(now)` and does what it says: send a request, wait, or stop. What came back it
gives to `reply(send, result, sent_at, now)`; what a feed whispered, to `hint`. Events (`Elected`,
`Lost`, `Saw`) pile up in `take_events()`. All times are `Instant`s that the shell read.

The rules, by the numbers of `docs/guarantees.md`:

1.  A claim is one compare-and-swap against what was last seen. A first claim has seen nothing, and
may take only a
    lease that is vacant or run out by the store's clock; otherwise its answer is the first sight.
2.  A renewal names its holder and token; it is never sent for a term that has ended.
3.  The work ends first (`drained`), then the lease is released. Work that will not end lets the
lease run out. Nor
    is a new claim sent before the work of the last term has ended. A release may hand the role to
    one candidate: the row then names it, with beat 0, and it claims as under rule 8; the others
    wait as for any lease.
4.  Takeover is due when the same (holder, token, beat) was seen for the row's whole ttl on this
candidate's `awake`
    clock, counted from when the first sight of it was *received*; or when the store's clock says so
    (the store judges that, in the claim).
5.  A leader's deadline is counted from *before it asked*: sent_at + ttl - margin. It never moves
back. 6.  A passed deadline is final. The clock decides it, not the store, and no late answer undoes
it. 7.  The deadline is on the `total` clock, which counts suspend; the challenger's wait is on the
`awake` clock. 8.  An unknown outcome is a value. After an unknown claim comes a look, then a fresh
decision. A row that says that I
    hold a lease I do not lead is never adopted: it is claimed anew, with a new token. An unknown
    renewal may be
    followed by another: a renewal is guarded by its token, so two of them do no more than one.
9.  Every request that is sent counts `beat` up, so that no two writes ever leave the same sight
behind."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Union

from coord.core.lease import MAX_TOKEN, Lease, LossReason, Observation, Revision
from coord.core.operations import Answer, Claim, Failure, Operation, Read, Release, Renew, Result
from coord.core.timing import Instant, Timing


class Phase(enum.Enum):
    UNSEEN = "unseen"  # stands for the role, has not yet seen its row
    FOLLOWING = "following"  # has seen the row, waits until the role may be claimed
    LEADING = "leading"  # holds the lease and believes it, until the deadline
    DRAINING = "draining"  # gives the role up: believes nothing, renews while the work ends
    RELEASING = "releasing"  # the work has ended, the lease is being given back
    STOPPED = "stopped"  # stands no more


class Cue(enum.Enum):
    SEEN = "an answer showed the row"
    FAILED = "no answer"
    WON = "a claim was applied"
    WON_UNWANTED = "a claim was applied that is not wanted any more"
    RENEWED = "a renewal was applied"
    TAKEN = "the store says that the lease is not ours"
    DEADLINE = "the deadline passed"
    RESIGN = "asked to hand the role over"
    DRAINED = "the work has ended"
    ABANDONED = "the work did not end in time"
    RELEASED = "the release was answered"
    STOP = "nothing is held and nobody wants to stand"


TRANSITIONS: Mapping[Phase, Mapping[Cue, Phase]] = {
    Phase.UNSEEN: {
        Cue.SEEN: Phase.FOLLOWING,
        Cue.FAILED: Phase.UNSEEN,
        Cue.WON: Phase.LEADING,
        Cue.WON_UNWANTED: Phase.RELEASING,
        Cue.STOP: Phase.STOPPED,
    },
    Phase.FOLLOWING: {
        Cue.SEEN: Phase.FOLLOWING,
        Cue.FAILED: Phase.FOLLOWING,
        Cue.WON: Phase.LEADING,
        Cue.WON_UNWANTED: Phase.RELEASING,
        Cue.STOP: Phase.STOPPED,
    },
    Phase.LEADING: {
        Cue.RENEWED: Phase.LEADING,
        Cue.FAILED: Phase.LEADING,
        Cue.TAKEN: Phase.FOLLOWING,
        Cue.DEADLINE: Phase.FOLLOWING,
        Cue.RESIGN: Phase.DRAINING,
    },
    Phase.DRAINING: {
        Cue.RENEWED: Phase.DRAINING,
        Cue.FAILED: Phase.DRAINING,
        Cue.TAKEN: Phase.FOLLOWING,
        Cue.DEADLINE: Phase.FOLLOWING,
        Cue.DRAINED: Phase.RELEASING,
        Cue.ABANDONED: Phase.FOLLOWING,
    },
    Phase.RELEASING: {
        Cue.FAILED: Phase.RELEASING,
        Cue.RELEASED: Phase.FOLLOWING,
        Cue.DEADLINE: Phase.FOLLOWING,
    },
    Phase.STOPPED: {},
}
"""Where each cue leads. A pair that is not here cannot happen, and raises `ImpossibleCue`."""

HOLDING = (Phase.LEADING, Phase.DRAINING, Phase.RELEASING)


class ImpossibleCue(AssertionError):
    """The machine was driven somewhere that the table does not know: a defect of coord, never of
    the caller."""


@dataclass(frozen=True, slots=True)
class Send:
    """Put this to the store now; give it up after `timeout` seconds (then the result is an unknown
    `Failure`)."""

    operation: Operation
    timeout: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do for so many seconds, unless something happens. May be infinite."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """Stopped: there is nothing left to do, ever."""


Action = Union[Send, Wait, Done]


@dataclass(frozen=True, slots=True)
class Elected:
    """We lead, under this token, until `deadline` (and further, with every renewal)."""

    lease: Lease
    deadline: float


@dataclass(frozen=True, slots=True)
class Lost:
    token: int
    reason: LossReason


@dataclass(frozen=True, slots=True)
class LeaderObserved:
    """Somebody new leads (perhaps we)."""

    lease: Lease


Event = Union[Elected, Lost, LeaderObserved]

NEVER = float("inf")


@dataclass(slots=True)
class Election:
    """A candidate. `candidate` is its id, new for every incarnation; `takeover_delay` and
    `release_delay` (seconds) are its own small delays before it takes what has run out, and what
    was given back: drawn by the shell, so that many candidates do not all ask at once. They may be
    changed at any time."""

    role: str
    candidate: str
    timing: Timing
    info: Mapping[str, Any] = field(default_factory=dict)
    max_clock_skew: float | None = 0.0
    takeover_delay: float = 0.0
    release_delay: float = 0.0
    token_floor: int = 0

    phase: Phase = Phase.UNSEEN
    campaigning: bool = True
    token: int = 0
    deadline: float = -NEVER
    observed: Lease | None = None
    in_flight: Send | None = None
    _observed_at: float = 0.0  # on the awake clock, as is `_sent_at`
    _store_expiry: float = NEVER
    _sent_at: float = 0.0
    _retry_at: float = -NEVER
    _cooldown_until: float = -NEVER
    _renew_at: float = NEVER
    _linger_until: float = -NEVER
    _successor: str | None = None
    _requested_by: str = ""
    _last_loss: tuple[int, str] | None = None
    _beat: int = 0
    _failing: bool = False
    _claim_unknown: bool = False
    _try_now: bool = False
    _work_running: bool = False
    _stored_info: Mapping[str, Any] | None = None
    _events: tuple[Event, ...] = ()

    def leads(self, now: Instant) -> bool:
        """Rule 6: the clock decides."""
        return self.phase is Phase.LEADING and now.total < self.deadline

    @property
    def failing(self) -> bool:
        """Whether the store did not answer the last request."""
        return self._failing

    def take_events(self) -> tuple[Event, ...]:
        events, self._events = self._events, ()
        return events

    def step(self, now: Instant) -> Action:
        """What to do now."""
        self._expire(now)
        if self.in_flight is not None:
            return Wait(max(0.0, self.deadline - now.total) if self.phase in HOLDING else NEVER)
        if self.phase in HOLDING:
            return self._step_holding(now)
        if self.phase is Phase.STOPPED:
            return Done()
        return self._step_waiting(now)

    def _step_holding(self, now: Instant) -> Action:
        due = self._renew_at if self.phase is not Phase.RELEASING else -NEVER
        if self._try_now:
            due = -NEVER
        due = max(due, self._retry_at)
        if now.total < due:
            return Wait(min(due, self.deadline) - now.total)
        self._try_now = False
        timeout = min(self.timing.attempt_timeout, self.deadline - now.total)
        self._beat += 1
        if self.phase is Phase.RELEASING:
            return self._send(self._release(now), timeout)
        told = None if self.info == self._stored_info else self.info
        return self._send(
            Renew(self.role, self.candidate, self.token, self._beat, self.timing.ttl, told), timeout
        )

    def _step_waiting(self, now: Instant) -> Action:
        if not self.campaigning and not (self._claim_unknown or self._work_running):
            self._go(Cue.STOP)
            return Done()
        if self._work_running:
            return Wait(NEVER)  # rule 3: `drained` wakes us
        if now.total < self._retry_at:
            return Wait(self._retry_at - now.total)
        if self._claim_unknown:
            return self._send(Read(self.role), self.timing.attempt_timeout)  # rule 8
        if now.total < self._cooldown_until:
            return Wait(self._cooldown_until - now.total)
        if self.observed is None:
            return self._claim(None)
        wait = self._claim_wait(now)
        if self._try_now or wait <= 0:
            takeover = now.awake >= self._observed_at + self.observed.ttl
            # `try_now` is used when somebody knows more than we do (a handover,
            # `unique_service`), so our last observation may be old. Claim without an expected
            # revision; the answer shows the row.
            prompted, self._try_now = self._try_now, False
            return self._claim(
                None if prompted and not takeover else self.observed.revision, takeover
            )
        return Wait(wait)

    def _claim_wait(self, now: Instant) -> float:
        """Return how many seconds to wait before claiming what was observed."""
        assert self.observed is not None
        if self.observed.holder == self.candidate:
            return 0.0
        if self.observed.vacant:
            return self._observed_at + self.release_delay - now.awake
        observed = self._observed_at + self.observed.ttl + self.takeover_delay - now.awake
        return min(observed, self._store_expiry + self.takeover_delay - now.total)

    def reply(
        self, send: Send, result: Result, sent_at: Instant, now: Instant, retry_in: float = 0.0
    ) -> None:
        """What came of `send`. `retry_in` (seconds) holds the next try back after a failure; the
        shell jitters it.

        A reply to anything but the request in flight (late, or a second time) is ignored.
        """
        if send is not self.in_flight:
            return
        self.in_flight = None
        self._expire(now)
        operation = send.operation
        if isinstance(result, Failure):
            self._failed(operation, result, now, retry_in)
            return
        self._failing, self._retry_at = False, -NEVER
        if isinstance(operation, Claim):
            self._claim_answered(result, sent_at, now)
        elif isinstance(operation, Renew):
            if result.applied and operation.info is not None:
                self._stored_info = operation.info
            self._renew_answered(result, sent_at, now)
        elif isinstance(operation, Release):
            self._see(result.lease, now)
            if self.phase is Phase.RELEASING:
                self._go(Cue.RELEASED)
        else:
            self._look_answered(result.lease, now)

    def hint(self, lease: Lease, now: Instant) -> None:
        """A feed whispers that the row looks like this. Never adopted: it may wake us, and start a
        takeover's count."""
        if self.phase is Phase.FOLLOWING:
            if self.observed is None or not lease.older_than(self.observed):
                self._see(lease, now)
        elif self.phase is Phase.LEADING and lease.token > self.token:
            self._try_now = True  # the store shall say whether that is so

    @property
    def observation(self) -> Observation | None:
        """Since when the lease has been as it was seen last; None if it is vacant or not seen."""
        if self.observed is None or self.observed.vacant:
            return None
        return Observation(self.observed.revision, self._observed_at)

    def recall(self, observation: Observation) -> None:
        """Count the takeover from what an earlier candidate on this machine observed (rule 4).

        It changes nothing if the lease was seen at another revision: somebody has written since.
        """
        if self.observed is not None and self.observed.revision == observation.revision:
            self._observed_at = min(self._observed_at, observation.since)

    def claims_now(self, now: Instant) -> bool:
        """Return whether the next step claims the lease that was seen last."""
        return (
            self.phase is Phase.FOLLOWING
            and self.campaigning
            and not (self.in_flight or self._work_running or self._claim_unknown)
            and now.total >= max(self._retry_at, self._cooldown_until)
            and self._claim_wait(now) <= 0
        )

    def lose(self, reason: LossReason) -> None:
        """End the term as if its deadline had passed; for test kits, while leading."""
        self._lose(reason, Cue.DEADLINE)

    def try_now(self, *, skip_cooldown: bool = False) -> None:
        """Ask the store at the next step, without waiting for the time when it would be due: renew,
        or try to claim (what is vacant or has run out; a lease that stands is not taken by
        asking)."""
        self._try_now = True
        if skip_cooldown:
            self._cooldown_until = self._retry_at = -NEVER

    def resign(
        self,
        now: Instant,
        reason: LossReason,
        *,
        rest: float = 0.0,
        linger: float = 0.0,
        to: str | None = None,
        by: str = "",
    ) -> None:
        """Hand the role over, if it is held, and stand again after `rest` seconds (`stop` ends that
        too).

        `linger`: let the lease rest so many seconds from now before anyone gets it.
        to: the candidate that is to have it; the others get it when that one has not claimed for
        `renew_every` seconds.
        by: who asked, for the history.
        """
        self._expire(now)
        self._cooldown_until = max(self._cooldown_until, now.total + max(rest, linger))
        if self.phase is Phase.LEADING:
            self._linger_until = now.total + linger
            self._successor, self._requested_by = None if to == self.candidate else to, by
            self._lose(reason, Cue.RESIGN)

    def stop(
        self, now: Instant, reason: LossReason = LossReason.RELEASED, *, linger: float = 0.0
    ) -> None:
        """Hand the role over, if it is held, and stand no more."""
        self.campaigning = False
        self.resign(now, reason, linger=linger)

    def resume(self) -> None:
        """Be a candidate again: the caller has changed its mind after `stop`. A lease that is being
        handed over is handed over first."""
        self.campaigning = True

    def drained(self, now: Instant) -> None:
        """The work of the term that was lost has ended."""
        self._expire(now)
        self._work_running = False
        if self.phase is Phase.DRAINING:
            self._go(Cue.DRAINED)

    def abandon(self, now: Instant) -> None:
        """The work does not end: renew no more, and let the lease run out by itself."""
        self._expire(now)
        if self.phase is Phase.DRAINING:
            self._go(Cue.ABANDONED)
            if self._last_loss != (self.token, LossReason.NO_PROGRESS.value):
                self._last_loss = (
                    self.token,
                    LossReason.EXPIRED.value,
                )  # for the history: that is how the lease ends

    def expire_now(self, now: Instant) -> None:
        """Somebody has already been told that the term is over: so it is, whatever a late renewal
        brought (rule 6)."""
        self._expire(now)
        if self.phase is Phase.LEADING:
            self._lose(LossReason.EXPIRED, Cue.DEADLINE)

    def _go(self, cue: Cue) -> None:
        try:
            self.phase = TRANSITIONS[self.phase][cue]
        except KeyError:
            raise ImpossibleCue(f"{cue.name} while {self.phase.name}") from None

    def _emit(self, event: Event) -> None:
        self._events += (event,)

    def _send(self, operation: Operation, timeout: float) -> Send:
        self.in_flight = Send(operation, timeout)
        return self.in_flight

    def _release(self, now: Instant) -> Release:
        linger = max(0.0, self._linger_until - now.total)
        last, by, to = self._last_loss, "", None
        if last is not None and last[0] == self.token:
            by, to = self._requested_by, self._successor
        else:
            last = None  # a lease that nobody wanted: no term of ours came of it
        if to is not None:
            linger = max(linger, self.timing.renew_every)
        reason = LossReason.RELEASED.value if last is None else last[1]
        return Release(self.role, self.candidate, self.token, self._beat, linger, to, reason, by)

    def _claim(self, expected: Revision | None, takeover: bool = False) -> Send:
        self._beat += 1
        claim = Claim(
            self.role,
            self.candidate,
            self._beat,
            self.timing.ttl,
            expected=expected,
            takeover=takeover,
            skew=self.max_clock_skew,
            floor=self.token_floor,
            lost=self._last_loss,
            info=self.info,
        )
        return self._send(claim, self.timing.attempt_timeout)

    def _claim_answered(self, answer: Answer, sent_at: Instant, now: Instant) -> None:
        self._see(answer.lease, now)
        deadline = sent_at.total + self.timing.ttl - self.timing.margin  # rule 5
        if not answer.applied or now.total >= deadline:
            self._go(Cue.SEEN)
            return
        self.token, self.deadline, self._sent_at = answer.lease.token, deadline, sent_at.awake
        self._stored_info = self.info if answer.lease.info == self.info else answer.lease.info
        self._renew_at = sent_at.total + self.timing.renew_every
        if self.campaigning and now.total >= self._cooldown_until:
            self._go(Cue.WON)
            self._emit(Elected(answer.lease, deadline))
        else:
            self._go(Cue.WON_UNWANTED)

    def _renew_answered(self, answer: Answer, sent_at: Instant, now: Instant) -> None:
        self._see(answer.lease, now)
        if self.phase not in (Phase.LEADING, Phase.DRAINING):
            return  # the deadline passed, or the work ended, while it was under way
        if answer.applied:
            deadline = sent_at.total + self.timing.ttl - self.timing.margin
            if deadline > self.deadline:
                self.deadline, self._sent_at = deadline, sent_at.awake
            self._renew_at = sent_at.total + self.timing.renew_every
            self._go(Cue.RENEWED)
        elif (answer.lease.holder, answer.lease.token) != (self.candidate, self.token):
            if self.phase is Phase.LEADING:
                self._lose(LossReason.TAKEN, Cue.TAKEN)
            else:
                self._go(Cue.TAKEN)  # the loss was told when the role was given up
        else:
            self._go(Cue.FAILED)

    def _look_answered(self, lease: Lease, now: Instant) -> None:
        self._claim_unknown = False
        self._see(lease, now)
        self._go(Cue.SEEN)
        if lease.holder == self.candidate and not self.campaigning:
            # The claim did get through, and nobody wants it any more: give it back, without ever
            # having believed it.
            self.token, self.deadline = lease.token, now.total + lease.ttl
            self._go(Cue.WON_UNWANTED)

    def _failed(
        self, operation: Operation, failure: Failure, now: Instant, retry_in: float
    ) -> None:
        self._failing = True
        if self.phase in HOLDING:
            retry_in = min(
                retry_in, self.timing.ttl / 20
            )  # the second attempt must still fit before the deadline
        self._retry_at = now.total + retry_in
        if isinstance(operation, Claim) and failure.unknown:
            self._claim_unknown = True
        elif isinstance(operation, Read) and not self.campaigning:
            self._claim_unknown = False  # a best effort: what may be held will run out by itself
        if self.phase is not Phase.STOPPED:
            self._go(Cue.FAILED)

    def _see(self, lease: Lease, now: Instant) -> None:
        before = self.observed
        if before is None or lease.revision != before.revision:
            self._observed_at = now.awake
        self.observed = lease
        self.token_floor = min(max(self.token_floor, lease.token), MAX_TOKEN - 1)
        # When to ask, going by the store's clock; the store decides. Never at once again, or a
        # clock that stands still would make this spin.
        pause = 0.02 * self.timing.ttl
        left = (
            NEVER
            if self.max_clock_skew is None
            else max(lease.remaining + self.max_clock_skew, 0.0)
        )
        self._store_expiry = now.total + (
            max(left, pause) if before and lease.revision == before.revision else left
        )
        known = before is not None and (before.holder, before.token) == (lease.holder, lease.token)
        if lease.reserved:
            if lease.holder == self.candidate:
                self._cooldown_until = -NEVER  # handed over to us, whatever we rested from
        elif not lease.vacant and not known:
            self._emit(LeaderObserved(lease))

    def _expire(self, now: Instant) -> None:
        if self.phase not in HOLDING or now.total < self.deadline:
            return
        if self.phase is Phase.LEADING:
            asleep = now.awake < self._sent_at + self.timing.ttl - self.timing.margin
            late = (
                LossReason.STORE_UNREACHABLE
                if self._failing or self.in_flight
                else LossReason.EXPIRED
            )
            self._lose(LossReason.SUSPENDED if asleep else late, Cue.DEADLINE)
        else:
            self._go(Cue.DEADLINE)

    def _lose(self, reason: LossReason, cue: Cue) -> None:
        self._work_running = True
        self._last_loss = (self.token, reason.value)
        self._go(cue)
        self._emit(Lost(self.token, reason))
