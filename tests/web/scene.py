"""Roles to look at: candidates, terms and a service, behind a real `coord web`."""

from __future__ import annotations

import sys
from typing import Any

from coord import Coordinator, Leadership
from tests.support.running import Running
from tests.support.waits import WITHIN, eventually

EVIL = "</script><img src=x onerror=alert(1)>"


def command(*arguments: str) -> list[str]:
    """The command line of `coord web`."""
    return [sys.executable, "-W", "error", "-m", "coord", "web", *arguments]


def address(server: Running) -> str:
    """Where a `coord web` listens."""
    server.until(lambda it: bool(it.lines(" shows ")))
    return server.lines(" shows ")[0].split()[2]


class Scene:
    """A store with two roles, of which one has had two leaders and has a candidate that waits.

    Args:
        url: The URL of the store.
        server: A `coord web` for it.
    """

    def __init__(self, url: str, server: Running) -> None:
        self.page = address(server)
        self.c, self.other = Coordinator(url), Coordinator(url)
        old = self.lead("press", name="one", host="a.example", pid=2041)
        old.stop()
        self.lead("nightly", name="backup", host="d.example", pid=512, zone="b")
        self.leader = self.lead("press", name="two", host="b.example", pid=733, zone="b")
        info = {"name": "three", "host": "c.example", "pid": 9}
        self.waits = self.other.leadership("press", info=info)
        self.waits.start()
        service = {"id": "w1", "role": "web", "ttl": 600, "load": 0.5, "host": "a.example"}
        self.c.services.heartbeat(service)
        eventually(lambda: self.c.candidates("press"))

    def lead(self, role: str, **info: Any) -> Leadership:
        """Become the leader of a role."""
        lead = self.c.leadership(role, info=info)
        assert lead.acquire(timeout=WITHIN)
        return lead

    def close(self) -> None:
        """Give all roles back."""
        self.other.close()
        self.c.close()
