"""The text that a role keeps: every interleaving of terms, writes, lost answers and late requests,
and each rule broken once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from coord.core.election import Election, Send
from coord.core.keeping import Keeping
from coord.core.operations import Claim, Failure, Operation, Release, Renew
from coord.errors import StoreRefused
from tests.support import levels
from tests.verification.exhaustive import faults
from tests.verification.exhaustive.explore import Bounds, explore
from tests.verification.exhaustive.model import Rules, Setup
from tests.verification.exhaustive.test_exhaustive import COARSE, LONG_STATES, print_report

LATE = Bounds(
    ticks=4,
    delays=0,
    whispers=0,
    orders=0,
    keeps=2,
    kinds=frozenset({"late", "early", "twice"}),
    prompt=True,
)
HANDED = Bounds(
    ticks=2,
    delays=0,
    whispers=0,
    keeps=1,
    kinds=frozenset({"late"}),
    prompt=True,
    transfers=True,
)
CRASHES = replace(LATE, kinds=frozenset({"crash", "late"}))
COPIES = replace(LATE, ticks=3, delays=1, keeps=1, kinds=frozenset({"twice"}))
ALONE = Bounds(candidates=1, ticks=6, delays=2, faults=0, whispers=0, keeps=2, prompt=True)
BOUNDS = {
    "late and lost requests": LATE,
    "released and handed over": HANDED,
    "crashes": CRASHES,
    "one term after another": ALONE,
}
BY_DEFAULT = {
    "late and lost requests": replace(LATE, ticks=2),
    "one term after another": replace(ALONE, delays=1),
}
"""The searches of a run without COORD_LONG, with smaller bounds."""
LONG = {
    "late and lost requests": replace(LATE, ticks=6),
    "late and lost requests, and a delay": replace(LATE, ticks=3, delays=1),
    "one text, and a delay": replace(LATE, ticks=5, delays=1, keeps=1),
    "released and handed over": replace(HANDED, ticks=3, kinds=frozenset({"late", "twice"})),
    "released and handed over, two texts": replace(HANDED, keeps=2),
    "crashes": replace(CRASHES, ticks=6),
    "crashes, with two faults": replace(CRASHES, faults=2, keeps=1),
    "crashes, and a delay": replace(CRASHES, delays=1, keeps=1),
    "one term after another": replace(ALONE, ticks=8, keeps=3),
    "one term after another, with a fault": replace(ALONE, ticks=8, delays=0, faults=1),
    "one term after another, with a fault and a delay": replace(
        ALONE, delays=1, faults=1, kinds=frozenset({"crash", "late", "twice"})
    ),
}


@levels.deeper
@pytest.mark.parametrize("name", levels.some(BOUNDS, lambda name: name in BY_DEFAULT))
def test_a_kept_text_is_that_of_the_newest_term_that_wrote(name: str) -> None:
    bounds = BOUNDS[name] if levels.LONG else BY_DEFAULT.get(name, BOUNDS[name])
    report = explore(COARSE, bounds)
    print_report(name, COARSE, bounds, report)
    assert report.complete
    assert report.states >= 5_000, "the bounds leave too little to search"


@pytest.mark.longest
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", LONG)
def test_a_kept_text_is_that_of_the_newest_term_further(name: str) -> None:
    bounds = replace(LONG[name], states=LONG_STATES)
    report = explore(COARSE, bounds, seconds=3000)
    print_report(name, COARSE, bounds, report)
    assert report.complete


def with_keeping(kind: type[Keeping]) -> type[Election]:
    """Return an election that keeps its texts with `kind`."""

    class Broken(Election):
        def __init__(self, *arguments: object, **named: object) -> None:
            super().__init__(*arguments, **named)  # type: ignore[arg-type]
            self.keeping = kind()

    return Broken


class AnotherTermSendsIt(Keeping):
    def ended(self) -> Keeping:
        return self


class TakesTheNewestForStored(Keeping):
    def answered(self, applied: bool) -> Keeping:
        new = super().answered(applied)
        return new._replace(stored=self.number) if self.sent and applied else new


class TakesARefusalForNotWritten(Keeping):
    def answered(self, applied: bool) -> Keeping:
        return super().answered(applied) if applied else self


class TakesNoAnswerForARefusal(Keeping):
    def failed(self, failure: Failure) -> Keeping:
        return self


class TakesNoAnswerForAnAnswer(Keeping):
    def failed(self, failure: Failure) -> Keeping:
        return super().answered(True) if failure.unknown else self


class CountsRequestsWithoutIt(Keeping):
    def sending(self, operation: Operation) -> Keeping:
        return self._replace(sent=self.number)


class BeliefOfAnotherTerm(Election):
    """A claim is answered as if the texts of the last term were still to be written."""

    def _send(self, operation: Operation, timeout: float) -> Send:
        if isinstance(operation, Renew) and self.keeping.number and operation.keep is None:
            operation = replace(operation, keep=f"{self.token - 1} {self.keeping.number}")
        return super()._send(operation, timeout)


@dataclass(frozen=True)
class Mutant:
    setup: Setup
    within: Bounds = LONG["late and lost requests, and a delay"]
    """The search that finds it. Three of the mutants need the delay."""


def rules(**named: object) -> Setup:
    return replace(COARSE, swaps=Rules(**named))  # type: ignore[arg-type]


MUTANTS = {
    "the text is written beside the swap": Mutant(rules(keeps=lambda operation, applied: True)),
    "a late duplicate of a renewal writes": Mutant(rules(renew=faults.renew_with_old_beat)),
    "a release writes the text whatever is there": Mutant(
        rules(keeps=lambda operation, applied: applied or isinstance(operation, Release)),
        HANDED,
    ),
    "a store acknowledges a text and does not write it": Mutant(
        rules(keeps=lambda operation, applied: False)
    ),
    "a release forgets the text": Mutant(
        rules(keeps=lambda operation, applied: applied and isinstance(operation, Renew)),
        HANDED,
    ),
    "the next term sends a text of the last": Mutant(
        replace(COARSE, election=with_keeping(AnotherTermSendsIt)),
        HANDED,
    ),
    "an answer counts for a text that came later": Mutant(
        replace(COARSE, election=with_keeping(TakesTheNewestForStored))
    ),
    "an answer counts for a request without a text": Mutant(
        replace(COARSE, election=with_keeping(CountsRequestsWithoutIt)),
        LONG["one text, and a delay"],
    ),
    "no answer counts as not written": Mutant(
        replace(COARSE, election=with_keeping(TakesNoAnswerForARefusal)),
        LONG["one text, and a delay"],
    ),
    "a refusal counts as not written, although a copy was applied": Mutant(
        replace(COARSE, election=with_keeping(TakesARefusalForNotWritten)),
        COPIES,
    ),
    "no answer counts as written": Mutant(
        replace(COARSE, election=with_keeping(TakesNoAnswerForAnAnswer))
    ),
    "renewals carry the text of the last term": Mutant(
        replace(COARSE, election=BeliefOfAnotherTerm),
        replace(ALONE, delays=1),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_each_rule_is_needed(name: str) -> None:
    mutant = MUTANTS[name]
    report = explore(mutant.setup, replace(mutant.within, states=150_000))
    print(f"{name}: {report}")
    assert report.violation is not None, f"survived {report}"


def test_the_newest_text_is_sent_although_an_older_one_was_acknowledged() -> None:
    keeping = Keeping().keep("one")
    renewal = Renew("r", "a", 1, 2, 30.0, keep="one")
    keeping = keeping.sending(renewal).keep("two").answered(True)
    assert (keeping.text, keeping.stored, keeping.number) == ("two", 1, 2)
    keeping = keeping.sending(replace(renewal, keep="two")).answered(True)
    assert (keeping.text, keeping.stored) == (None, 2)


def test_a_refused_text_is_not_sent_again() -> None:
    keeping = Keeping().keep("one").sending(Release("r", "a", 1, 2, keep="one"))
    keeping = keeping.failed(Failure(unknown=False, detail="no space", refusal=StoreRefused))
    assert keeping.refusal is not None
    assert (keeping.text, keeping.refused, keeping.refusal.detail) == (None, 1, "no space")


def test_a_claim_carries_no_text() -> None:
    keeping = Keeping().keep("one").sending(Claim("r", "a", 1, 30.0))
    assert keeping.answered(True).stored == 0
    assert keeping.failed(Failure(unknown=True)).unknown == 0
