"""Each mutant outside the core is caught by the tests that are named with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support import requirements
from tests.support.levels import some
from tests.support.processes import ROOT
from tests.verification.mutation.mutant import Mutant
from tests.verification.mutation.mutants import MUTANTS
from tests.verification.mutation.runner import Outcome, Runner

FEWEST = 50
PACKAGES = {"runtime", "stores", "election", "services", "api", "cli"}
FIRST_OF_PACKAGE = list(
    {mutant.module.split(".")[1]: mutant for mutant in reversed(MUTANTS)}.values()
)
"""The mutants of a run without COORD_LONG: the first of each package of coord."""


@pytest.fixture(scope="module")
def mutant_runner() -> Iterator[Runner]:
    with Runner() as started:
        yield started


@pytest.mark.parametrize(
    "mutant",
    some(MUTANTS, lambda mutant: mutant in FIRST_OF_PACKAGE, name=lambda mutant: mutant.id),
)
def test_each_mutant_is_caught(mutant: Mutant, mutant_runner: Runner) -> None:
    for tool in mutant.needs:
        requirements.need(tool)
    verdict = mutant_runner.run(mutant)
    print(verdict)
    assert verdict.outcome is Outcome.CAUGHT, f"{mutant.id}: {verdict}"


def test_each_mutant_applies() -> None:
    for mutant in MUTANTS:
        mutant.check()


def test_the_tests_of_each_mutant_exist() -> None:
    """Also those of the mutants that only COORD_LONG=1 runs."""
    ids = sorted({f"tests/{test}" for mutant in MUTANTS for test in mutant.tests})
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--collect-only", *ids],
        cwd=ROOT,
        env={**os.environ, "COORD_LONG": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    missing = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert done.returncode == 0, missing or done.stdout[-2000:]


def test_each_package_has_mutants() -> None:
    packages = {mutant.module.split(".")[1] for mutant in MUTANTS}
    assert packages >= PACKAGES
    assert len(MUTANTS) >= FEWEST


def test_each_mutant_has_a_name_of_its_own() -> None:
    ids = [mutant.id for mutant in MUTANTS]
    assert len(set(ids)) == len(ids)
    changes = [(mutant.place, mutant.old, mutant.new) for mutant in MUTANTS]
    assert len(set(changes)) == len(changes)
