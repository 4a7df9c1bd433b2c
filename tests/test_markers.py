"""What conftest.py does with the tests: the list of slow ones is true to the files,
and each test has a variation that runs by default."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HERE, WITHOUT_REPRESENTATIVE, slow_tests
from tests.support import levels
from tests.support.processes import ROOT, python_environment

WAITS_FOR_MINUTES = {
    "tests/integrations/test_celery.py::test_a_crontab_entry_that_was_due_in_the_gap_is_sent_once"
}


def test_the_slow_tests_are_there() -> None:
    missing_nodes = []
    for name in slow_tests():
        file, *inside = name.split("::")
        path = HERE / file
        # The first part inside: what a class inherits is not in its file.
        if not path.exists() or f" {inside[0]}" not in path.read_text(encoding="utf-8"):
            missing_nodes.append(name)
    assert missing_nodes == []


@pytest.mark.skipif(levels.LONG, reason="with COORD_LONG more tests have the mark")
def test_each_test_runs_by_default_in_one_variation(request: pytest.FixtureRequest) -> None:
    without_one = set(request.config.stash[WITHOUT_REPRESENTATIVE])
    assert without_one - WAITS_FOR_MINUTES == set()


def test_one_process_runs_all_tests_of_a_group(request: pytest.FixtureRequest) -> None:
    """pytest-xdist distributes by the end of the id."""
    if not getattr(request.config.option, "loadgroup", False):
        return  # this process runs all tests
    for item in request.session.items:
        groups = sorted({str(mark.args[0]) for mark in item.iter_markers("xdist_group")})
        assert not groups or item.nodeid.endswith(f"@{'_'.join(groups)}"), item.nodeid


GROUP = """
import os, pytest

@pytest.mark.xdist_group("alone")
@pytest.mark.parametrize("word", ["a@b", "c"])
def test_group(word):
    assert os.path.exists("repaired") or word == "c"

@pytest.mark.parametrize("word", ["a@b", "c"])
def test_other(word):
    assert os.path.exists("repaired")
"""


def test_the_failed_tests_of_a_group_run_again(tmp_path: Path) -> None:
    """With --last-failed, also where their file has others."""
    hooks = "name_groups, pytest_collection_finish, pytest_runtest_logreport"
    (tmp_path / "conftest.py").write_text(f"from tests.conftest import {hooks}")
    (tmp_path / "test_group.py").write_text(GROUP)
    pytest_alone = [sys.executable, "-m", "pytest", "-p", "no:coord", "-p", "no:hypothesispytest"]

    def run() -> str:
        done = subprocess.run(
            [*pytest_alone, "-n", "1", "--dist", "loadgroup", "--last-failed"],
            cwd=tmp_path,
            env={**os.environ, **python_environment()},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.splitlines()[-1]

    assert "3 failed, 1 passed" in run()
    (tmp_path / "repaired").touch()
    assert "= 3 passed in" in run()
    cache = tmp_path / ".pytest_cache/v/cache/lastfailed"
    assert json.loads(cache.read_text()) == {}


def test_the_ci_runs_each_failed_test_once_more(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\n[ "$1" = -m ] || exec {sys.executable} "$@"\nprintf "%s\\n" "$@"\n'
    )
    python.chmod(0o755)
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    function = script[script.index("failed_once_more() {") :].partition("\n}\n")[0]
    command = (
        f"set -euo pipefail; step() {{ :; }}\n{function}\n}}\nfalse || failed_once_more ./python"
    )

    def run() -> tuple[int, list[str]]:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout.splitlines()

    assert run() == (1, [])
    cache = tmp_path / ".pytest_cache/v/cache/lastfailed"
    cache.parent.mkdir(parents=True)
    names = ["t/a.py::test_b", "t/a.py::test_c[x y@z]", "t/d.py"]
    cache.write_text(json.dumps(dict.fromkeys(names, True)))
    assert run() == (0, ["-m", "pytest", "-n", "2", *names])
    cache.write_text("{}")
    assert run() == (1, [])
