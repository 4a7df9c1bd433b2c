"""A coordinator that released a role lets the candidates that wait for it go first."""

from __future__ import annotations

import asyncio
from pathlib import Path

from coord import AsyncCoordinator
from coord.election.turns import MAX_ROLES, Turns
from coord.runtime import clock
from coord.stores.memory import MemoryStore

CANDIDATES, TURNS = 4, 60


def test_on_sqlite_one_that_takes_and_gives_back_does_not_starve_the_others(
    tmp_path: Path,
) -> None:
    taken = [0] * CANDIDATES

    async def take_turns(c: AsyncCoordinator, number: int) -> None:
        while sum(taken) < TURNS:
            lead = c.leadership("r", ttl=10)
            await lead.acquire(timeout=60)
            taken[number] += 1
            await asyncio.sleep(0.005)
            await lead.stop()

    async def main() -> None:
        async with AsyncCoordinator(f"sqlite://{tmp_path / 'leases.db'}") as c:
            await asyncio.gather(*(take_turns(c, number) for number in range(CANDIDATES)))

    asyncio.run(main())
    # Without the pause, one of them has all turns but one of each other.
    assert min(taken) >= 3, taken


class Polled(MemoryStore):
    feed_interval = 0.2


def test_it_waits_only_if_somebody_else_waits_and_the_feed_is_slow() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        others = True

        async def waits(_role: str) -> bool:
            return others

        async def waited(turns: Turns) -> float:
            began = loop.time()
            await turns.wait("r")
            return loop.time() - began

        pushed = Turns(MemoryStore(), clock.system_now, waits)
        pushed.gave_back("r")
        assert await waited(pushed) < 0.1
        turns = Turns(Polled(), clock.system_now, waits)
        assert await waited(turns) < 0.1  # it gave nothing back
        turns.gave_back("r")
        turns.gave_back("another")
        assert await waited(turns) >= 0.35
        assert await waited(turns) < 0.1  # only the first claim waits
        others = False
        turns.gave_back("r")
        assert await waited(turns) < 0.1

    asyncio.run(main())


def test_the_roles_that_are_remembered_are_few() -> None:
    async def nobody(_role: str) -> bool:
        return False

    turns = Turns(Polled(), clock.system_now, nobody)
    turns._pause = 1e-9
    for number in range(3 * MAX_ROLES):
        turns.gave_back(str(number))
    assert len(turns._until) <= MAX_ROLES
