"""The Python blocks of README.md and the examples pass `mypy --strict` as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.docs.blocks import ROOT, blocks

WRONG = """\
import coord

coord.leader_only("r", ttl="3")
coord.current_term().token
"""


def test_readme_and_examples(tmp_path: Path) -> None:
    blocks_of_readme = []
    for block in blocks({"python"}):
        page, line = block.where.split(":")
        if page == "README.md":
            blocks_of_readme.append(tmp_path / f"readme_line_{line}.py")
            blocks_of_readme[-1].write_text(block.code, encoding="utf-8")
    examples = sorted((ROOT / "examples").glob("*.py"))
    assert len(blocks_of_readme) > 3
    assert len(examples) > 5
    wrong = tmp_path / "wrong.py"  # in the same run: mypy takes its time to begin
    wrong.write_text(WRONG, encoding="utf-8")
    files = [*blocks_of_readme, *examples, wrong]
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    command += ["--config-file", str(ROOT / "pyproject.toml"), *map(str, files)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=280, check=False
    )
    assert done.stderr == ""
    *errors, summary = done.stdout.splitlines()
    assert f"(checked {len(files)} source files)" in summary
    messages = [line for line in errors if ": error: " in line]
    assert [line for line in messages if "wrong.py" not in line] == []
    assert [line.split(":")[1] for line in messages] == ["3", "4"]
