"""What starting costs: `import coord` beside a bare interpreter, and `coord run` until its child runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.alone import alone
from tests.benchmarks.figures import Aim, Figure, Reference
from tests.benchmarks.page import Section
from tests.benchmarks.setting import ROOT, Setting
from tests.benchmarks.turns import medians, seconds

USED = "import coord; coord.leader_only; coord.connect"
"""The names are loaded when they are first used."""


def python(code: str) -> float:
    """Milliseconds of an interpreter from its start to its end."""
    return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)) * 1000


def first_run(directory: Path) -> float:
    """Milliseconds from starting `coord run` on a file that is not there to where its command tells the time."""
    url = f"sqlite://{directory}/first-run-{os.urandom(4).hex()}.db"
    command = [sys.executable, "-m", "coord.cli", "run", "bench", "--url", url, "--", "date", "+%s.%N"]
    began = time.time()
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return (float(done.stdout) - began) * 1000


def sections(where: Setting) -> list[Section]:
    codes = {"bare": "pass", "imported": "import coord", "used": USED}
    works = {name: lambda code=code: python(code) for name, code in codes.items()}
    works["run"] = lambda: first_run(where.directory)
    took = medians(works, 3 if where.quick else 15, warm_up=1)
    bare = Reference("a bare interpreter", took["bare"])
    aim = (Aim("≤", 60, "difference"),)
    return [
        Section(
            "Start-up",
            [
                Figure("import coord", took["imported"], "ms", aim, bare),
                Figure(f"`{USED}`", took["used"], "ms", aim, bare),
                Figure(
                    "first coord run on a fresh SQLite file, until its command runs",
                    took["run"],
                    "ms",
                    (Aim("<", 250),),
                ),
            ],
            "All in turns, each process from its start; an interpreter's time is until its end.",
        )
    ]


if __name__ == "__main__":
    alone(sections)
