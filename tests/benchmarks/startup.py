"""What starting costs: `import coord` beside a bare interpreter, and how long it takes until
something leads.

Modules are read from bytecode, as an installed package has it; the first round, which is not
counted, writes it."""

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
LEADS = "import coord, sys; coord.connect(sys.argv[1]).leadership('bench').acquire()"
"""Not released: what the end of a process costs is not of interest here."""


class Starts:
    """Starts processes, with files and bytecode of their own in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(directory / "bytecode")}
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def _run(self, *arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=ROOT, env=self._environment
        )
        return done.stdout

    def _fresh(self) -> str:
        """The URL of a file that is not there."""
        return f"sqlite://{self._directory}/first-run-{os.urandom(4).hex()}.db"

    def python(self, code: str) -> float:
        """Milliseconds of an interpreter from its start to its end."""
        return seconds(lambda: self._run("-c", code)) * 1000

    def leader(self) -> float:
        """Milliseconds from the start of a process to where it leads."""
        began = time.time()
        output = self._run(
            "-c",
            f"{LEADS}; import os, time; print(time.time(), flush=True); os._exit(0)",
            self._fresh(),
        )
        return (float(output) - began) * 1000

    def command(self) -> float:
        """Milliseconds from starting `coord run` to where its command tells the time."""
        began = time.time()
        output = self._run(
            "-m", "coord", "run", "bench", "--url", self._fresh(), "--", "date", "+%s.%N"
        )
        return (float(output) - began) * 1000


def sections(where: Setting) -> list[Section]:
    starts = Starts(where.directory)
    codes = {"bare": "pass", "imported": "import coord", "used": USED, "asyncio": "import asyncio"}
    works = {name: lambda code=code: starts.python(code) for name, code in codes.items()}
    works |= {"leads": starts.leader, "run": starts.command}
    took = medians(works, where.pick(15, 3, 1), warm_up=where.pick(1, 1, 0))
    bare = Reference("a bare interpreter", took["bare"])
    aim = (Aim("≤", 60, "difference"),)
    return [
        Section(
            "Start-up",
            [
                Figure("import coord", took["imported"], "ms", aim, bare),
                Figure(f"`{USED}`", took["used"], "ms", aim, bare),
                Figure(
                    "a process that connects to a fresh SQLite file, until it leads",
                    took["leads"],
                    "ms",
                    (),
                    bare,
                ),
                Figure("of this, `import asyncio`", took["asyncio"], "ms", (), bare),
                Figure(
                    "first coord run on a fresh SQLite file, until its command runs",
                    took["run"],
                    "ms",
                    (Aim("<", 250),),
                ),
            ],
            "All in turns, each process from its start; an interpreter's time is until its end. Modules are read from "
            "bytecode, as an installed package has it.",
        )
    ]


if __name__ == "__main__":
    alone(sections)
