"""How cost grows: the herd after an expiry, standbys in one process, and plots over roles and candidates."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from typing import Any

from coord import Coordinator
from tests.benchmarks import handover, roles
from tests.benchmarks.report import PAGE, Row
from tests.servers import rethinkdb_server


class Counted:
    """Counts the queries of a coordinator by name, and when they were made."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.calls: list[tuple[float, str]] = []
        store: Any = coordinator.inner.store
        for name in ("claim", "renew", "release", "read"):
            setattr(store, name, self._counted(name, getattr(store, name)))
        coordinator.inner._renewals._ask = store.renew

    def _counted(self, name: str, call: Any) -> Any:
        async def counted(*args: Any) -> Any:
            self.calls.append((time.monotonic(), name))
            return await call(*args)

        return counted

    def since(self, moment: float, until: float = float("inf")) -> Counter[str]:
        return Counter(name for at, name in self.calls if moment <= at < until)


def herd(url: str, ttl: float, waiting: int) -> list[Row]:
    """200 candidates in one process when a foreign lease runs out: queries in the second after it does."""
    from coord.operations import Claim

    holder = Coordinator(url)
    holder.engine.call(lambda: holder.inner.store.claim(Claim("herd", "somebody", 1, ttl), 5))
    out = time.monotonic() + ttl
    crowd = Coordinator(url)
    counted = Counted(crowd)
    leads = crowd.engine.call(lambda: _started(crowd, ["herd"] * waiting, ttl))
    time.sleep(max(0.0, out + 1.0 - time.monotonic()))
    made = counted.since(out - 0.05, out + 1.0)
    elected = sum(lead.is_leader for lead in leads)
    asked = made["claim"] + made["read"]
    crowd.close()
    holder.close()
    return [
        Row(
            f"{waiting} waiting, the second after expiry: claims and reads",
            asked,
            "",
            bound="≤ 3 a role",
            met=asked <= 3,
        ),
        Row(f"{waiting} waiting: leaders after it", elected, "", bound="1", met=elected == 1),
    ]


async def _started(coordinator: Coordinator, names: list[str], ttl: float) -> list[Any]:
    leads = [coordinator.inner.leadership(name, ttl=ttl) for name in names]
    await asyncio.gather(*(lead.start() for lead in leads))
    return leads


def standbys(url: str, ttl: float, count: int) -> list[Row]:
    """Queries a ttl of `count` standbys of one role in one process, while another leads."""
    leader, crowd = Coordinator(url), Coordinator(url)
    assert leader.leadership("stood-by", ttl=ttl).acquire(timeout=10)
    counted = Counted(crowd)
    crowd.engine.call(lambda: _started(crowd, ["stood-by"] * count, ttl))
    time.sleep(ttl)
    began = time.monotonic()
    time.sleep(3 * ttl)
    a_ttl = sum(counted.since(began).values()) / 3
    crowd.close()
    leader.close()
    return [
        Row(f"{count:,} standbys of one role in one process: queries a ttl", a_ttl, "", bound="≤ 1", met=a_ttl <= 1)
    ]


def plots(quick: bool) -> list[str]:
    """Two pictures beside the page; needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from coord.stores.rethinkdb.setup import set_up

    counts = [10, 100, 1000] if quick else [10, 100, 1000, 10_000]
    candidates = [2, 20] if quick else [2, 20, 200]
    queries, cpu, memory, handovers = [], [], [], []
    with rethinkdb_server.Server() as server:
        url = server.url("growth")
        asyncio.run(set_up(url))
        for count in counts:
            held = roles.Held(url, count, 15)
            share = held.hold(15)
            queries.append(len(held.batches) / 15)
            cpu.append(share * 100)
            memory.append(held.bytes_each / 1000)
            held.coordinator.close()
        for count in candidates:
            handovers.append(statistics.median(handover.crowded_handover(url, 10 if quick else 40, count)))
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6))
    for axis, values, label in (
        (axes[0][0], queries, "renewal queries a second"),
        (axes[0][1], cpu, "CPU, % of a core"),
        (axes[1][0], memory, "memory a role, kB"),
    ):
        axis.plot(counts, values, marker="o")
        axis.set_xscale("log")
        axis.set_ylim(bottom=0)
        axis.set_xlabel("roles held, ttl 15 s")
        axis.set_ylabel(label)
    axes[1][1].plot(candidates, handovers, marker="o")
    axes[1][1].set_xscale("log")
    axes[1][1].set_ylim(bottom=0)
    axes[1][1].set_xlabel("candidates")
    axes[1][1].set_ylabel("graceful handover, ms")
    figure.tight_layout()
    figure.savefig(PAGE.parent / "benchmarks.png", dpi=110)
    return ["benchmarks.png"]
