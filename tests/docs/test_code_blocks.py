"""Every Python block in README.md and docs/ runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import Block, blocks

BLOCKS = blocks({"python"})


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_it_runs(block: Block, tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "COORD_URL": ""}
    code = block.code.replace("sqlite:///tmp/", f"sqlite://{tmp_path}/")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 3
