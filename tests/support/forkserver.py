"""Python processes that are forked from one process, which has imported what they need.

`ForkServer("celery").start("-m", "celery", "beat")` starts what `python -m celery beat` does. Where
a test starts many processes, importing takes most of their time. A forked process has its own
standard streams, environment and working directory, gets signals and exits as any other.

The server, `python -m tests.support.forkserver FD MODULE...`, gets requests on the socket FD, each
with the streams of the new process and a pipe for its exit status, and answers with the process
id. What it has started ends with it, and it ends with the socket.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parent.parent.parent
REQUEST_BYTES = 200_000
START_TIMEOUT = 120.0
"""Seconds in which the server surely has imported everything."""


class Forked:
    """A process of a fork server, with what tests use of `subprocess.Popen`."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid, self._status = pid, status
        self.returncode: int | None = None
        self.stdin: IO[str] | None = None
        self.stdout: IO[str] | None = None

    def fileno(self) -> int:
        """A descriptor that can be read once it has ended, until somebody has waited for that."""
        return self._status

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, and return its exit code.

        Raises:
            subprocess.TimeoutExpired: It has not ended after so many seconds.
        """
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            answer = os.read(self._status, 20)
            os.close(self._status)
            # A server that was killed says nothing, and its processes end, too.
            self.returncode = int(answer) if answer else -signal.SIGKILL
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class ForkServer:
    """Starts processes.

    Args:
        modules: What the server imports before. It must not start a thread.
        options: Options of Python, as `-W error`.
        cwd: The directory from which modules are imported first.
    """

    def __init__(self, *modules: str, options: tuple[str, ...] = (), cwd: Path = ROOT) -> None:
        self._socket, remote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(START_TIMEOUT)
        with remote:
            words = ["-m", "tests.support.forkserver", str(remote.fileno()), *modules]
            self._process = subprocess.Popen(
                [sys.executable, *options, *words], cwd=cwd, pass_fds=[remote.fileno()]
            )

    def start(
        self,
        *words: str,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Forked:
        """Start `python WORDS`; the first word is `-m` or a script.

        Args:
            words: What follows `python` on a command line.
            stdin: A file descriptor, or subprocess.PIPE; None: nothing can be read.
            stdout: A file descriptor, or subprocess.PIPE; None: that of this process.
            stderr: A file descriptor; None: that of this process.
            environment: All its variables; None: those of this process.
            cwd: Its working directory; None: that of the server.
        """
        request = {
            "words": words,
            "environment": dict(os.environ if environment is None else environment),
            "cwd": None if cwd is None else str(cwd),
        }
        with contextlib.ExitStack() as descriptors:

            def opened(descriptor: int) -> int:
                descriptors.callback(os.close, descriptor)
                return descriptor

            files: dict[str, IO[str]] = {}
            if stdin is None:
                stdin = opened(os.open(os.devnull, os.O_RDONLY))
            elif stdin == subprocess.PIPE:
                stdin, end = os.pipe()
                files["stdin"] = os.fdopen(end, "w")
                opened(stdin)
            if stdout == subprocess.PIPE:
                end, stdout = os.pipe()
                files["stdout"] = os.fdopen(end)
                opened(stdout)
            status, their_status = os.pipe()
            opened(their_status)
            streams = [stdin, 1 if stdout is None else stdout, 2 if stderr is None else stderr]
            socket.send_fds(self._socket, [json.dumps(request).encode()], [*streams, their_status])
            answer = self._socket.recv(100)
        if not answer:
            raise RuntimeError("the fork server has ended")
        forked = Forked(int(answer), status)
        forked.stdin, forked.stdout = files.get("stdin"), files.get("stdout")
        return forked

    def close(self) -> None:
        """End it, and what it started."""
        self._socket.close()
        self._process.wait()

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Server:
    """The server itself."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._statuses: dict[int, int] = {}
        """Where the exit status of each child is written."""
        self._woken, self._wakes = os.pipe()
        os.set_blocking(self._wakes, False)
        signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: who started it decides what ends

    def serve(self) -> list[str] | None:
        """Fork for each request. Return the words of a command in a child, and None in the server
        when it is to end."""
        while True:
            ready, _, _ = select.select([self._requests, self._woken], [], [])
            if self._woken in ready:
                os.read(self._woken, 1000)
                self._reap()
            if self._requests not in ready:
                continue
            message, descriptors, _, _ = socket.recv_fds(self._requests, REQUEST_BYTES, 4)
            if not message:
                for pid in self._statuses:
                    os.kill(pid, signal.SIGKILL)
                while self._statuses:
                    self._reap(os.waitpid(-1, 0))
                return None
            *streams, status = descriptors
            pid = os.fork()
            if pid == 0:
                return self._become(json.loads(message), streams, status)
            self._statuses[pid] = status
            for descriptor in streams:
                os.close(descriptor)
            self._requests.send(str(pid).encode())

    def _reap(self, ended: tuple[int, int] = (0, 0)) -> None:
        while True:
            pid, status = ended
            if pid:
                where = self._statuses.pop(pid)
                with contextlib.suppress(BrokenPipeError):
                    os.write(where, str(os.waitstatus_to_exitcode(status)).encode())
                os.close(where)
            try:
                ended = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not ended[0]:
                return

    def _become(self, request: dict[str, object], streams: list[int], status: int) -> list[str]:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._requests.close()
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
        for descriptor in (*streams, status, self._woken, self._wakes, *self._statuses.values()):
            os.close(descriptor)
        words, environment, cwd = request["words"], request["environment"], request["cwd"]
        assert isinstance(words, list)
        assert isinstance(environment, dict)
        os.environ.clear()
        os.environ.update(environment)
        if cwd is not None:
            os.chdir(str(cwd))
        return [str(word) for word in words]


def _run(words: list[str]) -> None:
    """Do what `python WORDS` does."""
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path[0] = str(Path(words[0]).resolve().parent)
        runpy.run_path(words[0], run_name="__main__")


def _main() -> None:
    for name in sys.argv[2:]:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a fork would have no copy of the other threads"
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        words = _Server(requests).serve()
    if words is not None:
        _run(words)


if __name__ == "__main__":
    _main()
