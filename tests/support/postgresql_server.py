"""Throw-away PostgreSQL servers on loopback, each in a temporary directory of its own, ended by
their process ids. The server refuses to run as root, so there it runs as another user."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.server_process import free_ports, reaper, stands_still

START_TIMEOUT = 120.0
SHARED = "COORD_TEST_POSTGRESQL_FILES"
"""The variable that names the directory of `shared_files`."""
USERS = ("postgres", "nobody")
"""Who runs the server when the tests run as root."""


def binary(name: str = "postgres") -> str | None:
    """Return the path of a program of the server; None if it is not here."""
    # Debian keeps them out of PATH, and puts wrappers there that do not run everything.
    binaries = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    return binaries[-1] if binaries else shutil.which(name)


def available() -> bool:
    """Whether a server can be started, and coord can reach it."""
    return binary("initdb") is not None and importlib.util.find_spec("asyncpg") is not None


def unprivileged() -> dict[str, Any]:
    """Return the arguments of Popen by which a program does not run as root."""
    if os.geteuid() != 0:
        return {}
    for name in USERS:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    return {}


@contextlib.contextmanager
def shared_files() -> Iterator[None]:
    """Let all servers of this process, and of those that it starts, begin with the files of the
    first: initdb takes a second of processor time."""
    if SHARED in os.environ:
        yield
        return
    directory = tempfile.mkdtemp(prefix="coord-postgresql-files-")
    if user := unprivileged():
        os.chown(directory, user["user"], user["group"])
    os.environ[SHARED] = directory
    try:
        yield
    finally:
        del os.environ[SHARED]
        shutil.rmtree(directory, ignore_errors=True)


class Server:
    """One server with the superuser `postgres`, which has no password on loopback.

    `settings` are added to its command line, as `name=value`.
    """

    host = "127.0.0.1"

    def __init__(self, *settings: str) -> None:
        self._settings = settings
        self.directory = Path(tempfile.mkdtemp(prefix="coord-postgresql-"))
        self.data = self.directory / "data"
        self._as = unprivileged()
        if self._as:
            os.chown(self.directory, self._as["user"], self._as["group"])
        with free_ports(1) as ports:
            (self.port,) = ports
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return (self.directory / "output").read_text(errors="replace")

    def url(self, database: str = "postgres", who: str = "postgres", options: str = "") -> str:
        """`who` is `user` or `user:password`, `options` is `?…`."""
        return f"postgresql://{who}@{self.host}:{self.port}/{database}{options}"

    def __enter__(self) -> Server:
        self.create()
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.discard()

    def create(self) -> None:
        """Create the files of the server, or copy those that an earlier one of this run began with."""
        if (shared := os.environ.get(SHARED)) is None:
            self._initdb()
            return
        pristine, unfinished = Path(shared) / "data", Path(shared) / "unfinished"
        with (Path(shared) / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not pristine.exists():
                self._initdb()
                self.run("cp", "-a", str(self.data), str(unfinished))
                unfinished.rename(pristine)
                return
        self.run("cp", "-a", str(pristine), str(self.data))

    def _initdb(self) -> None:
        initdb = binary("initdb")
        assert initdb is not None
        self.run(
            initdb,
            "-D",
            str(self.data),
            "-U",
            "postgres",
            "--auth=trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--wal-segsize=1",  # megabytes: each server copies these files
        )

    def run(self, *command: str) -> None:
        """Run a program of PostgreSQL as the user who runs the server."""
        environ = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(self.directory)}
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=environ,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT,
            check=False,
            **self._as,
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> Server:
        """Start it, again on its old data and port if it ran before; wait until it answers."""
        assert self._process is None, "it runs already"
        postgres = binary()
        assert postgres is not None
        settings = [
            f"port={self.port}",
            f"listen_addresses={self.host}",
            f"unix_socket_directories={self.directory}",
            "shared_buffers=16MB",
            "dynamic_shared_memory_type=mmap",  # in its directory: /dev/shm keeps what was killed
            *self._settings,
        ]
        command = [postgres, "-D", str(self.data)]
        for setting in settings:
            command += ["-c", setting]
        with (self.directory / "output").open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self.directory,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                **self._as,
            )
        reaper.started(self.pid)
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"it ended with {self._process.returncode}:\n{self.log[-2000:]}")
            if self._answers():
                return self
            time.sleep(0.05)
        raise RuntimeError(f"it does not answer after {START_TIMEOUT} s:\n{self.log[-2000:]}")

    def _answers(self) -> bool:
        """Whether a log-in succeeds. The greeting is the shortest that the protocol knows."""
        body = b"\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00"
        try:
            with socket.create_connection((self.host, self.port), 1) as probe:
                probe.settimeout(5)
                probe.sendall((len(body) + 4).to_bytes(4, "big") + body)
                return probe.recv(1) == b"R"
        except OSError:
            return False

    def remove_data(self) -> None:
        """Remove the files of the server, which does not run."""
        assert self._process is None, "it runs"
        shutil.rmtree(self.data, ignore_errors=True)

    def stop(self) -> None:
        """End it as an operator would, without waiting for its clients."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it, and all its processes, as a failing machine would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def _group(self) -> list[int]:
        """The server and its child processes, each of which has a session of its own."""
        pids = [self.pid]
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError):
                fields = (directory / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == self.pid:
                    pids.append(int(directory.name))
        return pids

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        for pid in self._group():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        deadline = time.monotonic() + 5
        while not all(map(stands_still, self._group())) and time.monotonic() < deadline:
            time.sleep(0.001)

    def thaw(self) -> None:
        for pid in self._group():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def discard(self) -> None:
        """End it, whatever its state, and remove its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, sign: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            # All at once: a process that outlives the first would go on with its work.
            targets = self._group() if sign == signal.SIGKILL else [process.pid]
            for pid in targets:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sign)
            if sign != signal.SIGKILL:
                self.thaw()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
        reaper.ended(process.pid)
        self._process = None
