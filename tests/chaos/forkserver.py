"""Processes of a run that are forked from one process, which has imported their code before:
importing takes longer than the rest of a start.

`python -m tests.chaos.forkserver FD URL` gets requests on the socket FD. Each names a module, the
arguments of its `main`, and carries the standard streams of the new process; the answer is the
process id. URL is the store that the processes will open."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.chaos.lifeline import die_with_parent

MODULES = ("tests.chaos.worker", "tests.chaos.resource")
"""What may be started."""
REQUEST_BYTES = 100_000


class Process:
    """A process that was started so. The fork server is its parent, so its end is seen through a
    file descriptor that refers to it."""

    def __init__(self, pid: int, stdin: int, stdout: int) -> None:
        self.pid = pid
        self.stdout = asyncio.StreamReader()
        self.ended = asyncio.Event()
        self._stdin: int | None = stdin
        self._stdout = open(stdout, "rb", buffering=0)  # noqa: SIM115
        self._handle = os.pidfd_open(pid)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._handle, self._end)

    async def connect(self) -> None:
        """Begin to read what it prints."""
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self.stdout), self._stdout
        )

    def send(self, number: signal.Signals) -> None:
        """Raises ProcessLookupError if it has ended."""
        if self.ended.is_set():
            raise ProcessLookupError(self.pid)
        signal.pidfd_send_signal(self._handle, number)

    def tell(self, line: str) -> None:
        """Write a line to its standard input; nothing happens if nobody reads that."""
        if self._stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._stdin, line.encode() + b"\n")

    def close_stdin(self) -> None:
        descriptor, self._stdin = self._stdin, None
        if descriptor is not None:
            os.close(descriptor)

    async def wait(self) -> None:
        await self.ended.wait()

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        self.close_stdin()
        self.ended.set()


class ForkServer:
    """Starts processes for a run. It must be used in one thread, whose end also ends them."""

    def __init__(self, code: Path, url: str) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._turn = asyncio.Lock()
        with theirs:
            words = [sys.executable, "-m", "tests.chaos.forkserver", str(theirs.fileno()), url]
            self._process = subprocess.Popen(words, cwd=code, pass_fds=[theirs.fileno()])
        self._socket.setblocking(False)

    async def start(self, module: str, *arguments: str, errors: Path | None = None) -> Process:
        """Start `main` of a module. Its standard error goes to a file, or to that of the run."""
        request = json.dumps({"module": module, "arguments": arguments}).encode()
        stdin, our_stdin = os.pipe()
        our_stdout, stdout = os.pipe()
        stderr = os.dup(2)
        if errors is not None:
            os.close(stderr)
            stderr = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            async with self._turn:
                socket.send_fds(self._socket, [request], [stdin, stdout, stderr])
                answer = await asyncio.get_running_loop().sock_recv(self._socket, 100)
                if not answer:
                    raise RuntimeError("the fork server has ended")
                # The server forgets a process that has ended at the next request only.
                process = Process(int(answer), our_stdin, our_stdout)
        finally:
            for descriptor in (stdin, stdout, stderr):
                os.close(descriptor)
        await process.connect()
        return process

    def close(self) -> None:
        """End it, and with it whatever it started that still runs."""
        self._socket.close()
        self._process.wait()


def _serve(requests: socket.socket) -> tuple[str, list[str]] | None:
    """Fork for each request. Return in a child what it has to do, and in the server None."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 3)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not message:
            return None
        pid = os.fork()
        if pid == 0:
            requests.close()
            for number, descriptor in enumerate(descriptors):
                os.dup2(descriptor, number)
                os.close(descriptor)
            request = json.loads(message)
            return request["module"], request["arguments"]
        for descriptor in descriptors:
            os.close(descriptor)
        requests.send(str(pid).encode())


def main() -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the run decides what ends, and when
    modules = {name: importlib.import_module(name) for name in MODULES}
    modules["tests.chaos.worker"].prepare(sys.argv[2])
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        order = _serve(requests)
    if order is not None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        module, arguments = order
        modules[module].main(*arguments)


if __name__ == "__main__":
    main()
