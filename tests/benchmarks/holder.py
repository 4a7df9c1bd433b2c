"""A process that holds many roles, measures what that costs it, and says so in JSON.

`python -m tests.benchmarks.holder URL ROLES TTL SECONDS`: prints `steady` when all are held and it
begins to measure, `measured` when it has, and the figures."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from coord import Coordinator
from coord.api.leadership import AsyncLeadership
from coord.runtime import clock
from coord.stores import urls
from tests.benchmarks import memory
from tests.benchmarks.counting import Counted

ELECTED_WITHIN = 120.0


def timed_renewals(store_type: Any) -> list[tuple[float, float, int]]:
    """From now on, begin, end and size of each batch of renewals that a store of this type puts."""
    batches: list[tuple[float, float, int]] = []
    renew = store_type.renew

    async def timed(self: Any, renewals: Sequence[Any], timeout: float) -> Any:
        began = time.perf_counter()
        results = await renew(self, renewals, timeout)
        batches.append((began, time.perf_counter(), len(renewals)))
        return results

    store_type.renew = timed
    return batches


def busy(batches: Sequence[tuple[float, float, int]]) -> float:
    """Seconds in which at least one batch was under way."""
    total, end = 0.0, float("-inf")
    for began, ended, _ in sorted(batches):
        total += max(0.0, ended - max(began, end))
        end = max(end, ended)
    return total


def hold(
    coordinator: Coordinator, names: Sequence[str], ttl: float, **settings: Any
) -> list[AsyncLeadership]:
    """Lead all of them. Raises TimeoutError."""

    async def start() -> list[AsyncLeadership]:
        leads = [coordinator.inner.leadership(name, ttl=ttl, **settings) for name in names]
        await asyncio.gather(*(lead.start() for lead in leads))
        return leads

    leads = coordinator.portal.call(start)
    until = time.monotonic() + ELECTED_WITHIN
    while not all(lead.is_leader for lead in leads):
        if time.monotonic() > until:
            raise TimeoutError(
                f"{sum(lead.is_leader for lead in leads)} of {len(names)} were elected"
            )
        time.sleep(0.05)
    return leads


def measure(
    url: str, roles: int, ttl: float, seconds: float, say: Callable[[str], None]
) -> dict[str, Any]:
    counted = Counted()
    batches = timed_renewals(type(urls.open_url(url)))
    coordinator = Coordinator(url)
    coordinator.check()
    # The baseline has all that is not the roles': the coordinator open, its connection, every
    # module and query that a claim, a renewal and a release load, and one role.
    (warm,) = hold(coordinator, ["warm"], ttl, renew_every=0.3)
    time.sleep(0.7)
    coordinator.portal.call(warm.stop)
    leads = hold(coordinator, ["held-0"], ttl)
    base = memory.now()
    began = time.monotonic()
    leads += hold(coordinator, [f"held-{number}" for number in range(1, roles)], ttl)
    elected_in = time.monotonic() - began
    tokens = [lead.term.token for lead in leads]
    time.sleep(ttl / 3)  # the first renewals are over, too
    batches.clear()
    say("steady")
    clock_began, cpu_began = clock.total_seconds(), time.process_time()
    time.sleep(seconds)
    wall, cpu = clock.total_seconds() - clock_began, time.process_time() - cpu_began
    say("measured")
    lost = sum(
        not lead.is_leader or lead.term.token != token
        for lead, token in zip(leads, tokens, strict=True)
    )
    done = tuple(batches)
    return {
        "roles": roles,
        "ttl": ttl,
        "seconds": wall,
        "elected_in": elected_in,
        "lost": lost,
        "cpu": cpu / wall,
        "queries": {
            what: count / wall
            for what, count in counted.between(clock_began, clock_began + wall).items()
        },
        "renewals": sum(count for _, _, count in done),
        "busy": busy(done),
        "largest_batch": max((count for _, _, count in done), default=0),
        "above_base": memory.now().above(base)._asdict(),
    }


if __name__ == "__main__":
    logging.getLogger("coord").setLevel(100)
    say = lambda text: print(text, flush=True)  # noqa: E731
    say(
        json.dumps(
            measure(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), say)
        )
    )
    os._exit(0)  # releasing thousands of roles measures nothing; they run out
