"""What observations that outlive their candidates rest on, and what breaks where it is missing."""

from __future__ import annotations

from dataclasses import replace

from tests.support.levels import by_level, deeper
from tests.verification.exhaustive.explore import Bounds, explore
from tests.verification.exhaustive.model import Setup
from tests.verification.exhaustive.test_exhaustive import RESTARTS

BOUNDS = Bounds(
    ticks=by_level(4, 8, 8),
    delays=0,
    faults=2,
    whispers=0,
    orders=0,
    prompt=True,
    kinds=frozenset({"crash"}),
)
RESTORED = replace(BOUNDS, ticks=by_level(2, 4, 4), faults=3)
"""A backup that is restored carefully takes three faults: each candidate crashes before."""


def violation(setup: Setup, bounds: Bounds = BOUNDS) -> str:
    report = explore(replace(setup, leaders_only=True), bounds)
    assert report.complete or report.violation
    return report.violation.rule if report.violation else ""


@deeper
def test_clocks_that_differ_in_rate_by_more_than_the_margin() -> None:
    assert violation(RESTARTS) == ""
    assert violation(replace(RESTARTS, rates=(1, 5))) == "two leaders at once"


@deeper
def test_a_backup_that_is_restored_under_a_running_leader() -> None:
    """The page of guarantees forbids it: an old revision comes back, and an observation of it, kept
    or not, is old enough. If all candidates were stopped before, nothing happens."""
    careless = replace(RESTORED, kinds=frozenset({"crash", "restore carelessly"}))
    assert violation(RESTARTS, careless) == "two leaders at once"
    careful = replace(RESTORED, kinds=frozenset({"crash", "restore"}))
    assert violation(RESTARTS, careful) == ""
