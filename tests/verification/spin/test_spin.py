"""The lease protocol as a Promela model, checked by Spin; docs/model.md has larger bounds than
these."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.levels import some
from tests.verification.spin import spin

FEW = ("M_HANDED_OVER_LEADS", "M_NO_FENCE")
"""The mutants of a run without COORD_LONG: each is compiled by itself, which takes longer than to
find its fault. The mutants of the core itself run always."""

pytestmark = pytest.mark.needs("spin", "cc", "timeout")


@pytest.mark.parametrize(
    "flags", some(spin.SMALLEST, lambda flags: flags == spin.SMALLEST[-1], name="-".join)
)
def test_every_state_within_the_bounds_is_good(flags: tuple[str, ...], tmp_path: Path) -> None:
    verdict = spin.check(flags, tmp_path)
    assert verdict.violation is None
    assert verdict.complete
    assert verdict.states > 10_000


@pytest.mark.parametrize("name", some(spin.MUTANTS, lambda name: name in FEW))
def test_each_mutant_fails(name: str, tmp_path: Path) -> None:
    verdict = spin.hunt(name, tmp_path)
    assert verdict.violation is not None
    assert verdict.violation.startswith("assertion violated")


def test_every_mutant_of_the_model_is_tried() -> None:
    named = set(re.findall(r"\bM_[A-Z_]+[A-Z]\b", spin.MODEL.read_text(encoding="utf-8")))
    assert named == set(spin.MUTANTS)
