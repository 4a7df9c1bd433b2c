"""What a power cut takes of a SQLite file, seen through a library that keeps what has been synced
(power_cut.c)."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from coord.core.operations import Answer, Claim
from coord.stores.sqlite import SQLiteStore, StoreClock
from tests.support import requirements
from tests.support.processes import python_environment

SOURCE = Path(__file__).with_name("power_cut.c")
TERMS, RENEWALS = 6, 4

# Each line that it prints: what was done, the token, the beat, the kept text, and the directory with
# what was synced by then. One store does it all, and never closes: closing would sync.
LEADERS = """
import asyncio, json, shutil, sys
from coord.core.operations import Claim, Release, Renew
from coord.stores.sqlite import SQLiteStore
from coord.stores.sqlite.connection import Connection

path, disk, snapshots, mutant = sys.argv[1:]
if mutant == "nothing is synced":
    begin = Connection.begin
    Connection.begin = lambda self, *, synced, **more: begin(self, synced=False, **more)
if mutant == "only claims are synced":
    from coord.stores.sqlite import swaps
    swaps._must_be_synced = lambda operation: isinstance(operation, Claim)

async def main():
    store, number, kept = SQLiteStore(path), 0, ""
    def report(what, result, keep=None):
        nonlocal number, kept
        assert result.applied, (what, result)
        number += 1
        kept = keep or kept
        shutil.copytree(disk, f"{snapshots}/{number}")
        lease = result.lease
        done = [what, lease.token, lease.beat, kept, f"{snapshots}/{number}"]
        print(json.dumps(done), flush=True)
    await store.open(30)
    for term in range(TERMS):
        result = await store.claim(Claim("r", f"c{term}", 1, 30.0), 30)
        report("claim", result)
        token = result.lease.token
        for beat in range(2, 2 + RENEWALS):
            keep = f"{term} {beat}" if term % 2 and beat == 3 else None
            renewal = Renew("r", f"c{term}", token, beat, 30.0, keep=keep)
            report("keep" if keep else "renew", (await store.renew([renewal], 30))[0], keep)
        keep = f"{term} at last" if term % 3 == 0 else None
        release = Release("r", f"c{term}", token, 2 + RENEWALS, keep=keep)
        report("keep" if keep else "release", await store.release(release, 30), keep)
    import os; os._exit(0)

asyncio.run(main())
""".replace("TERMS", str(TERMS)).replace("RENEWALS", str(RENEWALS))


class Step(NamedTuple):
    """`what` was acknowledged, and then the power went; `disk` is what is left, `recovered` (token,
    beat, kept text) of the row."""

    what: str
    token: int
    beat: int
    kept: str
    disk: Path
    recovered: tuple[int, int, str]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.platform != "linux":
        pytest.skip("the library for power cuts needs Linux")
    requirements.need("cc")
    library = tmp_path_factory.mktemp("library") / "power_cut.so"
    command = ["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return library


def lead(library: Path, directory: Path, mutant: str = "") -> list[Step]:
    for name in ("file", "disk", "snapshots"):
        (directory / name).mkdir()
    path = directory / "file" / "coord.db"
    arguments = [str(path), str(directory / "disk"), str(directory / "snapshots"), mutant]
    environment = {
        "LD_PRELOAD": str(library),
        "POWER_CUT_OF": str(directory / "file"),
        "POWER_CUT_TO": str(directory / "disk"),
        **python_environment(),
        "PATH": "/usr/bin:/bin",
    }
    command = [sys.executable, "-c", LEADERS, *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    steps = []
    for line in done.stdout.splitlines():
        what, token, beat, kept, disk = json.loads(line)
        steps.append(Step(what, token, beat, kept, Path(disk), recovered(Path(disk))))
    return steps


def recovered(disk: Path) -> tuple[int, int, str]:
    connection = sqlite3.connect(disk / "coord.db")
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        query = "SELECT token, beat, kept FROM coord_leases"
        return connection.execute(query).fetchone() or (0, 0, "")
    finally:
        connection.close()


def test_a_power_cut_takes_no_token(library: Path, tmp_path: Path) -> None:
    steps = lead(library, tmp_path)
    assert len(steps) == TERMS * (RENEWALS + 2)
    for step in steps:
        assert step.recovered[0] == step.token, step
        if step.what == "claim":
            assert step.recovered[1] == step.beat, step
    # It does take renewals and releases, or this test would not see what it takes.
    assert any(step.recovered[1] < step.beat for step in steps if step.what == "renew")
    assert any(step.recovered[1] < step.beat for step in steps if step.what == "release")


def test_after_the_boot_the_role_can_be_had_at_once_under_a_new_token(
    library: Path, tmp_path: Path
) -> None:
    """Whatever of renewals and releases is missing: the process that held the lease went down with the
    machine."""
    lost = [
        step for step in lead(library, tmp_path) if step.recovered[:2] != (step.token, step.beat)
    ]

    async def claimed(disk: Path) -> Answer:
        # A copy would have another number; on the machine it is the same file after the boot.
        os.link(tmp_path / "file" / "coord.db-lock", disk / "coord.db-lock")
        store = SQLiteStore(str(disk / "coord.db"), clock=StoreClock(name="the next boot"))
        result = await store.claim(Claim("r", "new", 1, 30.0, skew=0.0), 30)
        await store.close()
        assert isinstance(result, Answer)
        return result

    assert lost
    for step in lost:
        result = asyncio.run(claimed(step.disk))
        assert result.applied
        assert result.lease.token == step.token + 1


def test_a_claim_that_is_not_synced_loses_its_token(library: Path, tmp_path: Path) -> None:
    """The rule broken on purpose: a resource would then see one token twice."""
    steps = lead(library, tmp_path, "nothing is synced")
    assert any(step.recovered[0] < step.token for step in steps if step.what == "claim")


def test_a_power_cut_takes_nothing_that_is_kept(library: Path, tmp_path: Path) -> None:
    steps = lead(library, tmp_path)
    assert {step.what for step in steps} == {"claim", "renew", "keep", "release"}
    for step in steps:
        assert step.recovered[2] == step.kept, step
        if step.what == "keep":
            assert step.recovered[1] == step.beat, step


def test_a_write_that_is_not_synced_loses_what_it_keeps(library: Path, tmp_path: Path) -> None:
    """The rule broken on purpose: a job would then run twice for one tick."""
    steps = lead(library, tmp_path, "only claims are synced")
    assert any(step.recovered[2] != step.kept for step in steps if step.what == "keep")
