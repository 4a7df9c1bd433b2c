"""mypy reports what an editor should underline: a misspelt setting, a wrong type, a callback with
wrong parameters. The Python blocks of README.md and the examples pass `mypy --strict` as they are.

One run of mypy checks all of these files, because most of its time goes into the packages that
they import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
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
coord.leader_only("r", ttl="3")
coord.current_term().token
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


@pytest.fixture(scope="module")
def mypy_errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What mypy reports for each file that has an error, by the file's name."""
    directory = tmp_path_factory.mktemp("typing")
    files = {"bad.py": BAD, "good.py": GOOD, **blocks_of_readme()}
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    paths = [*(directory / name for name in files), *EXAMPLES]
    # With the cache of `mypy --strict coord`: mypy checks again what is not as it was.
    command = [sys.executable, "-m", "mypy", "--strict", *map(str, paths)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=280, check=False
    )
    assert done.stderr == ""
    *lines, summary = done.stdout.splitlines()
    assert f"(checked {len(paths)} source files)" in summary
    errors: dict[str, list[str]] = {}
    for line in lines:
        if ": error: " in line:
            errors.setdefault(Path(line.split(":")[0]).name, []).append(line)
    return errors


def blocks_of_readme() -> dict[str, str]:
    """Each Python block of README.md by a file name."""
    return {
        f"readme_line_{line}.py": block.code
        for block in blocks({"python"})
        for page, line in [block.where.split(":")]
        if page == "README.md"
    }


def test_mypy_reports_wrong_calls(mypy_errors: dict[str, list[str]]) -> None:
    errors = mypy_errors["bad.py"]
    lines = {int(line.split(":")[1]) for line in errors}
    assert lines == {5, 6, 7, 8, 10, 11, 12, 25, 26, 30, 33, 34, 35, 36}, errors


def test_mypy_accepts_right_ones(mypy_errors: dict[str, list[str]]) -> None:
    assert "good.py" not in mypy_errors, mypy_errors


def test_mypy_accepts_the_readme_and_the_examples(mypy_errors: dict[str, list[str]]) -> None:
    assert len(blocks_of_readme()) > 3
    assert len(EXAMPLES) > 5
    assert set(mypy_errors) == {"bad.py"}, mypy_errors
