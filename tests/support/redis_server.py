"""Throw-away Redis servers on loopback, each in a temporary directory of its own, ended by their
process ids."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
import time
from pathlib import Path

from coord.stores.redis import RedisStore, admin, parse_url
from tests.support.server_process import ServerProcess, free_ports

BINARIES = ("redis-server", "valkey-server")
START_TIMEOUT = 30.0


def binary() -> str | None:
    """Return the server to start; None if there is none here."""
    return next((path for name in BINARIES if (path := shutil.which(name))), None)


class Server(ServerProcess):
    """One server, which keeps what it acknowledged unless the options say otherwise.

    `options` are added to its command line.
    """

    host = "127.0.0.1"

    def __init__(self, *options: str) -> None:
        self._options = options
        self.directory = Path(tempfile.mkdtemp(prefix="coord-redis-"))
        with free_ports(1) as ports:
            (self.port,) = ports
        super().__init__()

    def url(self, namespace: str = "default", who: str = "", options: str = "") -> str:
        """`who` is `user:password@`, `options` is `&option=value…`."""
        return f"redis://{who}{self.host}:{self.port}/0?namespace={namespace}{options}"

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.discard()

    def start(self, *options: str) -> Server:
        """Start it, again on its old data and port if it ran before; wait until it answers."""
        program = binary()
        assert program is not None
        settings = ["--port", str(self.port), "--bind", self.host, "--dir", str(self.directory)]
        settings += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self.run([program, *settings, *self._options, *options], self.directory / "output")
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            self.check_it_runs()
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

    def restart(self) -> None:
        self.stop()
        self.start()

    def discard(self) -> None:
        """End it, whatever its state, and remove its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class Sentinel(ServerProcess):
    """One sentinel, which decides alone: it knows the primary as `billing`."""

    host = "127.0.0.1"

    def __init__(self, primary: Server, directory: Path, down_after: float = 0.5) -> None:
        """`down_after`: seconds of silence after which the primary counts as gone."""
        super().__init__()
        self._directory = directory
        with free_ports(1) as ports:
            (self.port,) = ports
        self._settings = [
            f"port {self.port}",
            f"bind {self.host}",
            f"dir {directory}",
            f"sentinel monitor billing {primary.host} {primary.port} 1",
            f"sentinel down-after-milliseconds billing {round(1000 * down_after)}",
            "sentinel failover-timeout billing 2000",
        ]

    def start(self) -> Sentinel:
        file = self._directory / "sentinel.conf"
        file.write_text("\n".join(self._settings) + "\n")
        self.run(["redis-sentinel", str(file)], self._directory / "sentinel.log")
        self.wait_until_it_listens(self.host, self.port, 20)
        return self


def set_up(url: str, longest_ttl: float = 0.0) -> str:
    """Create a namespace, as if leases of up to `longest_ttl` seconds had been used in it for long.

    A greater ttl than any before is refused for two seconds.
    """

    async def create() -> None:
        await admin(url).setup({}, 10)
        store = RedisStore(url)
        try:
            microseconds = round(longest_ttl * 1e6)
            key = f"{parse_url(url).prefix}meta"
            words = ("longest", microseconds, "settled", microseconds)
            await store.client.command(10, "HSET", key, *words)
        finally:
            await store.close()

    asyncio.run(create())
    return url
