"""A process that is a candidate for many roles, and says when it leads all of them.

`python -m tests.benchmarks.host URL ROLES TTL`: each line that it prints is a word and the moment,
in seconds by `clock.total_seconds` (one machine, one clock for all processes). `begins`; `stands`
once it has learnt who leads each role; `leads` when it was told of the last election. A line on its
standard input makes it give all roles back: `stops`, and `gave back` when that is over."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from coord import AsyncCoordinator, Term
from coord.runtime import clock

WITHIN = 180.0
"""Seconds in which all must be led."""


def say(what: str) -> None:
    print(f"{what}: {clock.total_seconds():.3f}", flush=True)


async def host(url: str, roles: int, ttl: float) -> None:
    coordinator, led, all_led = AsyncCoordinator(url), 0, asyncio.Event()
    await coordinator.check()

    def elected(_: Term) -> None:
        nonlocal led
        led += 1
        if led == roles:
            all_led.set()

    leads = [
        coordinator.leadership(f"hosted-{number}", ttl=ttl, on_elected=elected)
        for number in range(roles)
    ]
    say("begins")
    await asyncio.gather(*(lead.first_outcome() for lead in leads))
    say("stands")
    await asyncio.wait_for(all_led.wait(), WITHIN)
    say("leads")
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    say("stops")
    await asyncio.gather(*(lead.stop() for lead in leads))
    say("gave back")


if __name__ == "__main__":
    logging.getLogger("coord").setLevel(100)
    asyncio.run(host(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
    os._exit(0)
