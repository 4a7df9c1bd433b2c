"""Throw-away etcd clusters on loopback, each in a temporary directory of its own, ended by their
process ids."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.server_process import ServerProcess, free_ports

BINARY = "etcd"
START_TIMEOUT = 60.0


def available() -> bool:
    """Whether a cluster can be started here."""
    return shutil.which(BINARY) is not None


class Member(ServerProcess):
    """One member of a cluster; a cluster of its own unless `peers` names others.

    With `tls`, which is how an operator connects, it speaks TLS alone to its clients.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        name: str = "one",
        options: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__()
        self.tls = tls
        self.name, self._options = name, tuple(options)
        self.peer_host, self._launcher = self.host, tuple[str, ...]()
        self.directory = Path(tempfile.mkdtemp(prefix="coord-etcd-"))
        with free_ports(2) as ports:
            self.port, self.peer_port = ports
        self.initial_cluster = f"{name}={self.peer_url}"

    def place(self, host: str, peer_host: str, launcher: Sequence[str]) -> None:
        """Run it at other addresses, for clients and for members, by a command that starts it
        there."""
        self.host, self.peer_host, self._launcher = host, peer_host, tuple(launcher)

    @property
    def client_url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    @property
    def peer_url(self) -> str:
        return f"http://{self.peer_host}:{self.peer_port}"

    def url(self, namespace: str = "default", who: str = "", options: str = "") -> str:
        """`who` is `user:password@`, `options` is `&option=value…`."""
        return f"etcd://{who}{self.host}:{self.port}?namespace={namespace}{options}"

    def __enter__(self) -> Member:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.discard()

    def start(self, wait: bool = True) -> Member:
        """Start it, again on its old data and ports if it ran before, and wait until it answers."""
        command = [
            *self._launcher,
            BINARY,
            "--name",
            self.name,
            "--data-dir",
            str(self.directory / "data"),
        ]
        command += ["--listen-client-urls", self.client_url]
        command += ["--advertise-client-urls", self.client_url]
        command += ["--listen-peer-urls", self.peer_url]
        command += ["--initial-advertise-peer-urls", self.peer_url]
        command += ["--initial-cluster", self.initial_cluster]
        command += ["--initial-cluster-state", "new", "--initial-cluster-token", "coord"]
        command += ["--log-level", "error", *self._options]
        # One thread for the goroutines, else threads wake each other up for each small request.
        environment = {**os.environ, "GOMAXPROCS": "1"}
        self.run(command, self.directory / "output", env=environment)
        if wait:
            self.wait_until_up()
        return self

    def wait_until_up(self) -> None:
        """Wait until it answers a read, for which it needs the cluster's quorum."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            self.check_it_runs()
            try:
                request = urllib.request.Request(
                    f"{self.client_url}/v3/kv/range", data=json.dumps({"key": "YQ=="}).encode()
                )
                with urllib.request.urlopen(request, timeout=2, context=self.tls):
                    return
            except urllib.error.HTTPError as err:
                with err:  # with authentication enabled, a read without a user is refused
                    if b"user name is empty" in err.read():
                        return
                time.sleep(0.05)
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"etcd does not answer after {START_TIMEOUT} s:\n{self.log[-2000:]}")

    def restart(self) -> None:
        self.stop()
        self.start()

    def discard(self) -> None:
        """End it, whatever its state, and remove its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class Cluster:
    """Several members, each of which knows all the others."""

    def __init__(self, size: int = 3) -> None:
        self.members = [Member(f"m{number}") for number in range(size)]
        together = ",".join(f"{member.name}={member.peer_url}" for member in self.members)
        for member in self.members:
            member.initial_cluster = together

    def url(self, namespace: str = "default", options: str = "") -> str:
        hosts = ",".join(f"{member.host}:{member.port}" for member in self.members)
        return f"etcd://{hosts}?namespace={namespace}{options}"

    def __enter__(self) -> Cluster:
        try:
            for member in self.members:
                member.start(wait=False)
            for member in self.members:
                member.wait_until_up()
        except BaseException:
            self.discard()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.discard()

    def discard(self) -> None:
        """End all members and remove their data."""
        for member in self.members:
            member.discard()


def request(member: Member, path: str, token: str = "", **body: object) -> dict[str, Any]:
    """Send a request to the JSON gateway, as an operator; `token` is that of a log-in."""
    headers = {"Authorization": token} if token else {}
    data = json.dumps(body).encode()
    sent = urllib.request.Request(f"{member.client_url}/v3/{path}", data, headers)
    with urllib.request.urlopen(sent, timeout=20, context=member.tls) as answer:
        reply: dict[str, Any] = json.loads(answer.read())
    return reply
