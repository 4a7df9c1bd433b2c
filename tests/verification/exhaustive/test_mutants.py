"""Each rule that is broken on purpose is noticed, and the same check passes where it is not
broken."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.verification.exhaustive.explore import Bounds
from tests.verification.exhaustive.model import Setup
from tests.verification.exhaustive.mutants import MUTANTS, PAGE, Mutant, run
from tests.verification.exhaustive.scenarios import ALL
from tests.verification.exhaustive.test_exhaustive import FINE


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda item: item.name.replace(" ", "-"))
def test_is_caught(mutant: Mutant) -> None:
    verdict = run(mutant, mutant.altered())
    print(f"{mutant.name}: {verdict.violation} ({verdict.by}, {verdict.effort})")
    assert verdict.violation is not None, f"survived {verdict.effort}"
    sound = run(mutant, mutant.setup, states=min(2 * verdict.states, 5_000) + 1)
    assert sound.violation is None


def test_every_rule_is_broken_once() -> None:
    assert {mutant.rule for mutant in MUTANTS} == {*range(1, 9), 11, 12, 13}


def test_the_page_names_them_all() -> None:
    rows = [
        line.split(" | ")
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ][2:]
    reports = [(int(row[0].removeprefix("| ")), row[1]) for row in rows]
    assert reports == [(m.rule, m.name) for m in sorted(MUTANTS, key=lambda item: item.rule)], (
        "run: python -m tests.verification.exhaustive.mutants"
    )


@pytest.mark.parametrize("story", ALL, ids=lambda item: item.__name__)
def test_stories_end_well(story: Callable[[Setup], int]) -> None:
    assert story(FINE) > 1


def test_the_explorer_goes_to_the_end_where_nothing_is_wrong() -> None:
    sound = next(m for m in MUTANTS if isinstance(m.within, Bounds))
    assert run(sound, sound.setup).violation is None
