"""A process with many standbys of one role that another leads; says in JSON what they ask of the
store.

`python -m tests.benchmarks.stander URL ROLE STANDBYS TTL TTLS`: queries by table, in so many ttls.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys

from coord import Coordinator
from coord.runtime import clock
from tests.benchmarks.counting import Counted, pause_until


def measure(url: str, role: str, standbys: int, ttl: float, ttls: int) -> dict[str, int]:
    counted = Counted()
    coordinator = Coordinator(url)

    async def stand() -> None:
        leads = [coordinator.inner.leadership(role, ttl=ttl) for _ in range(standbys)]
        await asyncio.gather(*(lead.first_outcome() for lead in leads))
        assert not any(lead.is_leader for lead in leads), f"{role} was free"

    coordinator.portal.call(stand)
    begin = (
        clock.total_seconds() + 2 * ttl
    )  # by then they are listed on the board together, in one query
    end = begin + ttls * ttl
    pause_until(end)
    return dict(counted.between(begin, end))


if __name__ == "__main__":
    logging.getLogger("coord").setLevel(100)
    url, role, standbys, ttl, ttls = sys.argv[1:]
    print(json.dumps(measure(url, role, int(standbys), float(ttl), int(ttls))), flush=True)
    os._exit(0)
