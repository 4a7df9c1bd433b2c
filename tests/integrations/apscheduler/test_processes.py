"""Real processes: leaders that are killed, and schedulers on both sides of a fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integrations.apscheduler.worker import EVERY
from tests.support.forkserver import Forked, ForkServer
from tests.support.processes import ROOT, python_environment
from tests.support.waits import eventually

FIRE_TIMES = 28


IMPORTED = ("coord.integrations.apscheduler", "coord.stores.sqlite", "sqlalchemy.dialects.sqlite")


@contextmanager
def worker(python: ForkServer, *arguments: str) -> Iterator[Forked]:
    environment = {**os.environ, **python_environment()}
    module = "tests.integrations.apscheduler.worker"
    process = python.start("-m", module, *arguments, environment=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_each_fire_time_is_run_once_although_leaders_are_killed(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    arguments = [f"sqlite://{tmp_path}/coord.db", f"sqlite:///{tmp_path}/jobs.db", str(journal)]

    def lines() -> list[list[str]]:
        return (
            [line.split() for line in journal.read_text().splitlines()] if journal.exists() else []
        )

    def standing(process: Forked) -> bool:
        return Path(f"{journal}.{process.pid}").exists()

    with (
        ForkServer(*IMPORTED, options=("-W", "error")) as python,
        worker(python, *arguments, "5") as first,
    ):
        eventually(lambda: standing(first) and lines())
        with worker(python, *arguments, "18") as second:
            assert first.wait(120) == -signal.SIGKILL
            # It leads, and has run what was missed; the third may not lead before it.
            eventually(
                lambda: standing(second) and len({token for _, token in lines()}) >= 2, within=60
            )
            with worker(python, *arguments) as third:  # its start replaces the job of the leader
                assert second.wait(120) == -signal.SIGKILL
                eventually(lambda: len(lines()) >= FIRE_TIMES, within=60)
                third.kill()
                third.wait()
    runs = lines()
    times = [float(moment) for moment, _ in runs]
    begin = min(times)
    expected = [round(begin + number * EVERY, 3) for number in range(len(runs))]
    assert sorted(times) == expected  # none twice, none missing
    assert len({token for _, token in runs}) >= 3


FORKS = """\
import os, sys, threading
import coord
from coord.integrations.apscheduler import LeaderBackgroundScheduler

scheduler = LeaderBackgroundScheduler(
    coordinator=coord.Coordinator(sys.argv[1]), ttl=0.5, timezone="UTC", missed="all",
    jobstores={"default": {"type": "sqlalchemy", "url": sys.argv[2]}} if sys.argv[2:] else {},
)
ran = threading.Event()

def work():
    print("ran in", "child" if os.getpid() != parent else "parent", coord.require_term().token, flush=True)
    ran.set()

parent = os.getpid()
scheduler.add_job(work, "interval", seconds=0.1, id="j", misfire_grace_time=None)
if sys.argv[3:]:
    scheduler.start()
    assert ran.wait(30)
    scheduler.pause()
    scheduler.leadership.stop()
ran.clear()
def pool():
    return vars(scheduler._jobstores["default"].inner)["engine"].pool if sys.argv[2:] else None
before = pool()
child = os.fork()
if child == 0:
    assert not scheduler.running
    assert not scheduler.leadership.is_leader
    scheduler.start()
    assert scheduler.running
    assert before is None or pool() is not before
    scheduler.resume()
    assert ran.wait(30)
    scheduler.shutdown()
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
if sys.argv[3:]:
    scheduler.resume()
    scheduler.leadership.start()
else:
    scheduler.start()
assert ran.wait(30)
scheduler.shutdown()
"""


def run_forks(*arguments: str) -> list[str]:
    # Python 3.12 warns of forks in processes with threads, and this is about them.
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            FORKS,
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **python_environment()},
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_scheduler_that_is_started_after_the_fork(tmp_path: Path) -> None:
    output = run_forks(f"sqlite://{tmp_path}/coord.db")
    assert {line.rpartition(" ")[0] for line in output} == {"ran in child", "ran in parent"}


def test_a_scheduler_that_was_started_before_the_fork_starts_again(tmp_path: Path) -> None:
    output = run_forks(f"sqlite://{tmp_path}/coord.db", f"sqlite:///{tmp_path}/jobs.db", "started")
    assert {line.rpartition(" ")[0] for line in output} == {"ran in child", "ran in parent"}
