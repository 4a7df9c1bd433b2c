"""What is answered from memory, and what asks the store."""

from __future__ import annotations

import statistics
import threading
import time
import timeit
from collections.abc import Callable

from coord import Coordinator
from coord.runtime import clock
from tests.benchmarks.alone import alone
from tests.benchmarks.counting import Counted
from tests.benchmarks.figures import Aim, Figure
from tests.benchmarks.page import Section
from tests.benchmarks.setting import Setting


def microseconds(call: Callable[[], object], calls: int = 20_000, rounds: int = 15) -> float:
    """The median of rounds, the call of a function included."""
    return statistics.median(timeit.repeat(call, number=calls, repeat=rounds)) / calls * 1e6


def plain(store: str, url: str, counted: Counted, times: int = 20) -> list[Figure]:
    """A lookup of a role that is not being watched."""
    with Coordinator(url) as coordinator:
        coordinator.leadership("bench").acquire(timeout=10)
        coordinator.leader("bench")
        time.sleep(0.1)
        began, taken = clock.total_seconds(), []
        for _ in range(times):
            before = time.perf_counter()
            assert coordinator.leader("bench") is not None
            taken.append((time.perf_counter() - before) * 1e6)
        request = sum(counted.between(began, clock.total_seconds()).values()) / times
    name = f"{store}: leader(role), not watched"
    return [
        Figure(f"{name}: queries", request, "", (Aim("=", 1),)),
        Figure(f"{name}: median of {times}", statistics.median(taken), "µs"),
    ]


def from_memory(url: str) -> list[Figure]:
    with Coordinator(url) as coordinator:
        lead = coordinator.leadership("bench")
        assert lead.acquire(timeout=10)
        term, watched = lead.term, threading.Event()

        def watch() -> None:
            for _ in coordinator.watch_leader("bench"):
                watched.set()

        threading.Thread(target=watch, daemon=True).start()
        assert watched.wait(5)
        lease = coordinator.session.leaders.known("bench", time.monotonic())
        assert lease is not None, "the lookup would ask the store"
        return [
            Figure("is_leader", microseconds(lambda: lead.is_leader), "µs", (Aim("<", 2),)),
            Figure("term.check()", microseconds(term.check), "µs", (Aim("<", 2),)),
            Figure(
                "leader(role) of a watched role",
                microseconds(lambda: coordinator.leader("bench")),
                "µs",
                (Aim("<", 5),),
            ),
        ]


def sections(where: Setting) -> list[Section]:
    counted = Counted()
    try:
        asking = [
            row
            for store, url in where.stores("plain").items()
            for row in plain(store, url, counted)
        ]
    finally:
        counted.end()
    return [Section("Lookups", [*from_memory(where.sqlite("lookups")), *asking])]


if __name__ == "__main__":
    alone(sections)
