"""Real processes for the tests of the command line, and what they left in the journal."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tests.support.commands import Answer, run_here
from tests.support.forkserver import Forked, ForkServer
from tests.support.waits import eventually

HERE = Path(__file__).parent.parent / "cli" / "run"
ROOT = Path(__file__).parent.parent.parent
WORKER = [sys.executable, "-S", "-E", str(HERE / "worker.py")]


RUN_A_COMMAND = ("run", "once", "share")
"""The commands of coord that start processes."""


def python_environment() -> dict[str, str]:
    """The variables with which a Python program finds coord and the tests, and what the tests that
    start it were given: a mutant reaches its processes in this way."""
    inherited = os.environ.get("PYTHONPATH", "")
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, [inherited, str(ROOT)]))}
    if (mutant := os.environ.get("COORD_MUTANT")) is not None:
        environment["COORD_MUTANT"] = mutant
    return environment


PIPES = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def lives(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # the second: it went between open and read
        return False


TERMINATED = "terminated"
"""What a worker with --ignore-term writes when it gets SIGTERM, instead of its name."""


@dataclass(frozen=True)
class Stretch:
    """One process's entries in the journal: from when to when it is known to have run."""

    token: str
    pid: int
    name: str
    first: float
    last: float


class Journal:
    """What workers wrote."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self._stretches: dict[int, Stretch] = {}
        self._terminated: dict[int, float] = {}

    def stretches(self) -> list[Stretch]:
        """In order of first sight."""
        self._read_on()
        return list(self._stretches.values())

    def terminated(self, pid: int) -> float | None:
        """When a worker got SIGTERM and ignored it; None if that is not known."""
        self._read_on()
        return self._terminated.get(pid)

    def _read_on(self) -> None:
        """Read what was written since the last time. Who waits for an entry reads very often."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            # The last line may not be complete.
            text, newline, _ = file.read().rpartition(b"\n")
        self._read += len(text + newline)
        for line in text.decode().splitlines():
            token, writer, time_of, name = line.split()
            pid, moment = int(writer), float(time_of)
            if name == TERMINATED:
                self._terminated.setdefault(pid, moment)
                continue
            before = self._stretches.get(pid)
            first = moment if before is None else before.first
            self._stretches[pid] = Stretch(token, pid, name, first, moment)

    def of(self, token: int, name: str = "worker") -> Stretch | None:
        return next(
            (
                stretch
                for stretch in self.stretches()
                if stretch.token == str(token) and stretch.name == name
            ),
            None,
        )

    def wait_for(self, token: int, name: str = "worker") -> Stretch:
        entry = eventually(lambda: self.of(token, name))
        assert isinstance(entry, Stretch)
        return entry

    def check_no_overlap(self) -> None:
        """Nothing of one term ran after anything of a later term had begun."""
        stretches = self.stretches()
        for stretch in stretches:
            for other in stretches:
                if int(stretch.token) < int(other.token):
                    assert stretch.last < other.first, f"{stretch} still ran when {other} had begun"


Process: TypeAlias = "subprocess.Popen[str] | Forked"


class Start:
    """Starts Python programs of the tests or of coord, with pipes for their standard streams.

    Args:
        forks: Returns the server for `fork`, which has imported what `coord` needs.
    """

    def __init__(self, forks: Callable[[], ForkServer]) -> None:
        self._forks = forks
        self._started: list[Process] = []

    def __call__(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start `python WORDS` with options of Popen; `env` is what is added to the environment."""
        environment = self._environment(options.pop("env", {}))
        process = subprocess.Popen(
            [sys.executable, *words], env=environment, text=True, **(PIPES | options)
        )
        self._started.append(process)
        return process

    def fork(
        self,
        *words: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        start_new_session: bool = False,
        **streams: int,
    ) -> Process:
        """Start the same in a forked process, which takes much less time.

        The start of Python, what is imported, and the command line in /proc are not those of a
        process of its own.
        """
        if "COORD_MUTANT" in os.environ:  # the server has imported what a mutant replaces
            return self(
                *words, env=env or {}, cwd=cwd, start_new_session=start_new_session, **streams
            )
        forked = self._forks().start(
            *words,
            environment=self._environment(env or {}),
            cwd=cwd or Path.cwd(),
            new_session=start_new_session,
            **(PIPES | streams),
        )
        self._started.append(forked)
        return forked

    def end(self) -> None:
        """End everything, and print what the processes wrote to stderr and the test has not read:
        pytest shows it where a test fails."""
        for process in self._started:  # a fork that has just begun may not have its variables
            process.kill()
        end_marked()
        for process in self._started:
            status = process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    if pipe is process.stderr and not pipe.closed:
                        _show(process.args, status, pipe.fileno())
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        own = {**python_environment(), "PYTHONDONTWRITEBYTECODE": "", **MARK}
        return {**os.environ, **own, **more}


def _show(command: object, status: int, stderr: int) -> None:
    os.set_blocking(stderr, False)
    with contextlib.suppress(BlockingIOError):  # some other process has it open, and wrote nothing
        print(f"{command} ended with {status}: {os.read(stderr, 65536).decode(errors='replace')}")


class Runs:
    """`coord run` on one store, with workers that write one journal.

    Its processes are forked. A test that needs a process of its own uses `start`.
    """

    def __init__(self, start: Start, url: str, journal: Journal) -> None:
        self.start, self.url, self.journal = start, url, journal

    def run(self, *words: str, role: str = "job", **options: Any) -> Process:
        """`coord run job --url URL` and what is given."""
        return self.start.fork("-m", "coord", "run", role, "--url", self.url, *words, **options)

    def worker(self, *coord_words: str, flags: Sequence[str] = (), **options: Any) -> Process:
        """The same, with a worker for COMMAND."""
        return self.run(*coord_words, "--", *WORKER, str(self.journal.path), *flags, **options)

    def answer(self, *words: str, stdin: str = "", within: float = 20.0) -> Answer:
        """Run `coord` to its end: status, stdout, stderr.

        A command that runs COMMAND gets a process of its own. The others run in the test's process.
        """
        if words[0] not in RUN_A_COMMAND:
            return run_here(*words, stdin=stdin)
        process = self.start.fork("-m", "coord", *words)
        out, err = process.communicate(stdin, timeout=within)
        return process.wait(), out, err


def without_status(err: str) -> str:
    """Return what was printed, but not that a claim took longer than usual.

    Who waits may already be the leader by the store, and lack the answer to its claim.
    """
    lines = err.splitlines(keepends=True)
    return "".join(line for line in lines if "waiting for '" not in line)


MARK = {"COORD_TEST_PROCESS": str(os.getpid())}
"""A variable of the environment by which `end_marked` finds the processes of this test run."""


def end_marked() -> None:
    """Kill every process that has MARK in its environment, whatever has become of its parents."""
    ((name, value),) = MARK.items()
    word = f"{name}={value}".encode()

    def marked() -> list[int]:
        matching = []
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                pid = int(directory.name)
                if word in (directory / "environ").read_bytes().split(b"\0") and lives(pid):
                    matching.append(pid)
        return matching

    def all_ended() -> bool:
        pids = marked()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    eventually(all_ended)


def children(pid: int) -> list[int]:
    """The children of a process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def guardian_of(runner: int) -> int:
    """The guardian of a `coord run`, once it is there."""
    (pid,) = eventually(lambda: children(runner))
    assert isinstance(pid, int)
    return pid


def blocked(url: str) -> sqlite3.Connection:
    """SQLite's exclusive lock, until it is closed."""
    connection = sqlite3.connect(url.removeprefix("sqlite://"), isolation_level=None, timeout=10)
    connection.execute("BEGIN EXCLUSIVE")
    return connection
