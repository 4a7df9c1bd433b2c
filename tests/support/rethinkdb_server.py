"""Throw-away RethinkDB servers on loopback, each in a temporary directory of its own, ended by
their process ids."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

BINARY = "rethinkdb"
START_TIMEOUT = 30.0


def available() -> bool:
    """Whether a server can be started here."""
    return shutil.which(BINARY) is not None


def _stands_still(pid: int) -> bool:
    """Whether all its threads have stopped: a signal takes its time, in which one may still answer
    a query."""
    states = []
    for file in Path(f"/proc/{pid}/task").glob("*/stat"):  # none on other systems than Linux
        with contextlib.suppress(OSError):  # a thread that ended meanwhile
            states.append(file.read_text().rpartition(")")[2].split()[0])
    return all(state in "TtZX" for state in states)


@contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Ports that nobody listens on; all are held together for a moment, so that they differ."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", 0))
        yield [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


class Server:
    """One node. `options` are added to its command line; `join` are the cluster ports of others."""

    host = "127.0.0.1"

    def __init__(self, *options: str, name: str = "one", join: Sequence[int] = ()) -> None:
        self.name, self._options, self._join = name, options, tuple(join)
        self._dir = Path(tempfile.mkdtemp(prefix="coord-rethinkdb-"))
        with free_ports(2) as ports:
            self.port, self.cluster_port = ports
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def started(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def log(self) -> str:
        """What it said, for failed tests."""
        return (self._dir / "output").read_text(errors="replace")

    def url(self, database: str = "coord", who: str = "", options: str = "") -> str:
        """`who` is `user:password@`, `options` is `?…`."""
        return f"rethinkdb://{who}{self.address}/{database}{options}"

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.discard()

    def start(self, wait: bool = True) -> Server:
        """Start it, again on its old data and ports if it ran before, and wait until it answers."""
        assert self._process is None, "it runs already"
        command = [
            BINARY,
            "--directory",
            str(self._dir / "data"),
            "--server-name",
            self.name,
            "--bind",
            self.host,
        ]
        command += ["--driver-port", str(self.port), "--cluster-port", str(self.cluster_port)]
        command += ["--no-http-admin", "--no-update-check", "--cache-size", "64", *self._options]
        for port in self._join:
            command += ["--join", f"{self.host}:{port}"]
        with (self._dir / "output").open("ab") as output:
            # In a session of its own: a Ctrl-C at the tests reaches them first, and they end it.
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        if wait:
            self.wait_until_up()
        return self

    def wait_until_up(self) -> None:
        until = time.monotonic() + START_TIMEOUT
        while time.monotonic() < until:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(
                    f"rethinkdb ended with {self._process.returncode}:\n{self.log[-2000:]}"
                )
            with socket.socket() as probe:
                if probe.connect_ex((self.host, self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError(
            f"rethinkdb does not listen after {START_TIMEOUT} s:\n{self.log[-2000:]}"
        )

    def stop(self) -> None:
        """End it as an operator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power failure would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        until = time.monotonic() + 5
        while not _stands_still(self.pid) and time.monotonic() < until:
            time.sleep(0.001)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def discard(self) -> None:
        """End it, whatever its state, and remove its data."""
        self.kill()
        shutil.rmtree(self._dir, ignore_errors=True)

    def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(sign)
            if sign != signal.SIGKILL:
                # A frozen process acts on this signal only once it runs again. SIGKILL needs no
                # such thing, and a moment of running would answer the queries on their way.
                process.send_signal(signal.SIGCONT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


class Cluster:
    """Several nodes, each of which knows all the others."""

    def __init__(self, size: int = 3) -> None:
        self.nodes: list[Server] = []
        for number in range(size):
            self.nodes.append(
                Server(name=f"node{number}", join=[one.cluster_port for one in self.nodes])
            )

    def __enter__(self) -> Cluster:
        try:
            for node in self.nodes:
                node.start()
        except BaseException:
            self.discard()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.discard()

    def url(self, database: str = "coord", options: str = "") -> str:
        return f"rethinkdb://{','.join(node.address for node in self.nodes)}/{database}{options}"

    def discard(self) -> None:
        for node in self.nodes:
            node.discard()


class Authority:
    """A certificate authority for one test, and certificates by it. Needs the openssl command."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._dir, self._name = directory, name
        self.ca_certs = str(directory / f"{name}.pem")
        self._openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",  # Python 3.13 looks for it
            "-keyout", self._file("key"), "-out", self.ca_certs,
        )  # fmt: skip

    def server_options(self, host: str = "127.0.0.1") -> list[str]:
        """Options that make a server speak TLS alone to its clients, as `host`."""
        extensions = self._dir / f"{self._name}.ext"
        extensions.write_text(f"subjectAltName=IP:{host}\n")
        key, request, certificate = (
            self._file("server.key"),
            self._file("server.csr"),
            self._file("server.pem"),
        )
        self._openssl(
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            f"/CN={host}",
            "-keyout",
            key,
            "-out",
            request,
        )
        self._openssl(
            "x509", "-req", "-in", request, "-CA", self.ca_certs, "-CAkey", self._file("key"), "-CAcreateserial",
            "-days", "2", "-extfile", str(extensions), "-out", certificate,
        )  # fmt: skip
        return ["--driver-tls-key", key, "--driver-tls-cert", certificate]

    def _file(self, kind: str) -> str:
        return str(self._dir / f"{self._name}.{kind}")

    @staticmethod
    def _openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
