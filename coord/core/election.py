"""The election of one candidate for one role, as a pure state machine.

It has no clock, no I/O, no threads and no randomness. The caller calls `step(now)` and does what
the action says: send a request, wait, or stop. It passes the result of a request to
`reply(send, result, sent_at, now)`, and a row that a feed showed to `hint`. Events (`Elected`,
`Lost`, `LeaderObserved`, `InfoObserved`) are collected until `take_events` returns them. All times
are `Instant`s that the caller read.

The rules, by the numbers of `docs/guarantees.md`:

1.  A claim is one atomic compare-and-swap against the revision that was observed last. A first
    claim has observed nothing. It takes only a lease that is vacant or has expired by the store's
    clock; otherwise its answer is the first observation.
2.  A renewal names its holder and token. It is never sent for a term that has ended. A text to keep
    travels with the next renewal or release of its own term, until one of them is answered.
3.  First the work ends (`drained`), then the lease is released. If the work does not end, the lease
    expires. No new claim is sent before the work of the last term has ended. A release may reserve
    the role for one candidate: then the row names that candidate, with beat 0. It claims as in
    rule 8, and the others wait as for any lease.
4.  Takeover is due when the same revision was observed for the whole ttl of the row on the awake
    clock of this machine, counted from when the revision was first *received*, by this candidate or
    by an earlier one on the same machine (`recall`). It is also due when the store's clock says
    that the lease has expired; the store judges that, in the claim.
5.  The deadline of a leader counts from *before the request was sent*: sent_at + ttl - margin. It
    never moves back.
6.  A passed deadline is final. The clock decides, not the store, and no late answer undoes it.
7.  The deadline is on the `total` clock, which counts suspend. A challenger waits on the `awake`
    clock.
8.  An unknown outcome is a value. After an unknown claim the candidate reads the row and decides
    from the beginning. It never adopts a row that names it as the holder of a lease that it does
    not lead: it claims again, with a new token. After an unknown renewal it may renew again: a
    renewal is guarded by its token, so two have the effect of one.
11. An operator's override gives the row to a holder that no candidate is, at an observed revision,
    and keeps its ttl. A revoked row is a lease that nobody renews: rule 4 decides who takes it, and
    nobody takes it earlier. A paused row is never claimed: a candidate reads it once a ttl, in case
    the feed lost the news that the role was resumed. Resuming makes the row a revoked one.
12. A row is deleted only while it is vacant and at an observed revision, and its token is kept in
    the same atomic step: as a floor for its prefix, or for its role alone. A role without a row
    begins above its floors, so no candidate needs to know whether its role was retired.
13. Each request that is sent increases `beat`, so that no two writes result in the same revision.

The other two rules, 9 and 10, are about forks and about resources, not about a candidate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coord.core.actions import (
    Action,
    Done,
    Elected,
    Event,
    InfoObserved,
    LeaderObserved,
    Lost,
    PauseObserved,
    Send,
    Wait,
)
from coord.core.info import InfoUpdates, ObservedInfo
from coord.core.keeping import Keeping
from coord.core.lease import MAX_TOKEN, MIN_TTL, PAUSED, Lease, LossReason, Observation, Revision
from coord.core.operations import Answer, Claim, Failure, Operation, Read, Release, Renew, Result
from coord.core.phases import HOLDING, TRANSITIONS, Cue, ImpossibleCue, Phase
from coord.core.timing import Instant, Timing

NEVER = float("inf")
MAX_DEFAULT_HOLD = 1.0
"""Seconds for which a role is reserved at most, unless somebody says how long."""


@dataclass(slots=True, eq=False)
class Election:
    """One candidate for one role.

    Attributes:
        role: The role.
        candidate: The id of the candidate. Each incarnation has a new one.
        timing: The durations. They may be changed at any time, like `info` and the two delays.
        info: What the candidate says about itself while it holds the role.
        max_clock_skew: How far the store's clock may be off, in seconds; None means that takeover
            by the store's clock is off.
        takeover_delay: Seconds to wait after a lease has expired before claiming it. The caller
            draws both delays, so that many candidates do not send their claims at the same time.
        release_delay: Seconds to wait after a role was seen to be vacant before claiming it.
        token_floor: The highest token that the candidate knows of; its own are higher.
        phase: What the candidate does at present.
        campaigning: Whether it is a candidate; False after `stop`.
        token: The token of its last term.
        deadline: When its term ends, on the total clock.
        observed: The lease as it was seen last; None before the first answer.
        in_flight: The request that has no result yet.
        updates: Which changes of `info` the store has.
        keeping: The text that its role is to keep, and what became of it.
    """

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
    updates: InfoUpdates = InfoUpdates()
    keeping: Keeping = Keeping()
    _observed_at: float = 0.0  # on the awake clock, as is `_sent_at`
    _store_expiry: float = NEVER
    _sent_at: float = 0.0
    _retry_at: float = -NEVER
    _cooldown_until: float = -NEVER
    _renew_at: float = NEVER
    _linger_until: float = -NEVER
    _successor: str | None = None
    _hold: float = 0.0
    _requested_by: str = ""
    _last_loss: tuple[int, str] | None = None
    _beat: int = 0
    _failing: bool = False
    _claim_unknown: bool = False
    _try_now: bool = False
    _work_running: bool = False
    _observed_info: ObservedInfo = ObservedInfo()
    _events: tuple[Event, ...] = ()

    def leads(self, now: Instant) -> bool:
        """Return whether the candidate leads at `now`; the clock decides (rule 6)."""
        return self.phase is Phase.LEADING and now.total < self.deadline

    def cooldown(self, now: Instant) -> float:
        """Return for how many more seconds it sends no claim, because it has stepped down."""
        return max(0.0, self._cooldown_until - now.total)

    @property
    def paused(self) -> bool:
        """Whether an operator had paused the role when this candidate saw the row last."""
        return self.observed is not None and self.observed.paused

    @property
    def failing(self) -> bool:
        """Whether the store did not answer the last request."""
        return self._failing

    def take_events(self) -> tuple[Event, ...]:
        """Return the events since the last call, oldest first."""
        events, self._events = self._events, ()
        return events

    def step(self, now: Instant) -> Action:
        """Return what to do now."""
        self._expire(now)
        if self.in_flight is not None:
            return Wait(max(0.0, self.deadline - now.total) if self.phase in HOLDING else NEVER)
        if self.phase in HOLDING:
            return self._step_holding(now)
        if self.phase is Phase.STOPPED:
            return Done()
        return self._step_waiting(now)

    def _step_holding(self, now: Instant) -> Action:
        due = self._renew_at
        if self._try_now or self.phase is Phase.RELEASING or self.keeping.text is not None:
            due = -NEVER
        due = max(due, self._retry_at)
        if now.total < due:
            return Wait(min(due, self.deadline) - now.total)
        self._try_now = False
        timeout = min(self.timing.attempt_timeout, self.deadline - now.total)
        self._beat += 1
        if self.phase is Phase.RELEASING:
            return self._send(self._release(now), timeout)
        keep = self.keeping.text
        self.updates, info = self.updates.sending(self.info)
        return self._send(
            Renew(self.role, self.candidate, self.token, self._beat, self.timing.ttl, info, keep),
            timeout,
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
        if self.paused:
            if self._try_now or wait <= 0:
                self._try_now = False
                return self._send(Read(self.role), self.timing.attempt_timeout)  # rule 11
            return Wait(wait)
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
        if self.paused:
            return self._store_expiry + self.takeover_delay - now.total
        observed = self._observed_at + self.observed.ttl + self.takeover_delay - now.awake
        return min(observed, self._store_expiry + self.takeover_delay - now.total)

    def reply(
        self, send: Send, result: Result, sent_at: Instant, now: Instant, retry_in: float = 0.0
    ) -> None:
        """Process the result of a request.

        It ignores a result of any other request than the one in flight, which may be late or a
        duplicate.

        Args:
            send: The request.
            result: Its result.
            sent_at: When the request was sent.
            now: The present time.
            retry_in: Seconds to wait after a failure before the next try; the caller draws it.
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
        self.keeping = self.keeping.answered(result.applied)
        if isinstance(operation, Claim):
            self._claim_answered(result, sent_at, now)
        elif isinstance(operation, Renew):
            self.updates = self.updates.answered(operation.info, result.applied)
            self._renew_answered(result, sent_at, now)
        elif isinstance(operation, Release):
            self._see(result.lease, now)
            if self.phase is Phase.RELEASING:
                self._go(Cue.RELEASED)
        else:
            self._look_answered(result.lease, sent_at, now)

    def hint(self, lease: Lease, now: Instant) -> None:
        """Process a row that a feed showed.

        It is never adopted. It may make the candidate send a request, and it may begin an
        observation.
        """
        if self.phase is Phase.FOLLOWING:
            if self.observed is None or not lease.older_than(self.observed):
                self._see(lease, now)
        elif self.phase is Phase.LEADING and (
            lease.token > self.token or (lease.token == self.token and lease.withheld)
        ):
            self._try_now = True  # a request shows whether that is true

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

    def may_claim(self, now: Instant) -> bool:
        """Return whether it claims the role as soon as the lease and its delay permit that."""
        return (
            self.phase is Phase.FOLLOWING
            and self.campaigning
            and not (self._work_running or self._claim_unknown or self.paused)
            and now.total >= max(self._retry_at, self._cooldown_until)
        )

    def claims_now(self, now: Instant) -> bool:
        """Return whether the next step claims the lease that was seen last."""
        return not self.in_flight and self.may_claim(now) and self._claim_wait(now) <= 0

    def lose(self, reason: LossReason) -> None:
        """End the term for `reason`, as if its deadline had passed; for test kits."""
        self._lose(reason, Cue.DEADLINE)

    def try_now(self, *, skip_cooldown: bool = False) -> None:
        """Send a request at the next step, even if none is due: a renewal or a claim.

        Such a claim takes only what is vacant or has expired.

        Args:
            skip_cooldown: Whether to end a cooldown and the wait after a failure.
        """
        self._try_now = True
        if skip_cooldown:
            self._cooldown_until = self._retry_at = -NEVER

    def update_info(self, info: Mapping[str, Any]) -> int:
        """Say something else from the next renewal or claim on, and send the renewal now.

        The change is stored when `updates.stored` has reached its number. Several changes within
        one renewal become one: the next renewal carries the last of them.

        Returns:
            The number of the change.
        """
        self.info, self.updates = info, self.updates.changed()
        self._try_now = self._try_now or self.phase in (Phase.LEADING, Phase.DRAINING)
        return self.updates.changes

    def resign(
        self,
        now: Instant,
        reason: LossReason,
        *,
        rest: float = 0.0,
        linger: float = 0.0,
        to: str | None = None,
        hold: float | None = None,
        by: str = "",
    ) -> None:
        """Give the role up, if it is held, and be a candidate again later.

        Args:
            now: The present time.
            reason: Why the term ends.
            rest: Seconds from `now` for which the candidate sends no claim.
            linger: Seconds from `now` for which nobody gets the role.
            to: The id of the candidate that gets the role. The others get it if that candidate does
                not claim it within `hold` seconds. None means any candidate.
            hold: See `to`; None means `renew_every`, at most `MAX_DEFAULT_HOLD`. A candidate
                that waits hears of the handover within milliseconds; another is dead or cut off.
            by: Who requested it, for the history.
        """
        self._expire(now)
        self._cooldown_until = max(self._cooldown_until, now.total + max(rest, linger))
        if self.phase is Phase.LEADING:
            self._linger_until = now.total + linger
            self._successor, self._requested_by = None if to == self.candidate else to, by
            self._hold = min(self.timing.renew_every, MAX_DEFAULT_HOLD) if hold is None else hold
            self._lose(reason, Cue.RESIGN)

    def keep(self, text: str) -> int:
        """Let the role keep `text`, by a request that is due at once. It is led, or drains.

        Returns:
            The number of the text, to compare with those in `keeping`.
        """
        self.keeping = self.keeping.keep(text)
        return self.keeping.number

    def redirect(self, to: str | None) -> None:
        """Hand the role to somebody else than `resign` said, while the work still ends.

        Args:
            to: As for `resign`. The id of a candidate of the same process takes the role back.
        """
        if self.phase is Phase.DRAINING and self._successor != PAUSED:
            self._successor = to

    def stop(
        self, now: Instant, reason: LossReason = LossReason.RELEASED, *, linger: float = 0.0
    ) -> None:
        """Give the role up, if it is held, and be no candidate any longer. See `resign`."""
        self.campaigning = False
        self.resign(now, reason, linger=linger)

    def resume(self) -> None:
        """Be a candidate again after `stop`. A lease that is being released is released first."""
        self.campaigning = True

    def drained(self, now: Instant) -> None:
        """The work of the term that was lost has ended."""
        self._expire(now)
        self._work_running = False
        if self.phase is Phase.DRAINING:
            self._go(Cue.DRAINED)

    def abandon(self, now: Instant) -> None:
        """The work does not end: stop renewing, so that the lease expires."""
        self._expire(now)
        if self.phase is Phase.DRAINING:
            self._go(Cue.ABANDONED)
            if self._last_loss != (self.token, LossReason.NO_PROGRESS.value):
                # For the history: the lease ends in this way.
                self._last_loss = (self.token, LossReason.EXPIRED.value)

    def expire_now(self, now: Instant) -> None:
        """End a term that somebody has seen to be over, whatever a late renewal answered
        (rule 6)."""
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
        self.keeping = self.keeping.sending(operation)
        self.in_flight = Send(operation, timeout)
        return self.in_flight

    def _release(self, now: Instant) -> Release:
        linger = max(0.0, self._linger_until - now.total)
        last, by, to = self._last_loss, "", None
        if last is not None and last[0] == self.token:
            by, to = self._requested_by, self._successor
        else:
            last = None  # the lease was no longer wanted, so it was no term of this candidate
        if to == PAUSED:
            linger = max(linger, MIN_TTL)
        elif to is not None:
            linger = max(linger, self._hold)
        reason = LossReason.RELEASED.value if last is None else last[1]
        role, holder, token, keep = self.role, self.candidate, self.token, self.keeping.text
        return Release(role, holder, token, self._beat, linger, to, reason, by, keep)

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
        if answer.applied or not self._outdated(answer.lease, sent_at):
            self._see(answer.lease, now)
        deadline = sent_at.total + self.timing.ttl - self.timing.margin  # rule 5
        if not answer.applied or now.total >= deadline:
            self._go(Cue.SEEN)
            return
        self.keeping = self.keeping.ended()
        self.token, self.deadline, self._sent_at = answer.lease.token, deadline, sent_at.awake
        self.updates = self.updates.elected(self.info, answer.lease)
        self._renew_at = sent_at.total + self.timing.renew_every
        if self.campaigning and now.total >= self._cooldown_until:
            self._go(Cue.WON)
            self._emit(Elected(answer.lease, deadline))
        else:
            self._go(Cue.WON_UNWANTED)

    def _renew_answered(self, answer: Answer, sent_at: Instant, now: Instant) -> None:
        self._see(answer.lease, now)
        if self.phase not in (Phase.LEADING, Phase.DRAINING):
            return  # the deadline passed, or the work ended, while the request was under way
        if answer.applied:
            deadline = sent_at.total + self.timing.ttl - self.timing.margin
            if deadline > self.deadline:
                self.deadline, self._sent_at = deadline, sent_at.awake
            self._renew_at = sent_at.total + self.timing.renew_every
            self._go(Cue.RENEWED)
        elif (answer.lease.holder, answer.lease.token) != (self.candidate, self.token):
            if self.phase is Phase.LEADING:
                self._lose(answer.lease.reason_of_loss(self.token), Cue.TAKEN)
            else:
                self._go(Cue.TAKEN)  # `Lost` was emitted when the role was given up
        else:
            self._go(Cue.FAILED)

    def _look_answered(self, lease: Lease, sent_at: Instant, now: Instant) -> None:
        self._claim_unknown = False
        if not self._outdated(lease, sent_at):
            self._see(lease, now)
        self._go(Cue.SEEN)
        if lease.holder == self.candidate and not self.campaigning:
            # The claim was applied, and the role is no longer wanted: release it, without ever
            # having led.
            self.keeping = self.keeping.ended()
            self.token, self.deadline = lease.token, now.total + lease.ttl
            self._go(Cue.WON_UNWANTED)

    def _failed(
        self, operation: Operation, failure: Failure, now: Instant, retry_in: float
    ) -> None:
        self._failing = True
        self.keeping = self.keeping.failed(failure)
        if self.phase in HOLDING:
            retry_in = min(
                retry_in, self.timing.ttl / 20
            )  # the second attempt must still fit before the deadline
        self._retry_at = now.total + retry_in
        if isinstance(operation, Claim) and failure.unknown:
            self._claim_unknown = True
        elif isinstance(operation, Renew):
            self.updates = self.updates.failed()
        elif isinstance(operation, Read) and not self.campaigning:
            self._claim_unknown = False  # a lease that may be held expires
        if self.phase is not Phase.STOPPED:
            self._go(Cue.FAILED)

    def _outdated(self, lease: Lease, sent_at: Instant) -> bool:
        """Return whether a feed has shown a newer row since the request was sent whose answer is
        `lease`. If it showed one before, then that write was lost."""
        observed = self.observed
        return (
            observed is not None
            and lease.older_than(observed)
            and self._observed_at > sent_at.awake
        )

    def _see(self, lease: Lease, now: Instant) -> None:
        before = self.observed
        # Every renewal comes here, so fields are compared one by one and properties read once.
        if before is None:
            same_term = unchanged = was_paused = False
        else:
            same_term = before.holder == lease.holder and before.token == lease.token
            unchanged = same_term and before.beat == lease.beat
            was_paused = before.paused
        if not unchanged:
            self._observed_at = now.awake
        self.observed, paused = lease, lease.paused
        self.token_floor = min(max(self.token_floor, lease.token), MAX_TOKEN - 1)
        # When to claim by the store's clock; the store decides. Never at once again, because with a
        # clock that stands still the candidate would send claims without a pause.
        pause = self.timing.ttl if paused else 0.02 * self.timing.ttl
        remaining = (
            NEVER
            if self.max_clock_skew is None
            else max(lease.remaining + self.max_clock_skew, 0.0)
        )
        if paused:
            remaining = pause  # until it is read again (rule 11)
        self._store_expiry = now.total + (max(remaining, pause) if unchanged else remaining)
        if paused != was_paused:
            self._emit(PauseObserved(lease))
        if lease.reserved:
            if lease.holder == self.candidate:
                self._cooldown_until = -NEVER  # the role is reserved for this candidate
        elif not (same_term or lease.vacant or lease.withheld):
            self._emit(LeaderObserved(lease))
        if lease.holder != self.candidate and not lease.withheld:
            self._observed_info, changed = self._observed_info.after(lease, same_term)
            if changed:
                self._emit(InfoObserved(lease))

    def _expire(self, now: Instant) -> None:
        if self.phase not in HOLDING or now.total < self.deadline:
            return
        if self.phase is Phase.LEADING:
            asleep = now.awake < self._sent_at + self.timing.ttl - self.timing.margin
            reason_if_awake = (
                LossReason.STORE_UNREACHABLE
                if self._failing or self.in_flight
                else LossReason.EXPIRED
            )
            self._lose(LossReason.SUSPENDED if asleep else reason_if_awake, Cue.DEADLINE)
        else:
            self._go(Cue.DEADLINE)

    def _lose(self, reason: LossReason, cue: Cue) -> None:
        self._work_running = True
        self._last_loss = (self.token, reason.value)
        self._go(cue)
        self._emit(Lost(self.token, reason))
