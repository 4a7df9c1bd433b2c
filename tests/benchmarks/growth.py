"""How cost grows: the herd after an expiry, and standbys in one process."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from coord import Coordinator
from tests.benchmarks.report import Row


class Counted:
    """Counts the queries of a coordinator by name, and when they were made."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.calls: list[tuple[float, str]] = []
        store: Any = coordinator.inner.store
        for name in ("claim", "renew", "release", "read"):
            setattr(store, name, self._counted(name, getattr(store, name)))
        coordinator.inner._renewals._ask = store.renew
        board: Any = coordinator.inner.board
        for name in ("post", "withdraw"):
            setattr(board, name, self._counted(name, getattr(board, name)))

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
    time.sleep(2 * ttl)  # by then they are listed together, in one query
    began = time.monotonic()
    time.sleep(3 * ttl)
    a_ttl = sum(counted.since(began, began + 3 * ttl).values()) / 3
    crowd.close()
    leader.close()
    return [
        Row(f"{count:,} standbys of one role in one process: queries a ttl", a_ttl, "", bound="≤ 1", met=a_ttl <= 1)
    ]
