"""Every rule, broken on purpose: what notices, and after how much. `python -m
tests.verification.exhaustive.mutants` writes the page.

A mutant is a subclass of `Election`, or another function in the place of one of `rules`; no file is
touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from coord.core.election import Election
from tests.verification.exhaustive import faults, scenarios
from tests.verification.exhaustive.explore import Bounds, explore
from tests.verification.exhaustive.model import Notes, Rules, Setup, Violation
from tests.verification.exhaustive.test_exhaustive import COARSE, FINE, RESTARTS

TWO = "two leaders at once"
PAGE = Path(__file__).parents[3] / "docs" / "mutants.md"


@dataclass(frozen=True)
class Mutant:
    """`within`: bounds for the explorer, or a scenario. `rule`: the number at the head of
    coord/core/election.py."""

    name: str
    rule: int
    mutated: type[Election] | Rules | Notes
    within: Bounds | Callable[[Setup], int]
    setup: Setup = COARSE

    def altered(self, *, leaders_only: bool = False) -> Setup:
        if isinstance(self.mutated, Rules):
            return replace(self.setup, swaps=self.mutated, leaders_only=leaders_only)
        if isinstance(self.mutated, Notes):
            return replace(self.setup, notes=self.mutated, leaders_only=leaders_only)
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
    counted = {
        "ticks": 10,
        "delays": 2,
        "faults": int(bool(kinds)),
        "whispers": 0,
        "orders": 0,
        **more,
    }
    return Bounds(**counted, kinds=frozenset(kinds), prompt=True)  # type: ignore[arg-type]


def _retires(*kinds: str, **more: int) -> Bounds:
    return replace(_net(*kinds, **more), retires=True)


def _operators(*kinds: str, **more: int) -> Bounds:
    return replace(_net(*kinds, **more), operators=True)


MUTANTS = [
    Mutant(
        "a claim that does not compare before it swaps",
        1,
        Rules(claim=faults.claim_without_swap),
        _net(),
    ),
    Mutant("a claim that keeps the token", 1, Rules(claim=faults.claim_keeps_token), _net()),
    Mutant(
        "a first claim that takes its own lease with an old beat",
        1,
        Rules(claim=faults.claim_of_own_with_old_beat),
        scenarios.first_claim_arrives_twice,
        FINE,
    ),
    Mutant(
        "a renewal of whatever is there",
        2,
        Rules(renew=faults.renew_unguarded),
        _net("late", delays=1),
    ),
    Mutant(
        "a renewal that shortens the lease",
        2,
        Rules(renew=faults.renew_shortens),
        scenarios.shorter_renewal,
    ),
    Mutant(
        "a renewal that counts twice", 2, Rules(renew=faults.renew_with_old_beat), _net("twice")
    ),
    Mutant("a term that has ended is renewed", 2, faults.NeverExpires, _net()),
    Mutant(
        "a release of whatever is there",
        3,
        Rules(release=faults.release_unguarded),
        _net("late", orders=1),
    ),
    Mutant(
        "a release that deletes the row", 3, Rules(release=faults.release_deletes), _net(orders=1)
    ),
    Mutant("a release before the work has ended", 3, faults.ReleasesUndrained, _net(orders=1)),
    Mutant("a claim before the work has ended", 3, faults.ClaimsUndrained, _net()),
    Mutant("a loss that is told twice", 3, faults.LosesTwice, scenarios.taken_while_draining),
    Mutant("a candidate that never stands down", 3, faults.StandsDownNever, _net(orders=1)),
    Mutant(
        "an observation that counts from the request", 4, faults.CountsFromRequest, _net(), FINE
    ),
    Mutant(
        "an observation that goes on over new beats",
        4,
        faults.BeatsDoNotReset,
        _net("true", faults=0, whispers=2, delays=0),
        FINE,
    ),
    Mutant(
        "a takeover by the store's clock without the skew",
        4,
        Rules(claim=faults.claim_without_skew),
        _net("clock", "ask", whispers=1, delays=1),
        FINE,
    ),
    Mutant(
        "an observation of an earlier candidate that counts for another revision",
        4,
        faults.RecallsAnyRevision,
        _net("crash", faults=2, delays=0),
        RESTARTS,
    ),
    Mutant(
        "an observation of an earlier candidate on another clock",
        4,
        faults.AnyClock(),
        _net("crash", faults=2, delays=0, candidates=3),
        replace(RESTARTS, rates=(1, 2, 2), origins=(0, 7, 0)),
    ),
    Mutant("a deadline that counts from the answer", 5, faults.DeadlineFromReply, _net(), FINE),
    Mutant("a deadline without the margin", 5, faults.NoMargin, _net(), FINE),
    Mutant(
        "a deadline that moves back",
        5,
        faults.DeadlineMovesBack,
        scenarios.answer_to_an_earlier_request,
    ),
    Mutant(
        "a leader flag that does not read the clock",
        6,
        faults.NoDeadlineInLeads,
        replace(_net(delays=1), prompt=False),
    ),
    Mutant("a late answer that revives a term", 6, faults.LateAnswerRevives, _net(), FINE),
    Mutant(
        "a leader's clock that stands still in suspend",
        7,
        faults.LeaderIgnoresSuspend,
        _net("sleep", faults=2, delays=0),
        FINE,
    ),
    Mutant(
        "a challenger's clock that counts suspend",
        7,
        faults.ChallengerCountsSuspend,
        _net("sleep", faults=2, delays=0),
        FINE,
    ),
    Mutant(
        "a row adopted from a feed",
        8,
        faults.AdoptsFromFeed,
        _net("ahead", "true", faults=0, whispers=2, delays=3),
    ),
    Mutant("a row adopted for saying that the holder is me", 8, faults.AdoptsItsRow, _net()),
    Mutant(
        "a handed-over row adopted without a claim",
        8,
        faults.AdoptsHandover,
        _net("true", faults=0, whispers=1, orders=1, transfers=True),
    ),
    Mutant("a claim after an unknown one, without a look", 8, faults.RetriesBlindly, _net()),
    Mutant(
        "a beat taken from the row, not counted for each attempt",
        13,
        faults.BeatOfTheRow,
        scenarios.shown_then_lost,
        FINE,
    ),
    Mutant(
        "an evicted leader whose role passes on at once",
        11,
        Rules(override=faults.override_passes_on_at_once),
        _operators(orders=1),
    ),
    Mutant(
        "a role that passes on at once when it is resumed",
        11,
        Rules(override=faults.resume_passes_on_at_once),
        _operators(orders=2),
    ),
    Mutant(
        "an override that shortens the ttl of the leader",
        11,
        Rules(override=faults.override_shortens),
        _operators(orders=1, delays=0),
    ),
    Mutant(
        "an override that does not compare before it swaps",
        11,
        Rules(override=faults.override_without_swap),
        _operators(orders=1),
    ),
    Mutant(
        "overrides that all have one beat",
        11,
        Rules(override=faults.override_with_one_beat),
        scenarios.override_shown_then_lost,
        FINE,
    ),
    Mutant(
        "a paused role that a candidate claims",
        11,
        faults.ClaimsPaused,
        _operators(orders=1, delays=0),
    ),
    Mutant(
        "a paused role that the store gives away",
        11,
        Rules(claim=faults.claim_of_paused),
        _operators("crash", orders=1, faults=1, delays=0),
    ),
    Mutant(
        "a retired role whose tokens begin at 1 again",
        12,
        Rules(born=faults.born_without_floor),
        _retires("crash", orders=2, faults=1, delays=0),
    ),
    Mutant(
        "a row that is retired while somebody holds it",
        12,
        Rules(retire=faults.retire_what_is_held),
        _retires(orders=2),
    ),
    Mutant(
        "a claim that forgets the tokens it has seen",
        1,
        faults.ForgetsItsFloor,
        scenarios.row_deleted_by_hand,
    ),
]


def consequence(mutant: Mutant) -> str:
    """Whether two lead at once in the end, when nothing else is looked for."""
    if not isinstance(mutant.within, Bounds):
        violation = run(mutant, mutant.altered(leaders_only=True)).violation
        return "two leaders" if violation and violation.rule == TWO else ""
    verdict = run(mutant, mutant.altered(leaders_only=True), states=200_000)
    return (
        f"two leaders, after {verdict.states:,}"
        if verdict.violation and verdict.violation.rule == TWO
        else ""
    )


def page() -> str:
    lines = [
        "# Mutation testing",
        "",
        "After reading this page you know which check detects each fault in the rules of the election.",
        "",
        "*Written by `python -m tests.verification.exhaustive.mutants`. Each row is a fault put into the core, or into what a swap does;",
        "the numbers are of the rules at the head of `coord/core/election.py`. `tests/verification/exhaustive/test_mutants.py` sees each of",
        "them caught, and the same check pass without it. The last column tells whether two candidates lead at once",
        "when only that is looked for, within the same bounds and 200,000 states: where it is empty, another rule",
        "still stood in the way.*",
        "",
        "| rule | fault | caught by | as | after | and in the end |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for mutant in sorted(MUTANTS, key=lambda item: item.rule):
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
