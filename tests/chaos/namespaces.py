"""Network namespaces: each server of a cluster behind two links of its own, one to its clients and
one to the other servers, of which the second can be cut.

All of it is inside a network namespace that the run itself enters. It has nothing but loopback, it
cannot be seen from outside, and it disappears with the processes of the run.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence

CLONE_NEWNET = 0x40000000
CLIENTS, PEERS = "10.77.1", "10.77.2"
"""The first three numbers of the addresses on the two networks."""


@functools.cache
def available() -> bool:
    """Whether network namespaces can be created here, and connected."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nsenter", "unshare"))):
        return False
    trial = ["unshare", "-n", "ip", "link", "add", "peers", "type", "bridge"]
    return subprocess.run(trial, capture_output=True, timeout=30, check=False).returncode == 0


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


class Space:
    """The network namespace of one server."""

    def __init__(self, number: int) -> None:
        self.client_host, self.peer_host = f"{CLIENTS}.{number + 10}", f"{PEERS}.{number + 10}"
        self._peer_link = f"peer{number}"
        self._holder = subprocess.Popen(
            ["unshare", "-n", "sleep", "infinity"], stdin=subprocess.DEVNULL, start_new_session=True
        )
        self.command: Sequence[str] = ("nsenter", "-t", str(self._holder.pid), "-n")
        self._wait_until_apart()
        for link, bridge, host in (
            (f"client{number}", "clients", self.client_host),
            (self._peer_link, "peers", self.peer_host),
        ):
            _ip("link", "add", link, "type", "veth", "peer", "name", f"{link}in")
            _ip("link", "set", f"{link}in", "netns", str(self._holder.pid))
            _ip("link", "set", link, "master", bridge, "up")
            self._inside("ip", "addr", "add", f"{host}/24", "dev", f"{link}in")
            self._inside("ip", "link", "set", f"{link}in", "up")
        self._inside("ip", "link", "set", "lo", "up")

    def cut_off(self, silently: bool) -> None:
        """Separate the server from the other servers: silently, packets disappear; otherwise its
        link goes down, which it notices."""
        if silently:
            _ip("link", "set", self._peer_link, "nomaster")
        else:
            _ip("link", "set", self._peer_link, "down")

    def join(self) -> None:
        """Put the link back."""
        _ip("link", "set", self._peer_link, "master", "peers", "up")

    def close(self) -> None:
        os.killpg(self._holder.pid, signal.SIGKILL)
        self._holder.wait()

    def _inside(self, *words: str) -> None:
        command = [*self.command, *words]
        subprocess.run(command, check=True, capture_output=True, timeout=30)

    def _wait_until_apart(self) -> None:
        namespace = os.readlink("/proc/self/ns/net")
        while self._holder.poll() is None:
            if os.readlink(f"/proc/{self._holder.pid}/ns/net") != namespace:
                return
        raise RuntimeError("no network namespace could be created")


class Namespaces:
    """The namespaces of the servers of one run."""

    entered = False
    """Whether this process is in a network namespace of its own."""

    @classmethod
    def enter(cls) -> bool:
        """Move this process, which has one thread, into a network namespace of its own.

        Returns:
            False if that is not allowed, or a tool is missing: nothing changed then.
        """
        if not available():
            return False
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
            return False
        _ip("link", "set", "lo", "up")
        for bridge, network in (("clients", CLIENTS), ("peers", PEERS)):
            _ip("link", "add", bridge, "type", "bridge")
            _ip("addr", "add", f"{network}.1/24", "dev", bridge)
            _ip("link", "set", bridge, "up")
        cls.entered = True
        return True

    def __init__(self, count: int) -> None:
        self.all = [Space(number) for number in range(count)]

    def close(self) -> None:
        """End the processes that hold the namespaces."""
        for space in self.all:
            space.close()
