"""What is answered from memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from coord import Coordinator
from tests.benchmarks.report import Row


def _microseconds(call: Callable[[], object], times: int = 200_000) -> float:
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(times // 5):
            call()
        best = min(best, (time.perf_counter() - began) / (times // 5) * 1e6)
    return best


def rows(directory: Path) -> list[Row]:
    coordinator = Coordinator(f"sqlite://{directory}/lookups.db")
    lead = coordinator.leadership("bench")
    assert lead.acquire(timeout=10)
    term = lead.term
    watched = threading.Event()

    def watch() -> None:
        for _ in coordinator.watch_leader("bench"):
            watched.set()

    threading.Thread(target=watch, daemon=True).start()
    watched.wait(5)
    time.sleep(0.2)
    figures = [
        ("is_leader", _microseconds(lambda: lead.is_leader), 2),
        ("term.check()", _microseconds(term.check), 2),
        ("leader(role) of a watched role", _microseconds(lambda: coordinator.leader("bench")), 5),
    ]
    coordinator.close()
    return [Row(name, took, "µs", bound=f"< {bound} µs", met=took < bound) for name, took, bound in figures]
