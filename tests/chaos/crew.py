"""The workers of a run, as processes: started, killed, stopped, started again; what they say; who
leads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos.processes import Process
from tests.chaos.recorder import now
from tests.chaos.worker import IMPORTS, Settings
from tests.support import forkserver
from tests.support.forkserver import ForkServer

STOP_TIMEOUT = 15.0
"""Seconds that a worker may take to stop beside three ttls: a busy machine needs some."""
ROOT = Path(__file__).parent.parent.parent


def snapshot(directory: Path) -> Path:
    """A copy of the code for a run's processes: they all run the same, whatever is edited
    meanwhile."""
    code = directory / "code"
    for part in ("coord", "tests/chaos"):
        shutil.copytree(ROOT / part, code / part, ignore=_unused)
    (code / "tests" / "support").mkdir()
    shutil.copy(forkserver.__file__, code / "tests" / "support")
    for package in (code / "tests", code / "tests" / "support"):
        (package / "__init__.py").touch()
    return code


def _unused(directory: str, names: list[str]) -> list[str]:
    """Return what no worker imports. Compiled files are valid for copies, too, if they are those
    of this interpreter."""
    if os.path.basename(directory) == "__pycache__":
        ending = f".{sys.implementation.cache_tag}.pyc"
        return [name for name in names if not name.endswith(ending)]
    unused = [name for name in names if name.startswith("test_")]
    if directory == str(ROOT / "coord"):
        unused += ["cli", "integrations", "testing", "web"]
    return unused


class Member:
    """One place among the workers; each process that fills it has a name of its own."""

    def __init__(self, crew: Crew, index: int) -> None:
        self.crew, self.index = crew, index
        self.process: Process | None = None
        self.name = ""
        self.busy = False
        """A fault is at work on it."""
        self._incarnation = 0
        self._listener: asyncio.Task[None] | None = None

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and not self.process.ended.is_set()

    async def start(self) -> None:
        self._incarnation += 1
        self.name = f"w{self.index}.{self._incarnation}"
        crew = self.crew
        settings = Settings(
            process=self.name,
            url=crew.url_of(self.index),
            ttl=crew.ttl,
            history=str(crew.directory / f"history-{self.name}.jsonl"),
            resource=str(crew.directory / "resource.sock"),
            seed=crew.chance.randrange(2**31),
            broken=crew.broken,
            features=crew.features,
            index=self.index,
        )
        errors = crew.directory / f"stderr-{self.name}.txt"
        words = ("tests.chaos.worker", settings.argument())
        self.process = Process(crew.forkserver, *words, errors=errors)
        await self.process.connect()
        self._listener = asyncio.create_task(self._listen(self.process))

    async def _listen(self, process: Process) -> None:
        while line := await process.stdout.readline():
            with contextlib.suppress(ValueError):  # half a line, of one that was killed
                self.crew.record(json.loads(line))

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send(number)

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.send(signal.SIGKILL)
        await self.wait_for_exit()

    async def wait_for_exit(self) -> None:
        assert self.process is not None
        assert self._listener is not None
        await self.process.ended.wait()
        await self._listener

    def tell(self, line: str) -> None:
        assert self.process is not None
        self.process.tell(line)

    async def ask(self, line: str, answers: tuple[str, ...], limit: float) -> str | None:
        """Tell it that, and wait at most `limit` seconds for one of these notes."""
        since, until = len(self.crew.notes), now() + limit
        self.tell(line)
        while now() < until:
            for note in self.crew.notes[since:]:
                if note["process"] == self.name and note["note"] in answers:
                    return str(note["note"])
            await asyncio.sleep(0.005)
        return None

    async def stop(self) -> None:
        """In good order; with force after a while."""
        assert self.process is not None
        self.process.close_stdin()
        until = now() + STOP_TIMEOUT + 3 * self.crew.ttl
        exit_task = asyncio.ensure_future(self.wait_for_exit())
        while now() < until and not (await asyncio.wait({exit_task}, timeout=0.5))[0]:
            # It may have stopped itself only now, for an order that came late on a busy machine.
            self._go_on()
        if not exit_task.done():
            self.crew.record(
                {"note": "did not stop", "process": self.name, "at": 0.0, "state": self._state()}
            )
            with contextlib.suppress(ProcessLookupError):
                self.send(signal.SIGUSR1)  # it says where it hangs, on standard error
            await asyncio.sleep(1.0)
            with contextlib.suppress(ProcessLookupError):
                self.send(signal.SIGKILL)
        await exit_task

    def _go_on(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.send(signal.SIGCONT)

    def _state(self) -> str:
        with contextlib.suppress(OSError):
            assert self.process is not None
            return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return "gone"


class Crew:
    def __init__(
        self,
        directory: Path,
        size: int,
        ttl: float,
        url_of: Callable[[int], str],
        example_url: str,
        chance: random.Random,
        broken: str,
        features: tuple[str, ...] = (),
    ) -> None:
        self.directory, self.ttl, self.url_of, self.chance = directory, ttl, url_of, chance
        self.broken, self.features = broken, features
        self._example_url = example_url
        self._forkserver: ForkServer | None = None
        self.members = [Member(self, index) for index in range(size)]
        self.notes: list[dict[str, Any]] = []
        self.elections = 0
        self._leading: tuple[str, int] = ("", 0)
        self._held: dict[tuple[str, str], int] = {}

    def record(self, note: dict[str, Any]) -> None:
        self.notes.append(note)
        if note["note"] == "holds":
            self._held[note["process"], note["feature"]] = note["count"]
        if note["note"] == "elected":
            self.elections += 1
            if note["token"] > self._leading[1]:
                self._leading = (note["process"], note["token"])

    @property
    def forkserver(self) -> ForkServer:
        """What starts the processes of the run; its own start is the first use of this."""
        if self._forkserver is None:
            modules = IMPORTS[self._example_url.partition(":")[0]]
            self._forkserver = ForkServer(*modules, cwd=snapshot(self.directory))
        return self._forkserver

    @property
    def leader(self) -> Member | None:
        """Who was elected last, if that process is still there."""
        return next((member for member in self.members if member.name == self._leading[0]), None)

    @property
    def token(self) -> int:
        return self._leading[1]

    def held(self, feature: str) -> list[int]:
        """How many seats of a feature each worker holds, as they said last."""
        return [self._held.get((member.name, feature), 0) for member in self.members]

    def free(self) -> list[Member]:
        """Those that no fault is at work on."""
        return [member for member in self.members if not member.busy]

    async def start(self) -> None:
        for member in self.members:
            await member.start()

    async def stop(self) -> None:
        await asyncio.gather(*(member.stop() for member in self.members))

    def close(self) -> None:
        """End whatever still runs."""
        if self._forkserver is not None:
            self._forkserver.close()
