"""What starting costs: `import coord` beside a bare interpreter, and `coord run` until its child runs."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.report import Row


def _seconds(*command: str, times: int = 15) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _child_starts(directory: Path) -> float:
    """Seconds from starting `coord run` to the first instruction of its command."""
    taken = []
    for number in range(9):
        url = f"sqlite://{directory}/run-{number}.db"
        began = time.clock_gettime(time.CLOCK_MONOTONIC)
        done = subprocess.run(
            [sys.executable, "-m", "coord.cli", "run", "bench", "--url", url, "--", "cat", "/proc/uptime"],
            capture_output=True,
            text=True,
            check=True,
        )
        up = float(done.stdout.split()[0])
        taken.append(up - began - (time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)))
    return statistics.median(taken)


def rows(directory: Path) -> list[Row]:
    bare = _seconds(sys.executable, "-c", "pass") * 1000
    lazy = _seconds(sys.executable, "-c", "import coord") * 1000
    used = _seconds(sys.executable, "-c", "import coord; coord.leader_only; coord.connect") * 1000
    child = _child_starts(directory) * 1000
    against = "a bare interpreter"
    return [
        Row("import coord", lazy, "ms", against, bare, "≤ 60 ms more", lazy - bare <= 60),
        Row(
            "import coord, and use leader_only and connect",
            used,
            "ms",
            against,
            bare,
            "≤ 60 ms more",
            used - bare <= 60,
        ),
        Row(
            "first coord run on a fresh SQLite file, until its command runs (± 10 ms)",
            child,
            "ms",
            bound="< 250 ms",
            met=child < 250,
        ),
    ]
