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


@coord.leader_only("r")
def count(number: int) -> int:
    return number


@coord.leader_only("r", scope="call")
async def later(number: int) -> int:
    return number


total: int = count(1)
count("1")


async def main() -> int:
    return await later(1)


coord.leader_only("r", timeout="3")
coord.leader_only("r", otherwise="maybe")
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


@coord.leader_only("r")
def count(number: int) -> int:
    return number


@coord.leader_only("r", otherwise="wait", timeout=3)
def waits(number: int) -> int:
    return number


@coord.leader_only("r", otherwise="raise")
async def raises(number: int) -> int:
    return number


class Job:
    @coord.leader_only("r")
    def method(self, number: int) -> int:
        return number

    @classmethod
    @coord.leader_only("r")
    async def later(cls, number: int) -> int:
        return number


perhaps: int | None = count(1)
surely: int = waits(number=1)
method: int | None = Job().method(1)


async def main() -> None:
    here: int | None = await Job.later(1)
    there: int = await raises(1)
    print(here, there)


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
    assert lines == {5, 6, 7, 8, 10, 11, 12, 25, 26, 30, 33, 34}, errors


def test_mypy_accepts_right_ones(tmp_path: Path) -> None:
    assert check(tmp_path / "good.py", GOOD) == []
