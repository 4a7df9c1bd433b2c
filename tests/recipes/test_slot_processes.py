"""Slots held by processes that are really killed and frozen, with a resource that checks their
tokens."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.recipes.test_share_processes import CHAOS, store_url
from tests.recipes.workers import Workers, workers

__all__ = ["store_url"]
SLOTS, CANDIDATES, TTL = 3, 6, 3.0


def full(crew: Workers) -> bool:
    """Whether every slot is held, by the store."""
    return len(crew.owners()) == min(SLOTS, len(crew.processes))


def test_slots_are_taken_freed_by_a_kill_and_taken_again(store_url: str, tmp_path: Path) -> None:
    with workers("slots", store_url, tmp_path, TTL, SLOTS) as crew:
        crew.start(CANDIDATES)
        print(f"all slots taken after {crew.until(lambda: full(crew)):.2f} s")
        crew.until(lambda: len({write.worker for write in crew.resource.writes}) == SLOTS)
        writers = {write.worker for write in crew.resource.writes}
        victim = next(process for process in crew.processes if process.pid in writers)
        before = crew.owners()
        crew.kill(victim)
        seconds = crew.until(lambda: crew.owners() != before and full(crew))
        print(f"a killed one's slot taken after {seconds:.2f} s")
        while len(crew.processes) > 2:
            crew.leave(crew.processes[0])
        crew.until(lambda: full(crew))
        assert {role.partition("#")[2] for role in crew.owners()} <= {"0", "1", "2"}
        assert crew.resource.problems() == []


@pytest.mark.longest
@pytest.mark.timeout(900)
def test_chaos(store_url: str, tmp_path: Path) -> None:
    with workers("slots", store_url, tmp_path, TTL, SLOTS) as crew:
        crew.start(CANDIDATES)
        rnd, until = random.Random(1), time.monotonic() + min(CHAOS, 180.0)
        faults = dict.fromkeys(("kill", "leave", "freeze"), 0)
        while time.monotonic() < until:
            what, process = rnd.choice(list(faults)), rnd.choice(crew.processes)
            faults[what] += 1
            if what == "freeze":
                crew.freeze(process)
                time.sleep(rnd.choice([0.5, TTL, 2 * TTL]))
                crew.thaw(process)
            else:
                crew.kill(process) if what == "kill" else crew.leave(process)
                crew.start()
            time.sleep(rnd.choice([0.1, 1.0, TTL]))
            assert len(crew.owners()) <= SLOTS
        seconds = crew.until(lambda: full(crew))
        resource = crew.resource
        print(
            f"{crew.url.partition(':')[0]}: {faults}; all taken again after {seconds:.2f} s; "
            f"{len(resource.writes)} writes, {resource.refused} stale ones refused, "
            f"{len(resource.workers_of_tokens())} terms, problems: {resource.problems()}"
        )
        assert resource.problems() == []
