"""The faults that are put in: subclasses of `Election`, and functions to stand in the place of
those of `rules`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from coord.core import swaps
from coord.core.actions import Elected, Lost, Send
from coord.core.election import Election
from coord.core.lease import REVOKED, Lease, LossReason, Observation
from coord.core.operations import Answer, Claim, Failure, Override, Release, Renew, Retire
from coord.core.phases import HOLDING, Cue, Phase
from coord.core.timing import Instant
from tests.verification.exhaustive.model import Notes


class NoDeadlineInLeads(Election):
    def leads(self, now: Instant) -> bool:
        return self.phase is Phase.LEADING


class NeverExpires(Election):
    def _expire(self, now: Instant) -> None:
        pass


class LateAnswerRevives(Election):
    def reply(
        self, send: Send, result: Any, sent_at: Instant, now: Instant, retry_in: float = 0.0
    ) -> None:
        if (
            send is self.in_flight
            and isinstance(result, Answer)
            and result.applied
            and isinstance(send.operation, Renew)
        ):
            self.deadline = max(self.deadline, sent_at.total + self.timing.ttl - self.timing.margin)
            if self.phase is Phase.FOLLOWING and self.token == send.operation.token:
                self.phase = Phase.LEADING
        super().reply(send, result, sent_at, now, retry_in)


class DeadlineFromReply(Election):
    def reply(
        self, send: Send, result: Any, sent_at: Instant, now: Instant, retry_in: float = 0.0
    ) -> None:
        super().reply(send, result, now, now, retry_in)


class NoMargin(Election):
    def _claim_answered(self, answer: Answer, sent_at: Instant, now: Instant) -> None:
        super()._claim_answered(answer, sent_at.after(self.timing.margin), now)

    def _renew_answered(self, answer: Answer, sent_at: Instant, now: Instant) -> None:
        super()._renew_answered(answer, sent_at.after(self.timing.margin), now)


class RecallsAnyRevision(Election):
    def recall(self, observation: Observation) -> None:
        if self.observed is not None and self.observed.holder is not None:
            self._observed_at = min(self._observed_at, observation.since)


class AnyClock(Notes):
    """A home directory that two machines share, and no name of the clock in the file."""

    def recalled(self, notes: Mapping[int, Observation], slot: int) -> Observation | None:
        return next((notes[other] for other in sorted(notes) if other != slot), None)


class DeadlineMovesBack(Election):
    def _renew_answered(self, answer: Answer, sent_at: Instant, now: Instant) -> None:
        if answer.applied and self.phase in HOLDING:
            self.deadline = sent_at.total + self.timing.ttl - self.timing.margin
        super()._renew_answered(answer, sent_at, now)


class LeaderIgnoresSuspend(Election):
    """Its deadlines are on the awake clock."""

    def leads(self, now: Instant) -> bool:
        return super().leads(Instant(now.awake, now.awake))

    def step(self, now: Instant) -> Any:
        return super().step(Instant(now.awake, now.awake))

    def reply(
        self, send: Send, result: Any, sent_at: Instant, now: Instant, retry_in: float = 0.0
    ) -> None:
        sent = Instant(sent_at.awake, sent_at.awake)
        super().reply(send, result, sent, Instant(now.awake, now.awake), retry_in)


class ChallengerCountsSuspend(Election):
    """It waits on the total clock."""

    def step(self, now: Instant) -> Any:
        return super().step(Instant(now.total, now.total))

    def _see(self, lease: Lease, now: Instant) -> None:
        super()._see(lease, Instant(now.total, now.total))


class CountsFromRequest(Election):
    def reply(
        self, send: Send, result: Any, sent_at: Instant, now: Instant, retry_in: float = 0.0
    ) -> None:
        before = self._observed_at
        super().reply(send, result, sent_at, now, retry_in)
        if self._observed_at != before:
            self._observed_at = sent_at.awake


class BeatsDoNotReset(Election):
    def _see(self, lease: Lease, now: Instant) -> None:
        before, since = self.observed, self._observed_at
        super()._see(lease, now)
        if before is not None and (before.holder, before.token) == (lease.holder, lease.token):
            self._observed_at = since


class AdoptsFromFeed(Election):
    def hint(self, lease: Lease, now: Instant) -> None:
        if (
            self.phase is Phase.FOLLOWING
            and lease.holder == self.candidate
            and lease.token > self.token
        ):
            self.token, self.deadline = lease.token, now.total + lease.ttl - self.timing.margin
            self.in_flight, self.phase, self._renew_at = None, Phase.LEADING, now.total
            self._emit(Elected(lease, self.deadline))
        super().hint(lease, now)


class AdoptsItsRow(Election):
    """A row that says "the holder is me" is taken for a won claim."""

    def _look_answered(self, lease: Lease, sent_at: Instant, now: Instant) -> None:
        super()._look_answered(lease, sent_at, now)
        if self.phase is Phase.FOLLOWING and lease.holder == self.candidate:
            self.token, self.deadline = lease.token, now.total + lease.ttl - self.timing.margin
            self.phase, self._renew_at = Phase.LEADING, now.total
            self._emit(Elected(lease, self.deadline))


class AdoptsHandover(Election):
    """The row that it was handed over in is taken for a won claim: it leads under the token of the
    last term."""

    def _see(self, lease: Lease, now: Instant) -> None:
        super()._see(lease, now)
        if self.phase is Phase.FOLLOWING and lease.reserved and lease.holder == self.candidate:
            self.token, self.deadline = lease.token, now.total + lease.ttl
            self.in_flight, self.phase, self._renew_at = None, Phase.LEADING, now.total
            self._emit(Elected(lease, self.deadline))


class RetriesBlindly(Election):
    def _failed(self, operation: Any, failure: Failure, now: Instant, retry_in: float) -> None:
        super()._failed(operation, failure, now, retry_in)
        self._claim_unknown = False


class BeatOfTheRow(Election):
    """The next beat is one more than the row shows, not one more than was last sent."""

    def _step_holding(self, now: Instant) -> Any:
        if self.observed is not None:
            self._beat = self.observed.beat
        return super()._step_holding(now)


class ClaimsUndrained(Election):
    def _step_waiting(self, now: Instant) -> Any:
        self._work_running = False
        return super()._step_waiting(now)


class ReleasesUndrained(Election):
    def resign(
        self, now: Instant, reason: LossReason, *, rest: float = 0.0, linger: float = 0.0
    ) -> None:
        super().resign(now, reason, rest=rest, linger=linger)
        if self.phase is Phase.DRAINING:
            self._go(Cue.DRAINED)


class LosesTwice(Election):
    """As it was before the explorer found it: a refused renewal while draining tells the loss
    again."""

    def _renew_answered(self, answer: Answer, sent_at: Instant, now: Instant) -> None:
        draining = self.phase is Phase.DRAINING
        super()._renew_answered(answer, sent_at, now)
        if draining and self.phase is Phase.FOLLOWING:
            self._emit(Lost(self.token, LossReason.TAKEN))


class StandsDownNever(Election):
    def _step_waiting(self, now: Instant) -> Any:
        self.campaigning = True
        return super()._step_waiting(now)


class ForgetsItsFloor(Election):
    def _claim(self, *arguments: Any, **named: Any) -> Send:
        self.token_floor = 0
        return super()._claim(*arguments, **named)


class ClaimsPaused(Election):
    """A paused row is a lease like any other, and is taken when it has run out."""

    paused = False


def claim_of_paused(row: Lease, request: Claim, wall: float) -> Lease | None:
    if row.paused and request.expected in (None, row.revision):
        return swaps.claim(replace(row, holder=REVOKED), replace(request, expected=None), wall)
    return swaps.claim(row, request, wall)


def override_passes_on_at_once(row: Lease, request: Override, wall: float) -> Lease | None:
    after = swaps.override(row, request, wall)
    if after is None or not after.revoked or row.paused:
        return after
    return replace(after, holder=None, remaining=0.0)


def resume_passes_on_at_once(row: Lease, request: Override, wall: float) -> Lease | None:
    after = swaps.override(row, request, wall)
    if after is None or not row.paused:
        return after
    return replace(after, holder=None, remaining=0.0)


def override_shortens(row: Lease, request: Override, wall: float) -> Lease | None:
    after = swaps.override(row, request, wall)
    return None if after is None else replace(after, ttl=request.ttl, remaining=request.ttl)


def override_without_swap(row: Lease, request: Override, wall: float) -> Lease | None:
    return swaps.override(row, replace(request, expected=row.revision), wall)


def override_with_one_beat(row: Lease, request: Override, wall: float) -> Lease | None:
    return swaps.override(row, replace(request, beat=1), wall)


def retire_what_is_held(row: Lease, request: Retire, text: str) -> bool:
    revision = request.expected._replace(holder=None)
    return swaps.retire(replace(row, holder=None), request._replace(expected=revision), text)


def born_without_floor(after: Lease, request: Claim | Override, floor: int) -> Lease:
    return after


def claim_without_swap(row: Lease, request: Claim, wall: float) -> Lease | None:
    return swaps.claim(row, replace(request, expected=None), wall)


def claim_without_skew(row: Lease, request: Claim, wall: float) -> Lease | None:
    return swaps.claim(row, replace(request, skew=None if request.skew is None else 0), wall)


def claim_of_own_with_old_beat(row: Lease, request: Claim, wall: float) -> Lease | None:
    own = row.holder == request.holder and request.expected in (None, row.revision)
    return (
        swaps.claim(row, replace(request, takeover=True), wall)
        if own
        else swaps.claim(row, request, wall)
    )


def claim_keeps_token(row: Lease, request: Claim, wall: float) -> Lease | None:
    after = swaps.claim(row, request, wall)
    return None if after is None else replace(after, token=max(row.token, request.floor, 1))


def renew_unguarded(row: Lease, request: Renew, wall: float) -> Lease | None:
    return swaps.renew(
        row,
        replace(request, holder=row.holder or request.holder, token=row.token, beat=row.beat + 1),
        wall,
    )


def renew_shortens(row: Lease, request: Renew, wall: float) -> Lease | None:
    after = swaps.renew(row, request, wall)
    return None if after is None else replace(after, ttl=request.ttl, remaining=request.ttl)


def renew_with_old_beat(row: Lease, request: Renew, wall: float) -> Lease | None:
    return swaps.renew(replace(row, beat=-1), request, wall)


def release_unguarded(row: Lease, request: Release, wall: float) -> Lease | None:
    return swaps.release(
        row, replace(request, holder=row.holder or "", token=row.token, beat=row.beat + 1), wall
    )


def release_deletes(row: Lease, request: Release, wall: float) -> Lease | None:
    return None if swaps.release(row, request, wall) is None else Lease(row.role)
