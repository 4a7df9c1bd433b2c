"""Every rule, broken on purpose: what notices, and after how much. `python -m tests.core.mutants` writes the page.

A mutant is a subclass of `Election`, or another function in the place of one of `rules`; no file is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coord.election import HOLDING, Cue, Elected, Election, Lost, Phase, Send
from coord.lease import Lease, LossReason
from coord.operations import Answer, Claim, Failure, Release, Renew
from coord.stores import rules
from coord.timing import Instant
from tests.core import scenarios
from tests.core.explore import Bounds, explore
from tests.core.model import Rules, Setup, Violation
from tests.core.test_exhaustive import COARSE, FINE

TWO = "two leaders at once"
PAGE = Path(__file__).parents[2] / "docs" / "mutants.md"


class NoDeadlineInLeads(Election):
    def leads(self, now: Instant) -> bool:
        return self.phase is Phase.LEADING


class NeverExpires(Election):
    def _expire(self, now: Instant) -> None:
        pass


class LateAnswerRevives(Election):
    def reply(self, send: Send, result: Any, sent_at: Instant, now: Instant, retry_in: float = 0.0) -> None:
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
    def reply(self, send: Send, result: Any, sent_at: Instant, now: Instant, retry_in: float = 0.0) -> None:
        super().reply(send, result, now, now, retry_in)


class NoMargin(Election):
    def _claim_answered(self, answer: Answer, sent_at: Instant, now: Instant) -> None:
        super()._claim_answered(answer, sent_at.after(self.timing.margin), now)

    def _renew_answered(self, answer: Answer, sent_at: Instant, now: Instant) -> None:
        super()._renew_answered(answer, sent_at.after(self.timing.margin), now)


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

    def reply(self, send: Send, result: Any, sent_at: Instant, now: Instant, retry_in: float = 0.0) -> None:
        sent = Instant(sent_at.awake, sent_at.awake)
        super().reply(send, result, sent, Instant(now.awake, now.awake), retry_in)


class ChallengerCountsSuspend(Election):
    """It waits on the total clock."""

    def step(self, now: Instant) -> Any:
        return super().step(Instant(now.total, now.total))

    def _see(self, lease: Lease, now: Instant) -> None:
        super()._see(lease, Instant(now.total, now.total))


class CountsFromRequest(Election):
    def reply(self, send: Send, result: Any, sent_at: Instant, now: Instant, retry_in: float = 0.0) -> None:
        before = self._seen_at
        super().reply(send, result, sent_at, now, retry_in)
        if self._seen_at != before:
            self._seen_at = sent_at


class BeatsDoNotReset(Election):
    def _see(self, lease: Lease, now: Instant) -> None:
        before, since = self.seen, self._seen_at
        super()._see(lease, now)
        if before is not None and (before.holder, before.token) == (lease.holder, lease.token):
            self._seen_at = since


class AdoptsFromFeed(Election):
    def hint(self, lease: Lease, now: Instant) -> None:
        if self.phase is Phase.FOLLOWING and lease.holder == self.candidate and lease.token > self.token:
            self.token, self.deadline = lease.token, now.total + lease.ttl - self.timing.margin
            self.in_flight, self.phase, self._renew_at = None, Phase.LEADING, now.total
            self._emit(Elected(lease, self.deadline))
        super().hint(lease, now)


class AdoptsItsRow(Election):
    """A row that says "the holder is me" is taken for a won claim."""

    def _look_answered(self, lease: Lease, now: Instant) -> None:
        super()._look_answered(lease, now)
        if self.phase is Phase.FOLLOWING and lease.holder == self.candidate:
            self.token, self.deadline = lease.token, now.total + lease.ttl - self.timing.margin
            self.phase, self._renew_at = Phase.LEADING, now.total
            self._emit(Elected(lease, self.deadline))


class RetriesBlindly(Election):
    def _failed(self, operation: Any, failure: Failure, now: Instant, retry_in: float) -> None:
        super()._failed(operation, failure, now, retry_in)
        self._uncertain = False


class BeatOfTheRow(Election):
    """The next beat is one more than the row shows, not one more than was last sent."""

    def _step_holding(self, now: Instant) -> Any:
        if self.seen is not None:
            self._beat = self.seen.beat
        return super()._step_holding(now)


class ClaimsUndrained(Election):
    def _step_waiting(self, now: Instant) -> Any:
        self._undrained = False
        return super()._step_waiting(now)


class ReleasesUndrained(Election):
    def give_up(self, now: Instant, reason: LossReason, *, rest: float = 0.0, linger: float = 0.0) -> None:
        super().give_up(now, reason, rest=rest, linger=linger)
        if self.phase is Phase.DRAINING:
            self._go(Cue.DRAINED)


class LosesTwice(Election):
    """As it was before the explorer found it: a refused renewal while draining tells the loss again."""

    def _renew_answered(self, answer: Answer, sent_at: Instant, now: Instant) -> None:
        draining = self.phase is Phase.DRAINING
        super()._renew_answered(answer, sent_at, now)
        if draining and self.phase is Phase.FOLLOWING:
            self._emit(Lost(self.token, LossReason.TAKEN))


class StandsDownNever(Election):
    def _step_waiting(self, now: Instant) -> Any:
        self.standing = True
        return super()._step_waiting(now)


class ForgetsItsFloor(Election):
    def _claim(self, *arguments: Any, **named: Any) -> Send:
        self.floor = 0
        return super()._claim(*arguments, **named)


def claim_without_swap(row: Lease, asked: Claim, wall: float) -> Lease | None:
    return rules.claim(row, replace(asked, expected=None), wall)


def claim_without_skew(row: Lease, asked: Claim, wall: float) -> Lease | None:
    return rules.claim(row, replace(asked, skew=None if asked.skew is None else 0), wall)


def claim_of_own_with_old_beat(row: Lease, asked: Claim, wall: float) -> Lease | None:
    own = row.holder == asked.holder and asked.expected in (None, row.sight)
    return rules.claim(row, replace(asked, takeover=True), wall) if own else rules.claim(row, asked, wall)


def claim_keeps_token(row: Lease, asked: Claim, wall: float) -> Lease | None:
    after = rules.claim(row, asked, wall)
    return None if after is None else replace(after, token=max(row.token, asked.floor, 1))


def renew_unguarded(row: Lease, asked: Renew, wall: float) -> Lease | None:
    return rules.renew(row, replace(asked, holder=row.holder or asked.holder, token=row.token, beat=row.beat + 1), wall)


def renew_shortens(row: Lease, asked: Renew, wall: float) -> Lease | None:
    after = rules.renew(row, asked, wall)
    return None if after is None else replace(after, ttl=asked.ttl, remaining=asked.ttl)


def renew_with_old_beat(row: Lease, asked: Renew, wall: float) -> Lease | None:
    return rules.renew(replace(row, beat=-1), asked, wall)


def release_unguarded(row: Lease, asked: Release, wall: float) -> Lease | None:
    return rules.release(row, replace(asked, holder=row.holder or "", token=row.token, beat=row.beat + 1), wall)


def release_deletes(row: Lease, asked: Release, wall: float) -> Lease | None:
    return None if rules.release(row, asked, wall) is None else Lease(row.role)


@dataclass(frozen=True)
class Mutant:
    """`within`: bounds for the explorer, or a scenario. `rule`: the number at the head of coord/election.py."""

    name: str
    rule: int
    mutated: type[Election] | Rules
    within: Bounds | Callable[[Setup], int]
    setup: Setup = COARSE

    def altered(self, *, leaders_only: bool = False) -> Setup:
        if isinstance(self.mutated, Rules):
            return replace(self.setup, rules=self.mutated, leaders_only=leaders_only)
        return replace(self.setup, election=self.mutated, leaders_only=leaders_only)


@dataclass(frozen=True)
class Verdict:
    by: str
    effort: str
    violation: Violation | None
    states: int = 0


def run(mutant: Mutant, setup: Setup, states: int = 150_000) -> Verdict:
    if isinstance(mutant.within, Bounds):
        report = explore(setup, replace(mutant.within, states=states))
        return Verdict("explorer", f"{report.states:,} states", report.violation, report.states)
    name = f"scenario `{mutant.within.__name__}`"
    try:
        return Verdict(name, f"{mutant.within(setup)} events", None)
    except Violation as violation:
        return Verdict(name, f"{violation.events} events", violation)


def _net(*kinds: str, **more: int) -> Bounds:
    counted = {"ticks": 10, "delays": 2, "faults": int(bool(kinds)), "whispers": 0, "orders": 0, **more}
    return Bounds(**counted, kinds=frozenset(kinds), prompt=True)  # type: ignore[arg-type]


MUTANTS = [
    Mutant("a claim that does not compare before it swaps", 1, Rules(claim=claim_without_swap), _net()),
    Mutant("a claim that keeps the token", 1, Rules(claim=claim_keeps_token), _net()),
    Mutant(
        "a first claim that takes its own lease with an old beat",
        1,
        Rules(claim=claim_of_own_with_old_beat),
        scenarios.first_claim_arrives_twice,
        FINE,
    ),
    Mutant("a renewal of whatever is there", 2, Rules(renew=renew_unguarded), _net("late", delays=1)),
    Mutant("a renewal that shortens the lease", 2, Rules(renew=renew_shortens), scenarios.shorter_renewal),
    Mutant("a renewal that counts twice", 2, Rules(renew=renew_with_old_beat), _net("twice")),
    Mutant("a term that has ended is renewed", 2, NeverExpires, _net()),
    Mutant("a release of whatever is there", 3, Rules(release=release_unguarded), _net("late", orders=1)),
    Mutant("a release that deletes the row", 3, Rules(release=release_deletes), _net(orders=1)),
    Mutant("a release before the work has ended", 3, ReleasesUndrained, _net(orders=1)),
    Mutant("a claim before the work has ended", 3, ClaimsUndrained, _net()),
    Mutant("a loss that is told twice", 3, LosesTwice, scenarios.taken_while_draining),
    Mutant("a candidate that never stands down", 3, StandsDownNever, _net(orders=1)),
    Mutant("an observation that counts from the request", 4, CountsFromRequest, _net(), FINE),
    Mutant("an observation that goes on over new beats", 4, BeatsDoNotReset, _net("true", faults=0, whispers=2), FINE),
    Mutant(
        "a takeover by the store's clock without the skew",
        4,
        Rules(claim=claim_without_skew),
        _net("clock", "ask", whispers=1),
        FINE,
    ),
    Mutant("a deadline that counts from the answer", 5, DeadlineFromReply, _net(), FINE),
    Mutant("a deadline without the margin", 5, NoMargin, _net(), FINE),
    Mutant("a deadline that moves back", 5, DeadlineMovesBack, scenarios.answer_to_an_earlier_request),
    Mutant("a leader flag that does not read the clock", 6, NoDeadlineInLeads, replace(_net(delays=1), prompt=False)),
    Mutant("a late answer that revives a term", 6, LateAnswerRevives, _net(), FINE),
    Mutant("a leader's clock that stands still in suspend", 7, LeaderIgnoresSuspend, _net("sleep", faults=2), FINE),
    Mutant("a challenger's clock that counts suspend", 7, ChallengerCountsSuspend, _net("sleep", faults=2), FINE),
    Mutant("a row adopted from a feed", 8, AdoptsFromFeed, _net("ahead", "true", faults=0, whispers=2, delays=3)),
    Mutant("a row adopted for saying that the holder is me", 8, AdoptsItsRow, _net()),
    Mutant("a claim after an unknown one, without a look", 8, RetriesBlindly, _net()),
    Mutant("a beat taken from the row, not counted for each attempt", 9, BeatOfTheRow, scenarios.shown_then_lost, FINE),
    Mutant("a claim that forgets the tokens it has seen", 1, ForgetsItsFloor, scenarios.row_deleted_by_hand),
]


def consequence(mutant: Mutant) -> str:
    """Whether two lead at once in the end, when nothing else is looked for."""
    if not isinstance(mutant.within, Bounds):
        found = run(mutant, mutant.altered(leaders_only=True)).violation
        return "two leaders" if found and found.rule == TWO else ""
    verdict = run(mutant, mutant.altered(leaders_only=True), states=200_000)
    return f"two leaders, after {verdict.states:,}" if verdict.violation and verdict.violation.rule == TWO else ""


def page() -> str:
    lines = [
        "# Rules broken on purpose",
        "",
        "*Written by `python -m tests.core.mutants`. Each row is a fault put into the core or into what a swap does; the",
        "numbers are of the rules at the head of `coord/election.py`. `tests/core/test_mutants.py` sees each of them caught,",
        "and the same check pass without it. The last column tells whether two candidates lead at once when only that is",
        "looked for, within the same bounds and 200,000 states: where it is empty, another rule still stood in the way.*",
        "",
        "| rule | fault | caught by | as | after | and in the end |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for mutant in sorted(MUTANTS, key=lambda one: one.rule):
        verdict = run(mutant, mutant.altered())
        assert verdict.violation is not None, mutant.name
        lines.append(
            f"| {mutant.rule} | {mutant.name} | {verdict.by} | {verdict.violation.rule} | {verdict.effort} "
            f"| {consequence(mutant)} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
