"""A run in a new clone compiles the tests before its processes begin."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import compiled
from tests.support.processes import python_environment

CONFTEST = """
from pathlib import Path
from tests.support import compiled

def pytest_configure(config):
    compiled.compile_once(config, Path(__file__).parent / "samples")
"""
SAMPLE = """
import os

with open("imports", "a") as log:
    log.write(f"{os.getpid()} {__name__}\\n")

def test_number():
    assert True
"""


def test_each_file_is_compiled_once_and_a_failing_import_is_reported(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    (samples / "__init__.py").touch()
    number = compiled.FEW + 2
    for index in range(number - 1):
        (samples / f"test_{index}.py").write_text(SAMPLE)
    (samples / "test_skipped.py").write_text("import pytest; pytest.skip(allow_module_level=True)")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = samples\n")

    def run() -> tuple[str, int]:
        """Return the last line, and the number of processes that have imported tests so far."""
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-n", "1"],
            cwd=tmp_path,
            env={**os.environ, **python_environment(), "PYTHONDONTWRITEBYTECODE": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        lines = (tmp_path / "imports").read_text().splitlines()
        return done.stdout.splitlines()[-1], len({line.split()[0] for line in lines})

    last, processes = run()
    assert f"{number - 1} passed, 1 skipped" in last
    assert processes == compiled.PROCESSES + 1
    (samples / "test_0.py").write_text("raise ValueError(0)")
    last, processes = run()
    assert "1 error" in last
    assert processes == compiled.PROCESSES + 2  # it is compiled already, but for one


@pytest.mark.parametrize("suffix", ["", ".other"])
def test_only_the_code_of_this_pytest_counts(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / "test_a.py"
    file.touch()
    cache = tmp_path / "__pycache__"
    cache.mkdir()
    tag = f"{sys.implementation.cache_tag}-pytest-{pytest.__version__}{suffix}"
    (cache / f"test_a.{tag}.pyc").touch()
    assert compiled.without_compiled_code(tmp_path) == ([file] if suffix else [])
