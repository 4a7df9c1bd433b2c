"""The examples do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def run(name: str, *args: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *args],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_paused_old_leader_is_refused() -> None:
    said = run("fenced_writes.py")
    assert said[0] == "first leads, token 1"
    assert said[1:3] == ["second leads, token 2", "second has written"]
    assert said[3].startswith(
        "first is refused: the row in report refuses token 1: it has already seen token 2"
    )
    assert said[4] == "the report was written by second"


def test_callbacks_start_and_pause_a_scheduler(tmp_path: Path) -> None:
    said = run("scheduler_callbacks.py", f"sqlite://{tmp_path}/coord.db", "2")
    assert said == [
        "elected, token 1: the ticker runs",
        "tick 0 under token 1",
        "tick 1 under token 1",
        "lost (released): the ticker is paused",
    ]


def test_each_is_short_and_says_at_its_head_what_it_is() -> None:
    for path in EXAMPLES.glob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 60, path.name
        assert lines[0].startswith('"""'), path.name
        assert any("Run it" in line for line in lines[:15]), path.name
