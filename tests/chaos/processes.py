"""A process of a run, for asyncio: its end, and what it prints."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from pathlib import Path

from tests.support.forkserver import ForkServer


class Process:
    """`python -m MODULE ARGUMENTS`, started by a fork server; its standard error goes to a file, or
    to that of the run."""

    def __init__(
        self, server: ForkServer, module: str, *arguments: str, errors: Path | None = None
    ) -> None:
        with contextlib.ExitStack() as stack:
            stderr = None if errors is None else stack.enter_context(errors.open("wb")).fileno()
            self._forked = server.start(
                "-m",
                module,
                *arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        self.pid = self._forked.pid
        self.stdout = asyncio.StreamReader()
        self.ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._forked.fileno(), self._end)

    async def connect(self) -> None:
        """Begin to read what it prints."""
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self.stdout), self._forked.stdout
        )

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        self._forked.send_signal(number)

    def tell(self, line: str) -> None:
        """Write a line to its standard input; nothing happens if nobody reads that."""
        stdin = self._forked.stdin
        if stdin is not None and not stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                os.write(stdin.fileno(), line.encode() + b"\n")

    def close_stdin(self) -> None:
        if self._forked.stdin is not None:
            self._forked.stdin.close()

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._forked.fileno())
        self._forked.wait()
        self.close_stdin()
        self.ended.set()
