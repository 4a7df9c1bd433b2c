"""How long many roles take to get a leader: when a process starts, ends, or takes over from one
that was killed."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from types import TracebackType

from coord import Coordinator
from coord.runtime import clock
from tests.benchmarks.alone import alone
from tests.benchmarks.figures import Figure
from tests.benchmarks.page import Section
from tests.benchmarks.setting import Setting, spawn

ROLES = 10_000


class Host:
    """One process (`host`). Leave it (`with`) to end it."""

    def __init__(self, url: str, roles: int, ttl: float) -> None:
        self._process = spawn("host", url, roles, ttl, stdin=subprocess.PIPE)

    def when(self, what: str) -> float:
        """The moment at which it says that; it must be the next thing that it says."""
        assert self._process.stdout is not None
        output, _, moment = self._process.stdout.readline().partition(": ")
        assert output == what, f"the host broke off instead of {what!r}: see its error above"
        return float(moment)

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        err: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


@dataclass(frozen=True)
class Times:
    """In seconds. `started`: from the first claim to the last `on_elected`; `stopped`: until the
    last lease is back; `taken_over`: from a ttl after the kill, when the last lease has run out, to
    the survivor's last `on_elected`."""

    started: float
    stopped: float
    taken_over: float


def measure(url: str, roles: int, ttl: float) -> Times:
    with Host(url, roles, ttl) as first:
        began = first.when("begins")
        first.when("stands")
        started = first.when("leads") - began
        first.stop()
        stopped = -first.when("stops") + first.when("gave back")
    with Coordinator(url) as coordinator:
        assert coordinator.leaders() == [], "not all were given back"
    with Host(url, roles, ttl) as victim:
        for what in ("begins", "stands", "leads"):
            victim.when(what)
        with Host(url, roles, ttl) as survivor:
            for what in ("begins", "stands"):
                survivor.when(what)
            time.sleep(ttl)  # it has seen each lease renewed
            victim.kill()
            over = clock.total_seconds() + ttl
            return Times(started, stopped, survivor.when("leads") - over)


def figures(store: str, roles: int, times: Times) -> list[Figure]:
    name = f"{store}, {roles:,} roles of one process"
    return [
        Figure(f"{name}: all elected, from its start", times.started, "s"),
        Figure(f"{name}: all given back, from its stop", times.stopped, "s"),
        Figure(
            f"{name}: all taken over after kill -9, beyond the last lease's end",
            times.taken_over,
            "s",
        ),
    ]


def sections(where: Setting) -> list[Section]:
    ttl = where.pick(15.0, 5.0, 1.0)
    rows: list[Figure] = []
    for store, url in where.stores("crowded").items():
        roles = where.pick(ROLES, 200, 20)
        rows += figures(store, roles, measure(url, roles, ttl))
    note = (
        f"At a ttl of {ttl:g} s, with a callback for each role. The first claims make the rows. The other "
        "process has been a candidate for all roles for a ttl. Most leases were last renewed some time before the kill, "
        "and run out earlier than a ttl after it."
    )
    return [Section("Many roles at once", rows, note)]


if __name__ == "__main__":
    alone(sections)
