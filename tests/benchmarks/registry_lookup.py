"""What a lookup costs with 100 records in one role, and with 10,000 in 100 roles.

Run it: `python -m tests.benchmarks.registry_lookup`.

Both sizes are measured in turns within one run, so that what else the machine does meets both; the figure is the ratio
of the two medians.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from coord import ServiceRegistry
from tests.registry import raw

LOOKUPS: dict[str, Callable[[ServiceRegistry], Any]] = {
    "healthy_service": lambda registry: registry.healthy_service("role 0"),
    "healthy_service, spread": lambda registry: registry.healthy_service("role 0", choose="spread"),
    "healthy_services": lambda registry: registry.healthy_services("role 0"),
}


def fill(registry: ServiceRegistry, roles: int) -> None:
    """100 records of each role."""
    for number in range(roles):
        raw.write_many(registry, f"role {number}", 100)


def measure(few: ServiceRegistry, many: ServiceRegistry, rounds: int = 40) -> dict[str, tuple[float, float]]:
    """The median seconds of each lookup, with few and with many."""
    found = {}
    for name, look in LOOKUPS.items():
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(rounds + 5):
            for registry, seconds in ((few, times[0]), (many, times[1])):
                began = time.perf_counter()
                look(registry)
                if turn >= 5:  # the first few warm up
                    seconds.append(time.perf_counter() - began)
        found[name] = (statistics.median(times[0]), statistics.median(times[1]))
    return found


def main() -> None:
    from tests.registry.conftest import set_up
    from tests.servers.rethinkdb_server import Server, available

    with ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory())
        urls = {
            "memory": ("memory://few", "memory://many"),
            "sqlite": (f"sqlite://{place}/few.db", f"sqlite://{place}/many.db"),
        }
        if available():
            server = stack.enter_context(Server())
            urls["rethinkdb"] = (server.url("few"), server.url("many"))
            for url in urls["rethinkdb"]:
                set_up(url)
        for store, (url_of_few, url_of_many) in urls.items():
            with ServiceRegistry(url_of_few) as few, ServiceRegistry(url_of_many) as many:
                fill(few, 1)
                fill(many, 100)
                for name, (small, large) in measure(few, many).items():
                    line = f"{store:10} {name:24} {small * 1e3:7.2f} ms {large * 1e3:7.2f} ms   x {large / small:.2f}\n"
                    sys.stdout.write(line)


if __name__ == "__main__":
    main()
