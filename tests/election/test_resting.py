"""Candidates that rest or fail are not preferred, and announcements about other roles are cheap."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import coord
from coord import Coordinator, LossReason, Term
from coord.core.announcements import Candidate, Handover, by_priority, decide_handover
from coord.testing import ElectionKit
from tests.support.waits import eventually

Two = tuple[Coordinator, Coordinator]


def announced(*candidates: Candidate) -> object:
    announcements = [candidate.announcement(60) for candidate in candidates]
    return decide_handover(announcements, 1, "leader", 0, 100.0, 10.0)


def test_a_leader_gives_way_to_a_preferred_candidate_that_does_not_rest() -> None:
    rests = Candidate("r", "first", priority=9, resting=True)
    waits = Candidate("r", "second", priority=5)
    assert announced(rests) is None
    assert announced(rests, waits) == Handover("second", "priority 5", "", 0.0)
    assert Candidate.of(rests.announcement(60)) == rests
    assert Candidate.of(waits.announcement(60)) == waits
    listed = by_priority([item.announcement(60) for item in (rests, waits)])
    assert [item.id for item in listed] == ["second", "first"]


def test_a_cooldown_is_stronger_than_a_priority(two: Two) -> None:
    preferred = two[0].leadership("r", ttl=0.6, priority=5, min_tenure=0.2)
    other = two[1].leadership("r", ttl=0.6, min_tenure=0.2)
    preferred.start()
    assert preferred.wait(10)
    other.start()
    two[1].request_step_down("r", cooldown=4)
    assert other.wait(10)
    token = other.term.token
    eventually(lambda: [candidate.resting for candidate in two[1].candidates("r")] == [True])
    assert not preferred.wait(1.5)
    assert other.term.token == token
    assert preferred.wait(30)  # when the cooldown is over, it is preferred again
    preferred.stop()
    other.stop()


@pytest.mark.parametrize("fails", ["on_elected", "job"])
def test_a_preferred_candidate_that_fails_disturbs_a_healthy_leader_once(
    two: Two, fails: str
) -> None:
    tokens: list[int] = []

    def on_elected(term: Term) -> None:
        tokens.append(term.token)
        if fails == "on_elected":
            raise RuntimeError("a broken release of the program")

    lost: list[LossReason] = []
    healthy = two[1].leadership("r", ttl=0.6, min_tenure=0.2)
    healthy.on_lost(lambda _, reason: lost.append(reason))
    healthy.start()
    assert healthy.wait(10)
    broken = two[0].leadership(
        "r", ttl=0.6, priority=5, on_elected=on_elected, at_most=None if fails != "job" else 0.1
    )
    broken.start()
    eventually(lambda: tokens != [] and not broken.is_leader)
    assert healthy.wait(10)
    eventually(lambda: two[1].candidates("r") != [])
    assert not broken.wait(3)
    assert len(tokens) == 1
    assert lost == [LossReason.STEPPED_DOWN]
    healthy.stop()
    eventually(lambda: len(tokens) == 2)  # it is a candidate all the same
    broken.stop()


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
