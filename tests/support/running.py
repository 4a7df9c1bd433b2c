"""Programs that run beside a test, and what they have said so far."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.server_process import free_ports

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


class Running:
    """A program in a process group of its own; its output, both streams, line by line in `said`."""

    def __init__(self, command: list[str], url: str, **environment: str) -> None:
        bin_directory = str(Path(sys.executable).parent)
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=EXAMPLES,
            start_new_session=True,
            env={
                **os.environ,
                "COORD_URL": url,
                "PATH": f"{bin_directory}{os.pathsep}{os.environ['PATH']}",
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONUNBUFFERED": "1",
                **environment,
            },
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError):  # closed
            for line in self.process.stdout:
                self.said.append(line.rstrip("\n"))

    def lines(self, part: str) -> list[str]:
        return [line for line in self.said if part in line]

    def until(self, what: Callable[[Running], bool], seconds: float = 30.0) -> None:
        """Wait until it holds; fails with what the program has said."""
        end = time.monotonic() + seconds
        while not what(self):
            assert time.monotonic() < end, "\n".join(["not in time; it said:", *self.said])
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Signal the program itself, and wait for its end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(20)
        self._reader.join(5)


@contextlib.contextmanager
def running(command: list[str], url: str, **environment: str) -> Iterator[Running]:
    """It, and at the end nothing of its process group is left."""
    program = Running(command, url, **environment)
    try:
        yield program
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.process.pid, signal.SIGKILL)
        program.process.wait(20)
        program._reader.join(5)
        if program.process.stdout is not None:
            program.process.stdout.close()


def free_port() -> int:
    with free_ports(1) as ports:
        return ports[0]
