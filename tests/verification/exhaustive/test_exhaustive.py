"""Nobody believes that they lead at the same instant as another: every interleaving within bounds,
none left out.

With `COORD_LONG=1` there are more profiles and later ends, with `COORD_LONG=2` two ticks more. On a
violation the trace that leads to it is printed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from coord.core.timing import Timing
from tests.support import levels
from tests.verification.exhaustive.explore import Bounds, Report, explore, replay
from tests.verification.exhaustive.model import Notes, Setup

# Drift at its bound: a slow leader believes for (16 - 4) / 3 = 4 ticks, a fast challenger waits for
# 16 / 4 = 4.
FINE = Setup()
# The same bound with fewer, larger ticks: (4 - 2) / 1 = 2 and 4 / 2 = 2. The store's clock may be
# off by a tick.
COARSE = Setup(
    Timing(ttl=4, renew_every=1, attempt_timeout=0.5, margin=2), rates=(1, 2), store_rate=2, skew=2
)
# Processes come and go, and each leaves what it has observed to the next one on its machine.
RESTARTS = replace(COARSE, skew=None, notes=Notes(), origins=(0, 7))
THREE = replace(COARSE, rates=(1, 2, 2))
FEED = Bounds().kinds - {"ask"}
ASK = frozenset({"ask", "late", "twice", "crash"})
BARE = Bounds(faults=0, whispers=0, orders=0)

PROFILES = {
    "a fault and a feed, fine clocks": (
        FINE,
        Bounds(ticks=6, delays=1, orders=0, kinds=FEED, prompt=True),
    ),
    "a fault and a delay": (COARSE, Bounds(ticks=6, delays=1, whispers=0, orders=0, prompt=True)),
    "a fault and an order": (COARSE, Bounds(ticks=3, delays=0, whispers=0, prompt=True)),
    "a fault, and asked to try": (
        COARSE,
        Bounds(ticks=6, delays=0, orders=0, kinds=ASK, prompt=True),
    ),
    "release, rest and linger": (
        COARSE,
        Bounds(ticks=8, delays=1, faults=0, whispers=0, prompt=True, rests=(0, 4), lingers=(0, 4)),
    ),
    "handed over, with a fault": (
        COARSE,
        Bounds(
            ticks=5,
            delays=0,
            whispers=0,
            prompt=True,
            transfers=True,
            kinds=frozenset({"late", "twice", "crash"}),
        ),
    ),
    "handed over, and a feed": (
        COARSE,
        Bounds(ticks=6, delays=1, faults=0, prompt=True, transfers=True, rests=(0, 4), kinds=FEED),
    ),
    "operators evict, pause and resume": (
        COARSE,
        Bounds(ticks=4, delays=1, faults=0, whispers=0, orders=2, prompt=True, operators=True),
    ),
    "operators, with a fault": (
        COARSE,
        Bounds(
            ticks=4,
            delays=0,
            whispers=0,
            orders=2,
            prompt=True,
            operators=True,
            kinds=frozenset({"late", "crash"}),
        ),
    ),
    "operators, and a feed": (
        COARSE,
        Bounds(ticks=5, delays=0, faults=0, orders=2, prompt=True, operators=True, kinds=FEED),
    ),
    "rows are retired": (
        COARSE,
        Bounds(ticks=3, delays=1, faults=0, whispers=0, orders=2, prompt=True, retires=True),
    ),
    "rows are retired, with a fault": (
        COARSE,
        Bounds(
            ticks=2,
            delays=0,
            whispers=0,
            orders=2,
            prompt=True,
            retires=True,
            kinds=frozenset({"crash", "late"}),
        ),
    ),
    "restarts, with observations kept": (
        RESTARTS,
        Bounds(
            ticks=6,
            delays=0,
            faults=2,
            whispers=0,
            orders=0,
            prompt=True,
            kinds=frozenset({"crash", "late"}),
        ),
    ),
    "restarts and a feed": (
        RESTARTS,
        Bounds(ticks=6, delays=0, orders=0, prompt=True, kinds=frozenset({"crash"}) | FEED),
    ),
    "restarts, and a restored backup": (
        RESTARTS,
        Bounds(
            ticks=5,
            delays=0,
            faults=3,
            whispers=0,
            orders=0,
            prompt=True,
            kinds=frozenset({"crash", "restore"}),
        ),
    ),
    "any delay, nobody paused": (COARSE, replace(BARE, ticks=3, prompt=True)),
    "any delay, anybody paused": (COARSE, replace(BARE, ticks=2)),
    "three candidates": (
        THREE,
        Bounds(candidates=3, ticks=4, delays=0, whispers=0, orders=0, prompt=True),
    ),
}
TWO_FAULTS = Bounds(ticks=6, delays=0, faults=2, whispers=0, orders=0, prompt=True)
LONG = {
    **{
        name: (setup, replace(bounds, ticks=bounds.ticks + 2))
        for name, (setup, bounds) in PROFILES.items()
    },
    "two faults": (COARSE, TWO_FAULTS),
    "operators, two faults": (
        COARSE,
        replace(PROFILES["operators, with a fault"][1], faults=2, orders=1),
    ),
}
"""Searches that end: a search that is cut off has looked at few ticks, and a takeover needs two."""
LONG_STATES = 1_500_000
BY_DEFAULT: dict[str, dict[str, Any]] = {
    "a fault and a feed, fine clocks": {"ticks": 5, "delays": 0},
    "a fault and a delay": {"ticks": 3},
    "release, rest and linger": {"ticks": 10, "delays": 0},
    "handed over, with a fault": {"ticks": 2, "kinds": frozenset({"late"})},
    "operators, and a feed": {"ticks": 3, "kinds": frozenset({"old"})},
    "rows are retired": {"delays": 0},
    "restarts, and a restored backup": {"ticks": 2},
    "any delay, anybody paused": {},
    "three candidates": {"ticks": 2},
}
"""The profiles of a run without COORD_LONG, and how their bounds are smaller there."""


def print_report(name: str, setup: Setup, bounds: Bounds, report: Report) -> None:
    print(f"{name}: {report}")
    if report.violation is not None:
        for move, world in replay(setup, report.trace[:-1], bounds.candidates):
            who = ", ".join(
                f"{c.election.phase.value}{' BELIEVES' if c.leads else ''}"
                for c in world.candidates
            )
            print(f"  {move!s:32} row {tuple(world.row.revision)}  {who}")
        pytest.fail(f"{name}: {report.violation} after {report.trace[-1]}")


@levels.deeper
@pytest.mark.parametrize("name", levels.some(PROFILES, lambda name: name in BY_DEFAULT))
def test_every_interleaving(name: str) -> None:
    setup, bounds = PROFILES[name]
    if not levels.LONG:
        bounds = replace(bounds, **BY_DEFAULT.get(name, {}))
    report = explore(setup, bounds)
    print_report(name, setup, bounds, report)
    assert report.complete
    assert report.states >= 4_000, "the bounds leave too little to search"


@pytest.mark.longest
@pytest.mark.parametrize("name", LONG)
def test_every_interleaving_further(name: str) -> None:
    setup, bounds = LONG[name]
    report = explore(setup, replace(bounds, states=LONG_STATES), seconds=3000)
    print_report(name, setup, bounds, report)
    assert report.complete
