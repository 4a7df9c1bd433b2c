"""Candidates that rest or fail are not preferred, and announcements about other roles are cheap."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import coord
from coord import AsyncCoordinator, Coordinator, LossReason, Term
from coord.core.announcements import Candidate, Handover, by_priority, decide_handover
from coord.stores.memory import MemoryStore
from coord.testing import ElectionKit
from coord.testing.clocks import Machine, run
from tests.support.waits import eventually

Two = tuple[Coordinator, Coordinator]


def announced(*candidates: Candidate) -> object:
    announcements = [candidate.announcement(60) for candidate in candidates]
    return decide_handover(
        announcements, token=1, candidate="leader", priority=0, tenure=100.0, min_tenure=10.0
    )


def test_a_leader_gives_way_to_a_preferred_candidate_that_does_not_rest() -> None:
    rests = Candidate("r", "first", priority=9, resting=True)
    waits = Candidate("r", "second", priority=5)
    assert announced(rests) is None
    assert announced(rests, waits) == Handover("second", "priority 5", "", 0.0)
    assert Candidate.of(rests.announcement(60)) == rests
    assert Candidate.of(waits.announcement(60)) == waits
    listed = by_priority([item.announcement(60) for item in (rests, waits)])
    assert [item.id for item in listed] == ["second", "first"]


async def until(condition: Callable[[], Any]) -> None:
    """Wait on virtual time, at most for a minute."""
    for _ in range(6_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen within a minute")


def on_virtual_time(
    story: Callable[[AsyncCoordinator, AsyncCoordinator], Coroutine[Any, Any, None]],
) -> None:
    """Tell a story of two coordinators of one store in memory, of which nothing waits for real."""

    async def main(machine: Machine) -> None:
        store = MemoryStore(now=lambda: machine.now().total)
        async with (
            AsyncCoordinator(store=store, now=machine.now) as a,
            AsyncCoordinator(store=store, now=machine.now) as b,
        ):
            await story(a, b)

    run(main)


def test_a_cooldown_is_stronger_than_a_priority() -> None:
    async def story(a: AsyncCoordinator, b: AsyncCoordinator) -> None:
        preferred = a.leadership("r", ttl=6, priority=5, min_tenure=2)
        other = b.leadership("r", ttl=6, min_tenure=2)
        await preferred.start()
        assert await preferred.wait(10)
        await other.start()
        await b.request_step_down("r", cooldown=40)
        assert await other.wait(10)
        token = other.term.token
        assert not await preferred.wait(30)
        assert [candidate.resting for candidate in await b.candidates("r")] == [True]
        assert other.term.token == token
        assert await preferred.wait(60)  # when the cooldown is over, it is preferred again
        assert preferred.term.token > token

    on_virtual_time(story)


@pytest.mark.parametrize("fails", ["on_elected", "job"])
def test_a_preferred_candidate_that_fails_disturbs_a_healthy_leader_once(fails: str) -> None:
    tokens: list[int] = []
    lost: list[LossReason] = []

    def on_elected(term: Term) -> None:
        tokens.append(term.token)
        if fails == "on_elected":
            raise RuntimeError("a broken release of the program")

    async def story(a: AsyncCoordinator, b: AsyncCoordinator) -> None:
        healthy = b.leadership("r", ttl=6, min_tenure=2)
        healthy.on_lost(lambda _, reason: lost.append(reason))
        await healthy.start()
        assert await healthy.wait(10)
        at_most = 1 if fails == "job" else None
        broken = a.leadership("r", ttl=6, priority=5, on_elected=on_elected, at_most=at_most)
        await broken.start()
        await until(lambda: tokens != [] and not broken.is_leader)
        assert await healthy.wait(20)
        assert await b.candidates("r") != []
        assert not await broken.wait(60)
        assert len(tokens) == 1
        assert lost == [LossReason.STEPPED_DOWN]
        await healthy.stop()
        await until(lambda: len(tokens) == 2)  # it is a candidate all the same

    on_virtual_time(story)


def test_a_candidate_that_led_well_is_preferred_again() -> None:
    kit = ElectionKit()
    lead = kit.coordinator.leadership("r", ttl=1, priority=5)
    with lead:
        assert lead.wait(10)
        elector = lead.inner.elector
        assert elector is not None
        for reason, failed in (
            (LossReason.CALLBACK_FAILED, True),
            (LossReason.TAKEN, False),
            (LossReason.NO_PROGRESS, True),
            (LossReason.EXPIRED, False),
        ):
            kit.lose("r", reason)
            assert elector.lifecycle.failed is failed
            kit.win("r")
    kit.coordinator.close()


CROWD = """
import asyncio, gc, os, sys, time, tracemalloc
import structlog.processors  # the first event imports it: a warning of a slow disk, for example
import coord
from coord.core.announcements import Candidate
from coord.stores.urls import open_url

url = sys.argv[1]
c = coord.Coordinator(url)
lead = c.leadership("mine", ttl=30)
lead.acquire()
c.request_step_down  # what is imported is not counted

async def post():
    store = open_url(url)
    board = store.announcements()
    for first in range(0, 20_000, 1000):
        await board.post(
            [
                Candidate(f"role {first + n}", "x" * 32, {"host": "h", "pid": 1}, 5).announcement(600)
                for n in range(1000)
            ],
            60,
        )
    await store.close()

tracemalloc.start()
child = os.fork()
if child == 0:
    tracemalloc.stop()
    asyncio.run(post())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
# An announcement that comes after the others shows that all have arrived.
c.request_step_down("mine", cooldown=60)
end = time.monotonic() + 60
while lead.is_leader:
    assert time.monotonic() < end
    time.sleep(0.05)
gc.collect()
print(tracemalloc.get_traced_memory()[0] / 2**20)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_announcements_about_other_roles_cost_little_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CROWD, f"sqlite:///{tmp_path}/coord.db"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 5


def test_a_listener_keeps_only_what_is_about_its_own_roles(two: Two) -> None:
    lead = two[0].leadership("mine", ttl=30)
    assert lead.acquire() is not None
    crowd = [
        Candidate(f"role {n}", f"candidate {n}", priority=5).announcement(60) for n in range(50)
    ]
    board = two[1].inner.announcements
    two[1].portal.call(lambda: board.post(crowd, 30))
    two[1].request_step_down("mine", cooldown=60)
    eventually(lambda: not lead.is_leader)
    listener = two[0].session._requests
    assert set(listener._kept) <= {"mine"}
    lead.stop()
    eventually(lambda: listener._kept == {})
    assert coord.health(two[0]).status is coord.HealthStatus.IDLE
