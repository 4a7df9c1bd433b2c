"""A process that has imported coord, and forks itself for each program of a test.

Most of the time of a short program goes into the start of Python and into its imports. Here each
program still has a process of its own, with its own arguments, environment, directory and standard
streams. At its end, threads are joined and exit handlers run, but its memory is left to the system:
Python does not report what is still open then.

`python -m tests.support.forking PATH MODULE...` imports the modules and serves at a socket, until its
standard input ends. Each packet with a request carries the three standard streams; the answer is
the exit status. When the connection ends before that, the program is killed."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import marshal
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import IO, NoReturn

from tests.support.processes import ROOT, python_environment
from tests.support.waits import eventually

ELECTIONS = (
    "coord",
    "asyncio",
    "coord.api.sync_coordinator",
    "coord.election.unique_service",
    "coord.stores.memory.store",
    "coord.stores.sqlite.store",
    "coord.stores.sqlite.admin",
)
"""What `import coord` imports later: when a program connects."""
LARGEST = 1 << 20
"""Bytes of a request: the program, its arguments and its environment."""
CLIENT = """\
import _socket, marshal, posix, struct, sys
path, *words = sys.argv[1:]
connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
connection.connect(path)
request = marshal.dumps((None, words, posix.environ, posix.getcwd()))
streams = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("3i", 0, 1, 2))]
connection.sendmsg([request], streams)
posix._exit(int(connection.recv(16) or 70))
"""
"""`python -I -S -c CLIENT PATH MODULE ARGUMENT…` is `python -m MODULE ARGUMENT…` for its caller. It
imports next to nothing."""

COORD = """\
#!/bin/sh
case $1 in {words}) exec {python} -m coord "$@" ;; esac
exec {forked} "$@"
"""


class Forks:
    """A running server.

    Args:
        directory: An empty directory for its socket.
        modules: What the server imports before it forks. A program that forgets to import one of
            them still fails, because no name is bound in it.
        warnings: An option of `python -W`, or none.
    """

    def __init__(self, directory: Path, *modules: str, warnings: str = "default") -> None:
        self.path = str(directory / "forks")
        self._process = subprocess.Popen(
            [sys.executable, "-W", warnings, "-m", "tests.support.forking", self.path, *modules],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=ROOT,
            env={**os.environ, **python_environment()},
        )  # fmt: skip
        eventually(lambda: os.path.exists(self.path) or self._process.poll() is not None)
        assert self._process.poll() is None

    def run(
        self, code: str, directory: Path, environment: dict[str, str], output: IO[bytes]
    ) -> int:
        """Run Python code in a new process, as `python -c` does, and return its exit status.

        Args:
            code: The program.
            directory: Its working directory.
            environment: All of its environment.
            output: A file for both of its streams.

        Raises:
            TimeoutError: The program took more than a minute, and was killed.
        """
        variables = {os.fsencode(name): os.fsencode(value) for name, value in environment.items()}
        request = marshal.dumps((code, ["-c"], variables, str(directory)))
        with (
            open(os.devnull, "rb") as nothing,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection,
        ):
            connection.settimeout(60)
            connection.connect(self.path)
            streams = [nothing.fileno(), output.fileno(), output.fileno()]
            socket.send_fds(connection, [request], streams)
            return int(connection.recv(16))

    def write_coord(self, directory: Path, *started: str) -> None:
        """Write a program `coord` into a directory, that runs the command line in a fork.

        Args:
            directory: An existing directory.
            started: The commands that start a Python of their own, as for a user. A signal to one of
                the others kills it.
        """
        forked = shlex.join([sys.executable, "-I", "-S", "-c", CLIENT, self.path, "coord"])
        file = directory / "coord"
        file.write_text(COORD.format(words="|".join(started), python=sys.executable, forked=forked))
        file.chmod(0o755)

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def serve(path: str) -> tuple[str | None, list[str]]:
    """Serve until the standard input ends. Returns in each forked process only, with its program."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path + ".new")
    listener.listen(64)
    os.rename(path + ".new", path)
    assert threading.active_count() == 1
    gc.freeze()  # else the collector would copy the memory that all processes share
    while True:
        ready, _, _ = select.select([listener.fileno(), 0], [], [])
        if 0 in ready:
            break
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return attend(connection)
        connection.close()
        reap(os.WNOHANG)
    listener.close()
    reap(0)
    os._exit(0)


def reap(options: int) -> None:
    """Wait for the children that have ended, so that their processor time is counted."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, options) != (0, 0):
            pass


def attend(connection: socket.socket) -> tuple[str | None, list[str]]:
    """Fork the program of one request, and answer with its status. Returns in the program only."""
    request, streams, _, _ = socket.recv_fds(connection, LARGEST, 3)
    if not request:
        os._exit(0)
    child = os.fork()
    if child == 0:
        connection.close()
        code, words, variables, directory = marshal.loads(request)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.environb.clear()
        os.environb.update(variables)
        os.chdir(directory)
        sys.path[0] = "" if code is not None else directory
        return code, words
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(child)
    if ended not in select.select([connection.fileno(), ended], [], [])[0]:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    status = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):  # nobody waits for it
        connection.send(str(status if status >= 0 else 128 - status).encode())
    os._exit(0)


def main(path: str, modules: list[str]) -> None:
    for module in modules:
        importlib.import_module(module)
    code, words = serve(path)
    sys.argv = words
    try:
        if code is None:
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        else:
            program = ModuleType("__main__")
            sys.modules["__main__"] = program
            exec(compile(code, "<string>", "exec"), program.__dict__)
        status = 0
    except SystemExit as err:
        status = err.code if isinstance(err.code, int) else int(err.code is not None)
        if status and not isinstance(err.code, int):
            print(err.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    end(status)


def end(status: int) -> NoReturn:
    """End the process as the interpreter does, but leave its memory to the system.

    To free each object of each imported module would take longer than most programs.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
