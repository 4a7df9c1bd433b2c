"""The site builds without a warning, and fetches nothing from elsewhere. `.ci/run` runs
this, because it needs the extra coord[docs]."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.support.levels import by_level, deeper
from tests.support.processes import python_environment

pytestmark = pytest.mark.needs("mkdocs")


@deeper
def test_it_builds(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-f",
        str(ROOT / ".ci/mkdocs.yml"),
        "-d",
        str(tmp_path),
    ]
    search = by_level("false", "true", "true")  # a fifth of the time goes into its index
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", **python_environment()}
    environment["SITE_SEARCH"] = search
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    leading = (tmp_path / "reference/leading/index.html").read_text(encoding="utf-8")
    for name in (
        "Leadership.on_elected",
        "AsyncLeadership.transfer",
        "LossReason.SUSPENDED",
        "Timing.of",
    ):
        assert f'id="coord.{name}"' in leading
    assert "<li><code>drain_timeout</code>: Time that" in re.sub(r"<li>\s*<p>", "<li>", leading)
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(
            r"<(?:link|script|img|iframe)[^>]+(?:src|href)=\"?(https?:[^\" >]+)", text
        )
        assert fetched == [], page
    assert (tmp_path / "search/search_index.json").exists() is (search == "true")
    assert (tmp_path / "source/examples/fenced_writes.py").is_file()
