"""`once` in real processes: their clocks differ, and they are killed while they run a tick."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import coord
from tests.support.levels import LONGEST, deepest
from tests.support.processes import lives, python_environment
from tests.support.store_urls import shared_url
from tests.support.waits import eventually

__all__ = ["shared_url"]

SECONDS = 180.0 if LONGEST else 5.0
TTL = 1.5

REPORT = """
import coord, json, sys
from datetime import datetime, timedelta, timezone
url, minutes = sys.argv[1:]
now = datetime(2026, 11, 30, 2, 0, tzinfo=timezone.utc) + timedelta(minutes=int(minutes))
with coord.Coordinator(url, timeout=30) as c:
    tick = coord.tick(every=86400, offset=7200, at=now)
    sys.stdin.readline()
    done = c.once("report", tick, lambda: f"by the clock that is {minutes} minutes off")
    print(json.dumps([done.result, done.ran]), flush=True)
"""

# It runs each tick since the one before, with a number of its own for each run. The program forks a
# worker for each clock offset that it reads, and prints the worker's process id.
WORKERS = """
import coord, json, os, signal, sys, time, traceback
url, path, ttl, first = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system removes what was killed
journal = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def write(*entry):
    os.write(journal, (json.dumps(entry) + "\\n").encode())

def work(tick):
    run = f"{os.getpid()} {time.monotonic_ns()}"
    write("begin", tick, run, time.monotonic_ns())
    time.sleep(0.03)
    write("end", tick, run, time.monotonic_ns())
    return run

def run_ticks(offset):
    with coord.Coordinator(url, timeout=60) as c:
        tick = first
        while True:
            while tick <= (time.time() + offset) * 4:
                try:
                    c.once("job", tick, work, tick, ttl=ttl)
                except (coord.LeadershipLost, coord.StaleToken, coord.OutcomeUnknown):
                    continue
                tick += 1
            time.sleep(0.02)

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        try:
            run_ticks(float(line))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    print(pid, flush=True)
"""


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with the workers that it forked
        process.communicate()


def start(started: list[Any], code: str, *arguments: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **python_environment()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started.append(process)
    return process


def test_clocks_that_differ_by_minutes_run_one_report(url: str, started: list[Any]) -> None:
    coord.connect(url).close()
    processes = [start(started, REPORT, url, minutes) for minutes in (-7, 0, 7)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(ran for _, ran in outputs) == 1
    assert len({result for result, _ in outputs}) == 1


@deepest
def test_killed_processes_leave_no_tick_out_and_run_none_after_its_record(
    url: str, tmp_path: Path, started: list[Any]
) -> None:
    path = tmp_path / "journal"
    first = int(time.time() * 4)
    chance = random.Random(1)

    parent = start(started, WORKERS, url, path, TTL, first)

    def worker(offset: float) -> tuple[float, int]:
        assert parent.stdin is not None
        assert parent.stdout is not None
        print(offset, file=parent.stdin, flush=True)
        return offset, int(parent.stdout.readline())

    workers = [worker(offset) for offset in (-0.1, 0.0, 0.1)]
    until, kills = time.monotonic() + SECONDS, 0
    while time.monotonic() < until:
        time.sleep(chance.uniform(0.3, 0.9))
        offset, pid = workers.pop(chance.randrange(3))
        os.kill(pid, signal.SIGKILL)
        kills += 1
        workers.append(worker(offset))
    last = int(time.time() * 4)
    with coord.Coordinator(url, timeout=30) as c:
        deadline = time.monotonic() + 60
        while c.once_done("job", last) is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for _, pid in workers:
            os.kill(pid, signal.SIGKILL)
            eventually(lambda pid=pid: not lives(pid))
        runs: dict[int, list[str]] = defaultdict(list)
        spans: list[tuple[int, int]] = []
        begun: dict[str, int] = {}
        for line in path.read_text().splitlines():
            what, tick, run, at = json.loads(line)
            if what == "begin":
                runs[tick].append(run)
                begun[run] = at
            else:
                spans.append((begun[run], at))
        print(f"{kills} kills, {last - first + 1} ticks, {sum(map(len, runs.values()))} runs")
        for tick in range(max(first, last - 60), last + 1):
            done = c.once_done("job", tick)
            assert done is not None, f"tick {tick} was not run"
            # What is recorded is the run that began last: none begins after the record.
            assert done.result == runs[tick][-1]
    assert set(runs) >= set(range(first, last + 1))
    spans.sort()
    for (_, end), (begin, _) in itertools.pairwise(spans):
        assert end <= begin, "two runs overlap"
