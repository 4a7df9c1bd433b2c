"""Worker processes that are started, killed and frozen, and what they hold by the store."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from coord import Coordinator, Lease
from coord.recipes.membership import member_of
from tests.recipes.resource import FencedResource
from tests.support.forkserver import Forked, ForkServer

PATIENCE = 90.0
"""Seconds. A busy machine may need them; what is promised is measured, and printed."""


class Workers:
    """Some processes, one store and one resource."""

    def __init__(
        self, kind: str, url: str, resource: FencedResource, ttl: float, number: int
    ) -> None:
        self.kind, self.url, self.resource = kind, url, resource
        self.ttl, self.number = ttl, number
        self.coordinator = Coordinator(url)
        stores = f"coord.stores.{url.partition(':')[0]}"
        self._python = ForkServer("coord.api.coordinator", stores, "tests.recipes.resource")
        self.processes: list[Forked] = []

    def start(self, count: int = 1) -> None:
        for _ in range(count):
            arguments = (self.kind, self.url, self.resource.path, str(self.ttl), str(self.number))
            self.processes.append(
                self._python.start(
                    "-m",
                    "tests.recipes.worker",
                    *arguments,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
        for process in self.processes[-count:]:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

    def kill(self, process: Forked) -> None:
        process.kill()
        self._forget(process)

    def leave(self, process: Forked) -> None:
        """End it as a program ends: it stops its work and gives everything back."""
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
        self._forget(process)

    def freeze(self, process: Forked) -> None:
        process.send_signal(signal.SIGSTOP)

    def thaw(self, process: Forked) -> None:
        process.send_signal(signal.SIGCONT)

    def _forget(self, process: Forked) -> None:
        process.wait(PATIENCE)
        self.processes.remove(process)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def leases(self) -> list[Lease]:
        return [lease for lease in self.coordinator.leaders() if lease.role.startswith("ingest")]

    def owners(self) -> dict[str, tuple[str | None, int]]:
        """Who leads each role, and under which token."""
        return {lease.role: (member_of(lease.holder), lease.token) for lease in self.leases()}

    def counts(self) -> list[int]:
        return sorted(Counter(owner for owner, _ in self.owners().values()).values())

    def until(self, what: Callable[[], bool], seconds: float = PATIENCE) -> float:
        """Wait until it holds, and return after how many seconds it did."""
        began = time.monotonic()
        while not what():
            assert time.monotonic() - began < seconds, (self.counts(), len(self.leases()))
            time.sleep(0.02)
        return time.monotonic() - began

    def balanced(self) -> bool:
        """Whether the live processes hold all shards fairly, by the store."""
        counts = self.counts()
        fair = len(counts) == len(self.processes) and max(counts) - min(counts) <= 1
        return fair and sum(counts) == self.number

    def close(self) -> None:
        for process in list(self.processes):
            self.thaw(process)
            self.kill(process)
        self._python.close()
        self.coordinator.close()


@contextlib.contextmanager
def workers(kind: str, url: str, directory: Path, ttl: float, number: int) -> Iterator[Workers]:
    """Some processes, which are ended afterwards."""
    resource = FencedResource(directory / "resource")
    crew = Workers(kind, url, resource, ttl, number)
    try:
        yield crew
    finally:
        crew.close()
        resource.close()


def moved(
    before: dict[str, tuple[str | None, int]], after: dict[str, tuple[str | None, int]]
) -> int:
    """How many roles have another owner, or another term."""
    return sum(after.get(role) != owner for role, owner in before.items())
