"""Python processes that are forked from one process, which has imported what they need.

`ForkServer("celery").start("-m", "celery", "beat")` starts what `python -m celery beat` does. Where
a test starts many processes, importing takes most of their time. A forked process has its own
standard streams, environment and working directory, gets signals and exits as any other. Its
/proc/PID/environ shows its environment; its /proc/PID/cmdline is that of the server.

The server, `python -m tests.support.forkserver FD FINALIZES MODULE...`, accepts connections at the
socket FD. A connection sends one request, with the streams of the new process, and gets the process
id and, at the end of the process, its exit status. The process is killed when its connection ends
before, and all are when the standard input of the server ends. The server needs Linux.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import marshal
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from multiprocessing.connection import wait
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NoReturn

ROOT = Path(__file__).parent.parent.parent
ROOM = "FORKSERVER_ROOM"
"""A variable of the server that only makes its memory for the environment longer."""
ROOM_BYTES = 8192
REQUEST_BYTES = 200_000
START_TIMEOUT = 120.0
"""Seconds in which the server surely has imported everything."""
CLIENT = """\
import _socket, marshal, posix, struct, sys
path, *words = sys.argv[1:]
connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
connection.connect(path)
request = marshal.dumps((words, posix.environ, posix.getcwd(), False))
streams = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("3i", 0, 1, 2))]
connection.sendmsg([request], streams)
connection.recv(16)
status = int(connection.recv(16) or 70)
posix._exit(status if status >= 0 else 128 - status)
"""
"""A program that imports next to nothing, and is `python WORDS` for its caller. What kills it also
kills the forked process."""


class Forked:
    """A process of a fork server, with what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        args: tuple[str, ...],
        pid: int,
        connection: socket.socket,
        streams: Mapping[str, IO[str]],
    ) -> None:
        self.args, self.pid, self._connection = args, pid, connection
        self.returncode: int | None = None
        self.stdin, self.stdout, self.stderr = map(streams.get, ("stdin", "stdout", "stderr"))

    def fileno(self) -> int:
        """A descriptor that can be read once it has ended, until somebody has waited for that."""
        return self._connection.fileno()

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
            if not wait([self._connection], timeout):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            with self._connection:
                answer = self._connection.recv(16)
            # A server that was killed says nothing, and its processes end, too.
            self.returncode = int(answer) if answer else -signal.SIGKILL
        return self.returncode

    def communicate(self, text: str = "", timeout: float | None = None) -> tuple[str, str]:
        """Write to stdin and close it, wait for the end, and return what stdout and stderr had.

        Raises:
            subprocess.TimeoutExpired: It has not ended, or not closed its streams, after so many
                seconds. The streams cannot be used again.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        texts = {"stdout": "", "stderr": ""}

        def read(name: str, stream: IO[str]) -> None:
            with stream:
                texts[name] = stream.read()

        def write(stream: IO[str]) -> None:
            with contextlib.suppress(BrokenPipeError), stream:
                stream.write(text)

        threads = []
        if self.stdin is not None and not self.stdin.closed:
            threads.append(threading.Thread(target=write, args=(self.stdin,), daemon=True))
        for name, stream in (("stdout", self.stdout), ("stderr", self.stderr)):
            if stream is not None and not stream.closed:
                threads.append(threading.Thread(target=read, args=(name, stream), daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return texts["stdout"], texts["stderr"]

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
        finalizes: Whether a process frees its memory at its end, so that Python reports what is
            still open. That takes longer than most short programs.
    """

    def __init__(
        self,
        *modules: str,
        options: tuple[str, ...] = (),
        cwd: Path = ROOT,
        finalizes: bool = True,
    ) -> None:
        self._started: list[Forked] = []
        self._path = os.path.join(tempfile.mkdtemp(prefix="forks-"), "socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(self._path)
            listener.listen(64)
            words = [str(listener.fileno()), str(int(finalizes)), *modules]
            self._process = subprocess.Popen(
                [sys.executable, *options, "-m", "tests.support.forkserver", *words],
                stdin=subprocess.PIPE,
                cwd=cwd,
                env={**os.environ, ROOM: "x" * ROOM_BYTES},
                pass_fds=[listener.fileno()],
            )

    def start(
        self,
        *words: str,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        new_session: bool = False,
    ) -> Forked:
        """Start `python WORDS`; the first word is `-m`, `-c` or a script.

        Args:
            words: What follows `python` on a command line.
            stdin: A file descriptor, or subprocess.PIPE; None: nothing can be read.
            stdout: A file descriptor, or subprocess.PIPE; None: that of this process.
            stderr: A file descriptor, or subprocess.PIPE; None: that of this process.
            environment: All its variables; None: those of this process.
            cwd: Its working directory; None: that of the server.
            new_session: Whether it leads a session and a process group of its own.
        """
        variables = os.environ if environment is None else environment
        encoded = {os.fsencode(name): os.fsencode(value) for name, value in variables.items()}
        directory = None if cwd is None else str(cwd)
        request = marshal.dumps((words, encoded, directory, new_session))
        files: dict[str, IO[str]] = {}
        with contextlib.ExitStack() as cleanup:

            def opened(descriptor: int) -> int:
                cleanup.callback(os.close, descriptor)
                return descriptor

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
            if stderr == subprocess.PIPE:
                end, stderr = os.pipe()
                files["stderr"] = os.fdopen(end)
                opened(stderr)
            streams = [stdin, 1 if stdout is None else stdout, 2 if stderr is None else stderr]
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            closing = cleanup.enter_context(contextlib.ExitStack())
            closing.enter_context(connection)
            connection.settimeout(START_TIMEOUT)
            connection.connect(self._path)
            socket.send_fds(connection, [request], streams)
            answer = connection.recv(16)
            if not answer:
                raise RuntimeError("the fork server has ended")
            closing.pop_all()
        connection.settimeout(None)
        forked = Forked(words, int(answer), connection, files)
        self._started.append(forked)
        return forked

    def client(self, *words: str) -> list[str]:
        """Return a command for a shell that does what `python WORDS` does, in a forked process."""
        return [sys.executable, "-I", "-S", "-c", CLIENT, self._path, *words]

    def close(self) -> None:
        """End it, and what it started."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        for forked in self._started:
            forked.wait()

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Server:
    """The server itself."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._children: dict[socket.socket, tuple[int, int]] = {}
        """The process of each connection, and a descriptor that can be read once it has ended."""

    def serve(self) -> list[str] | None:
        """Fork for each request. Return the words of a command in a child, and None in the server
        when it is to end."""
        while True:
            ended = {descriptor for _, descriptor in self._children.values()}
            ready = wait([0, self._listener, *self._children, *ended])
            for connection, (_, descriptor) in list(self._children.items()):
                if connection in ready or descriptor in ready:
                    self._end(connection)
            if 0 in ready:
                for connection in list(self._children):
                    self._end(connection)
                path = self._listener.getsockname()
                os.unlink(path)
                os.rmdir(os.path.dirname(path))
                return None
            if self._listener in ready and (words := self._fork()) is not None:
                return words

    def _fork(self) -> list[str] | None:
        """Start a process for the next connection, and return its words in that process only."""
        connection, _ = self._listener.accept()
        request, streams, _, _ = socket.recv_fds(connection, REQUEST_BYTES, 3)
        if not request:
            connection.close()
            return None
        pid = os.fork()
        if pid == 0:
            connection.close()
            return self._become(marshal.loads(request), streams)
        for stream in streams:
            os.close(stream)
        self._children[connection] = pid, os.pidfd_open(pid)
        with contextlib.suppress(OSError):  # the next turn sees that nobody waits
            connection.send(str(pid).encode())
        return None

    def _end(self, connection: socket.socket) -> None:
        """Kill the process of a connection if it has not ended, and send its exit status."""
        pid, descriptor = self._children.pop(connection)
        if not wait([descriptor], 0):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(descriptor)
        with connection, contextlib.suppress(OSError):  # nobody may wait for it
            connection.send(str(os.waitstatus_to_exitcode(status)).encode())

    def _become(self, request: Any, streams: list[int]) -> list[str]:
        """Make this process what the request describes."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._listener.close()
        for connection, (_, descriptor) in self._children.items():
            connection.close()
            os.close(descriptor)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        words, environment, cwd, new_session = request
        os.environb.clear()
        os.environb.update(environment)
        _show(environment)
        if cwd is not None:
            os.chdir(cwd)
        if new_session:
            os.setsid()
        return list(words)


def _show(environment: Mapping[bytes, bytes]) -> None:
    """Let /proc/PID/environ show these variables.

    The kernel shows the memory where the variables of the server were at its start. Nothing uses
    that memory once they are removed: libc copies each variable that is set later.
    """
    first, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[47:49])
    text = b"".join(b"%s=%s\0" % pair for pair in environment.items())
    if len(text) > end - first:
        raise ValueError(f"the environment has {len(text)} bytes: there is room for {end - first}")
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(first)
        memory.write(text.ljust(end - first, b"\0"))


def _run(words: list[str]) -> None:
    """Do what `python WORDS` does."""
    sys.argv = words[1:] if words[0] == "-m" else words
    if words[0] == "-m":
        sys.path[0] = os.getcwd()
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.path[0] = ""
        sys.argv = ["-c", *words[2:]]
        program = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), program.__dict__)
    else:
        sys.path[0] = str(Path(words[0]).resolve().parent)
        runpy.run_path(words[0], run_name="__main__")


def _run_and_leave_memory(words: list[str]) -> NoReturn:
    """Do what `python WORDS` does, and end as the interpreter does without freeing its memory."""
    status: object = None
    try:
        _run(words)
    except SystemExit as err:
        status = err.code
        if status is not None and not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(int(status or 0))  # type: ignore[call-overload]


def _main(listener: int, finalizes: bool, modules: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: who started it decides what ends
    for name in modules:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a fork would have no copy of the other threads"
    gc.collect()
    gc.freeze()  # else the collector would copy the memory that all processes share
    with socket.socket(fileno=listener) as server_socket:
        words = _Server(server_socket).serve()
    if words is not None and finalizes:
        _run(words)
    elif words is not None:
        _run_and_leave_memory(words)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2] == "1", sys.argv[3:])
