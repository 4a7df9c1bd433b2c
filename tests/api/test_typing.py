"""mypy reports what an editor should underline: a misspelt setting, a wrong type, a callback with
wrong parameters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BAD = """\
import coord
from coord import AsyncLeadership, Leadership

c = coord.connect("memory://")
c.leadership("r", ttll=3)
c.leadership("r", ttl="3")
c.leadership("r", on_lost=lambda term: None)
c.leadership("r").wait(timeuot=3)
a = coord.AsyncCoordinator("memory://")
a.leadership("r", ttll=3)
Leadership(c, "r", ttll=3)
AsyncLeadership(a, "r", on_elected=[lambda: None])
"""
GOOD = """\
import coord

c = coord.connect("memory://")


@coord.leader_only("job")
def job() -> None:
    print(coord.require_term().token)


async def elected(term: coord.Term) -> None: ...


lead = c.leadership(
    "r", ttl=3, on_elected=[elected, print], on_lost=lambda term, why: print(term.token, why.value)
)
ok: bool = lead.wait(timeout=3)
for change in c.watch_leaders():
    print(change.role)
"""


def check(path: Path, text: str) -> list[str]:
    path.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary"]
    command += [
        "--config-file",
        str(ROOT / "pyproject.toml"),
        "--cache-dir",
        str(path.parent / "cache"),
    ]
    done = subprocess.run(
        [*command, str(path)], capture_output=True, text=True, cwd=ROOT, timeout=110, check=False
    )
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if "error:" in line]


def test_mypy_reports_wrong_calls(tmp_path: Path) -> None:
    errors = check(tmp_path / "bad.py", BAD)
    lines = {int(line.split(":")[1]) for line in errors}
    assert lines == {5, 6, 7, 8, 10, 11, 12}, errors


def test_mypy_accepts_right_ones(tmp_path: Path) -> None:
    assert check(tmp_path / "good.py", GOOD) == []
