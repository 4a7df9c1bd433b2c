"""What some tests need and not every machine has. A test skips without it, and the end of the run
says so in one line for each, however many processes it had. COORD_REQUIRE names those whose absence
is a failure: `COORD_REQUIRE=rethinkdb,doublethink`."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from typing import Any, NoReturn

import pytest

from tests.support import rethinkdb_server as servers

EXTERNAL, REQUIRE = "COORD_TEST_RETHINKDB", "COORD_REQUIRE"
PREFIX = "not tested: "
WHY = {
    "rethinkdb": f"no `{servers.BINARY}` is on PATH and {EXTERNAL} names no server that would do",
    "doublethink": f"it is not installed; there is none for Python {sys.version_info.major}."
    f"{sys.version_info.minor}"
    if sys.version_info >= (3, 12)
    else "it is not installed",
}

skipped: dict[str, set[str]] = {}
"""Tests by what they lacked."""


def skip(what: str) -> NoReturn:
    """Skip the running test."""
    pytest.skip(f"{PREFIX}{what}")


def ancestor() -> Any:
    """The package doublethink."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module("doublethink")
        except ImportError:
            skip("doublethink")


def note(report: pytest.TestReport) -> None:
    """Keep what a report says of a lack. Under xdist the controller hears of all reports."""
    if report.skipped and isinstance(report.longrepr, tuple):
        _, found, what = report.longrepr[2].partition(PREFIX)
        if found:
            skipped.setdefault(what, set()).add(report.nodeid)


def required() -> set[str]:
    names = {name.strip() for name in os.environ.get(REQUIRE, "").split(",")} - {""}
    if unknown := names - WHY.keys():
        raise pytest.UsageError(
            f"{REQUIRE} knows {', '.join(sorted(WHY))}; not {', '.join(sorted(unknown))}"
        )
    return names


def summary() -> list[tuple[str, bool]]:
    """The lines to say, and whether each is a failure."""
    lines = []
    for what, tests in sorted(skipped.items()):
        fails = what in required()
        consequence = f"; {REQUIRE}={what} makes this a failure" if fails else ""
        number = f"{len(tests)} test{'s' * (len(tests) != 1)} skipped"
        lines.append(
            (f"{what.upper()} NOT TESTED: {number}, since {WHY[what]}{consequence}", fails)
        )
    return lines
