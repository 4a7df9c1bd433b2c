"""How much a run of the tests does, by the environment variable COORD_LONG.

Without it, each behaviour has one representative. With `COORD_LONG=1`, all variations run as well:
every store for every test, every mutant, larger searches. With `COORD_LONG=2`, searches of
millions of states and minutes of chaos for each store run as well, for hours in all.

A test with the mark `long` or `longest` runs at its level only. So `COORD_LONG=1 pytest -m long`
runs what a run without COORD_LONG leaves out, and nothing twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

import pytest

SWITCH = "COORD_LONG"
T = TypeVar("T")


def level() -> int:
    """Return how much runs here: 0, 1 or 2.

    Raises:
        pytest.UsageError: The variable has another value.
    """
    text = os.environ.get(SWITCH) or "0"
    if text not in ("0", "1", "2"):
        raise pytest.UsageError(f"invalid {SWITCH} {text!r}: must be 1 (long) or 2 (longest)")
    return int(text)


LONG, LONGEST = level() >= 1, level() >= 2


def left_out(marks: Collection[str]) -> bool:
    """Return whether a test with these marks does not run at the level of this run."""
    return ("long" in marks and not LONG) or ("longest" in marks and not LONGEST)


def by_level(default: T, long: T, longest: T) -> T:
    """Return the value for the level of this run."""
    return (default, long, longest)[level()]


def deeper(test: Any) -> Any:
    """Mark a test that runs at each level, and does more with COORD_LONG=1: there it is `long`."""
    return pytest.mark.long(test) if LONG else test


def deepest(test: Any) -> Any:
    """Mark a test that does more with COORD_LONG=2 only, and is `longest` there."""
    return pytest.mark.longest(test) if LONGEST else test


def some(
    values: Iterable[T], chosen: Callable[[T], bool], *, name: Callable[[T], str] | None = None
) -> list[Any]:
    """Return parameters for all values; those that are not chosen have the mark `long`.

    Args:
        values: The values, in order.
        chosen: Whether a run without COORD_LONG has this value.
        name: Returns the name of a value in the test's id; None: as pytest names it.
    """
    return [
        pytest.param(
            value,
            marks=() if chosen(value) else pytest.mark.long,
            id=None if name is None else name(value),
        )
        for value in values
    ]
