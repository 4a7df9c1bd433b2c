"""Throw-away Redis servers on loopback, each in a temporary directory of its own, ended by their
process ids."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from tests.support.rethinkdb_server import _stands_still, free_ports

BINARIES = ("redis-server", "valkey-server")
START_TIMEOUT = 30.0


def binary() -> str | None:
    """Return the server to start; None if there is none here."""
    return next((path for name in BINARIES if (path := shutil.which(name))), None)


class Server:
    """One server, which keeps what it acknowledged unless the options say otherwise.

    `options` are added to its command line.
    """

    host = "127.0.0.1"

    def __init__(self, *options: str) -> None:
        self._options = options
        self.directory = Path(tempfile.mkdtemp(prefix="coord-redis-"))
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

    def url(self, namespace: str = "default", who: str = "", options: str = "") -> str:
        """`who` is `user:password@`, `options` is `&option=value…`."""
        return f"redis://{who}{self.host}:{self.port}/0?namespace={namespace}{options}"

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.discard()

    def start(self, *options: str) -> Server:
        """Start it, again on its old data and port if it ran before; wait until it answers."""
        assert self._process is None, "it runs already"
        found = binary()
        assert found is not None
        settings = ["--port", str(self.port), "--bind", self.host, "--dir", str(self.directory)]
        settings += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        with (self.directory / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [found, *settings, *self._options, *options],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"it ended with {self._process.returncode}:\n{self.log[-2000:]}")
            if self._answers():
                return self
            time.sleep(0.02)
        raise RuntimeError(f"it does not answer after {START_TIMEOUT} s:\n{self.log[-2000:]}")

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), 1) as probe:
                probe.sendall(b"PING\r\n")
                # NOAUTH is an answer, too; LOADING is not.
                return probe.recv(64).startswith((b"+PONG", b"-NOAUTH", b"-DENIED"))
        except OSError:
            return False

    def stop(self) -> None:
        """End it as an operator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a failing process would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        deadline = time.monotonic() + 5
        while not _stands_still(self.pid) and time.monotonic() < deadline:
            time.sleep(0.001)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def discard(self) -> None:
        """End it, whatever its state, and remove its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(sign)
            if sign != signal.SIGKILL:
                process.send_signal(signal.SIGCONT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
