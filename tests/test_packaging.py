"""The source distribution contains everything that its own tests read."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def included() -> set[str]:
    """The entries of the source distribution, as pyproject.toml names them."""
    section = PYPROJECT.partition("[tool.hatch.build.targets.sdist]")[2]
    listed = re.search(r"^include = \[(.*?)\]$", section, re.MULTILINE | re.DOTALL)
    assert listed is not None
    return set(re.findall(r'"([^"]+)"', listed[1]))


def test_the_source_distribution_has_all_pages_and_directories() -> None:
    pages = {path.name for path in ROOT.glob("*.md")}
    assert included() == pages | {"coord", "tests", "examples", "docs", "LICENSE", ".ci"}


def test_every_file_that_the_tests_read_is_included() -> None:
    """Paths below the root of the repository, as tests write them: `ROOT / "docs" / …`."""
    read = set()
    for path in (ROOT / "tests").rglob("*.py"):
        read |= set(re.findall(r'\bROOT / f?"([^"/]+)', path.read_text(encoding="utf-8")))
    always, written = {"pyproject.toml"}, {"build", ".pytest_cache"}
    assert read - always - written <= included()
