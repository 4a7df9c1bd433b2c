"""The job in README.md and the quickstart runs once, however many processes start it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks
from tests.support.levels import some

PAGES = ("README.md", "docs/quickstart.md")


def snippet(page: str) -> str:
    (code,) = (
        block.code
        for block in blocks({"python"})
        if block.where.startswith(f"{page}:") and '-report", once_per="day")' in block.code
    )
    return code


@pytest.mark.parametrize("page", some(PAGES, "README.md".__eq__))
def test_three_starts_are_one_run(page: str, tmp_path: Path) -> None:
    assert (ROOT / page).exists()
    environment = {**os.environ, "COORD_URL": "", "XDG_STATE_HOME": str(tmp_path)}

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", "-c", snippet(page)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    output = []
    for process in [start() for _ in range(3)]:  # at once
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        output.append(out)
    assert sorted(output) == ["", "", "writing under token 1\n"]
    late, _ = start().communicate(timeout=120)  # a machine whose clock is late
    assert late == ""
