"""Throw-away RethinkDB servers on loopback, each in a temporary directory of its own, ended by
their process ids."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

from coord.stores.rethinkdb.driver import reql
from coord.stores.rethinkdb.pool import Pool
from coord.stores.rethinkdb.url import parse_url
from tests.support.certificates import Authority
from tests.support.scratch import directory_on_disk
from tests.support.server_process import ServerProcess, free_ports

BINARY = "rethinkdb"
IN_USE = "perhaps another instance of rethinkdb is using it."
START_TIMEOUT = 30.0
SMALL_CACHE = 64
"""Megabytes. Many servers run in the tests, and most of them hold a few rows."""


def available() -> bool:
    """Whether a server can be started here."""
    return shutil.which(BINARY) is not None


class Server(ServerProcess):
    """One node. `options` are added to its command line; `join` are the cluster ports of others.

    `cache` is the size of its cache in megabytes, or `auto`, the server's own choice. Its files are
    on a disk: in memory they are written so soon that a killed server loses nothing, and that
    requests which overlap on a disk come one after the other.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        *options: str,
        name: str = "one",
        join: Sequence[int] = (),
        cache: int | Literal["auto"] = SMALL_CACHE,
    ) -> None:
        self.name, self._options, self._join = name, options, tuple(join)
        self._cache = cache
        self._dir = Path(tempfile.mkdtemp(prefix="coord-rethinkdb-", dir=directory_on_disk()))
        self._bind, self._launcher = self.host, tuple[str, ...]()
        with free_ports(2) as ports:
            self.port, self.cluster_port = ports
        super().__init__()

    def place(self, host: str, launcher: Sequence[str], *options: str) -> None:
        """Run it where `launcher` starts it, on all addresses there; clients reach it at `host`.

        `options` are added to its command line.
        """
        self.host, self._bind, self._launcher = host, "all", tuple(launcher)
        self._options = (*self._options, *options)

    @property
    def started(self) -> bool:
        return self._process is not None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def url(self, database: str = "coord", who: str = "", options: str = "") -> str:
        """`who` is `user:password@`, `options` is `?…`."""
        return f"rethinkdb://{who}{self.address}/{database}{options}"

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.discard()

    def start(self, wait: bool = True) -> Server:
        """Start it, again on its old data and ports if it ran before, and wait until it answers."""
        command = [
            *self._launcher,
            BINARY,
            "--directory",
            str(self._dir / "data"),
            "--server-name",
            self.name,
            "--bind",
            self._bind,
        ]
        command += ["--driver-port", str(self.port), "--cluster-port", str(self.cluster_port)]
        command += ["--no-http-admin", "--no-update-check", *self._options]
        command += ["--cache-size", str(self._cache)]
        for port in self._join:
            command += ["--join", f"{self.host}:{port}"]
        for last in (False, False, True):
            self.run(command, self._dir / "output")
            if not wait:
                break
            try:
                self.wait_until_up()
            except RuntimeError:
                # A helper process of a server that was killed may hold the directory a moment
                # longer.
                if last or not self.log.rstrip().endswith(IN_USE):
                    raise
                self.kill()
                time.sleep(1)
            else:
                break
        return self

    def wait_until_up(self, timeout: float = START_TIMEOUT) -> None:
        self.wait_until_it_listens(self.host, self.port, timeout)

    def restart(self) -> None:
        self.stop()
        self.start()

    def discard(self) -> None:
        """End it, whatever its state, and remove its data."""
        self.kill()
        shutil.rmtree(self._dir, ignore_errors=True)


class Cluster:
    """Several nodes, each of which knows all the others."""

    def __init__(self, size: int = 3) -> None:
        self.nodes: list[Server] = []
        for number in range(size):
            self.nodes.append(
                Server(name=f"node{number}", join=[node.cluster_port for node in self.nodes])
            )

    def __enter__(self) -> Cluster:
        try:
            for node in self.nodes:
                node.start()
            for node in self.nodes:
                self._wait_until_it_sees_all(node)
        except BaseException:
            self.discard()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.discard()

    def _wait_until_it_sees_all(self, node: Server) -> None:
        """Wait until a node is connected to all others, so that tables get a replica on each."""

        async def count() -> int:
            pool = Pool(parse_url(node.url()))
            try:
                status = reql().db("rethinkdb").table("server_status")
                return cast(int, await pool.run(status.count(), START_TIMEOUT))
            finally:
                await pool.close()

        deadline = time.monotonic() + START_TIMEOUT
        while (nodes := asyncio.run(count())) < len(self.nodes):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{node.name} sees {nodes} of {len(self.nodes)} nodes")
            time.sleep(0.05)

    def url(self, database: str = "coord", options: str = "") -> str:
        return f"rethinkdb://{','.join(node.address for node in self.nodes)}/{database}{options}"

    def discard(self) -> None:
        for node in self.nodes:
            node.discard()


def tls_options(authority: Authority) -> list[str]:
    """Options that make a server speak TLS alone to its clients."""
    certificate = authority.server()
    return ["--driver-tls-key", certificate.key, "--driver-tls-cert", certificate.cert]
