"""What a lookup costs with 100 records in one role, and with 10,000 in 100 roles.

Run it: `python -m tests.benchmarks.registry_lookup`.

Both sizes are measured in turns within one run, so that what else the machine does meets both; the
figure is the ratio of the two medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from coord import ServiceRegistry
from tests.benchmarks.alone import alone
from tests.benchmarks.figures import Figure, Reference
from tests.benchmarks.page import Section
from tests.benchmarks.setting import Setting
from tests.support import raw_records

LOOKUPS: dict[str, Callable[[ServiceRegistry], Any]] = {
    "healthy_service": lambda registry: registry.healthy_service("role 0"),
    "healthy_service, spread": lambda registry: registry.healthy_service("role 0", choose="spread"),
    "healthy_services": lambda registry: registry.healthy_services("role 0"),
}


def fill(registry: ServiceRegistry, roles: int) -> None:
    """100 records of each role."""
    for number in range(roles):
        raw_records.write_many(registry, f"role {number}", 100)


def measure(
    few: ServiceRegistry, many: ServiceRegistry, rounds: int = 40
) -> dict[str, tuple[float, float]]:
    """The median seconds of each lookup, with few and with many."""
    medians = {}
    for name, look in LOOKUPS.items():
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(rounds + 5):
            for registry, seconds in ((few, times[0]), (many, times[1])):
                began = time.perf_counter()
                look(registry)
                if turn >= 5:  # the first few warm up
                    seconds.append(time.perf_counter() - began)
        medians[name] = (statistics.median(times[0]), statistics.median(times[1]))
    return medians


def sections(where: Setting) -> list[Section]:
    few, many = where.stores("few"), where.stores("many")
    figures = []
    for store in few:
        with ServiceRegistry(few[store]) as small, ServiceRegistry(many[store]) as large:
            fill(small, 1)
            roles = where.pick(100, 10, 2)
            fill(large, roles)
            for name, took in measure(small, large, where.pick(40, 10, 1)).items():
                reference = Reference("100 records", took[0] * 1e3)
                what = f"{store}: {name} among {100 * roles:,} records"
                figures.append(Figure(what, took[1] * 1e3, "ms", (), reference))
    return [Section("Service registry", figures, "Both sizes in turns, 100 records to a role.")]


if __name__ == "__main__":
    alone(sections)
