"""The fixture for users' own tests, and the example that shows it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import coord
from coord import LossReason
from coord.api.default import default
from coord.errors import StoreUnavailable
from coord.testing import ElectionKit, Fault

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    "reason", [reason for reason in LossReason if reason is not LossReason.FORKED]
)
def test_a_role_is_lost_for_the_reason_given_and_won_again(
    coord_election: ElectionKit, reason: LossReason
) -> None:
    reports: list[object] = []
    lead = coord_election.coordinator.leadership(
        "r",
        on_elected=lambda term: reports.append(term.token),
        on_lost=lambda term, why: reports.append(why),
    )
    with lead:
        coord_election.win("r")
        first = lead.term
        coord_election.lose("r", reason)
        assert not lead.is_leader
        assert first.reason is reason
        assert reports == [1, reason]
        assert coord_election.coordinator.leader("r").holder == "somebody else"  # type: ignore[union-attr]
        assert not lead.wait(0.05)  # until somebody says so
        coord_election.win("r")
        assert lead.term.token > first.token
    assert reports[2:] == [lead.inner._elector.term.token, LossReason.RELEASED]  # type: ignore[union-attr]


def test_nothing_to_lose_is_an_error(coord_election: ElectionKit) -> None:
    with pytest.raises(AssertionError, match="no candidate"):
        coord_election.lose("r")
    with pytest.raises(coord.BadArgument, match="FORKED"):
        coord_election.lose("r", LossReason.FORKED)


def test_a_leadership_can_be_lost_from_its_own_callback_and_its_own_job(
    coord_election: ElectionKit,
) -> None:
    lost = threading.Event()
    lead = coord_election.coordinator.leadership(
        "r", on_elected=lambda _: coord_election.lose("r"), on_lost=lambda *_: lost.set()
    )
    with lead:
        assert lost.wait(5)

    @coord.leader_only("s")
    def job() -> bool:
        coord_election.lose("s", LossReason.STEPPED_DOWN)
        term = coord.current_term()
        assert term is not None
        return term.held

    assert job() is False


def test_coroutines_are_cancelled_when_the_role_is_lost(coord_election: ElectionKit) -> None:
    @coord.leader_only("r")
    async def job() -> None:
        await asyncio.to_thread(coord_election.lose, "r")
        await asyncio.sleep(60)

    with pytest.raises(coord.LeadershipLost, match="taken"):
        asyncio.run(job())


def test_work_that_does_not_end_keeps_the_role_from_being_won(
    coord_election: ElectionKit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coord.testing.election_kit.WAIT", 0.2)

    @coord.leader_only("r")
    def job() -> None:
        coord_election.lose("r")
        coord_election.win("r")

    with pytest.raises(AssertionError, match="did not happen"):
        job()


def test_time_is_the_tests(coord_election: ElectionKit) -> None:
    lead = coord_election.coordinator.leadership("r", ttl=30)
    with lead:
        coord_election.win("r")
        began = time.monotonic()
        coord_election.advance(300)
        assert lead.term.token == 1  # it renewed all the while
        assert coord_election.store.calls.count("renew") >= 29
        coord_election.clock.advance(31)  # stopped for so long: nothing could renew
        coord_election.advance(0)
        coord_election.win("r")
        assert lead.term.token == 2
        coord_election.store.down()
        coord_election.advance(31)
        assert not lead.is_leader
        coord_election.store.heal()
        coord_election.advance(31)
        coord_election.win("r")
        assert lead.term.token == 3
        coord_election.clock.suspend(3600)
        coord_election.win("r")
        assert lead.term.token == 4
        assert time.monotonic() - began < 10


def test_a_fault_in_the_store_is_lived_through(coord_election: ElectionKit) -> None:
    coord_election.store.fail("claim", Fault.UNKNOWN_DONE)
    with coord_election.coordinator.leadership("r", ttl=3) as lead:
        coord_election.win("r")
        assert lead.term.token == 2  # 1 was never believed


def test_a_claim_that_fails_while_win_waits_is_tried_again(coord_election: ElectionKit) -> None:
    claim, started = coord_election.memory.claim, threading.Event()

    async def fails_late(*args: Any) -> Any:
        coord_election.memory.claim = claim  # type: ignore[method-assign]
        started.set()
        await asyncio.sleep(0.2)
        raise StoreUnavailable("too late")

    coord_election.memory.claim = fails_late  # type: ignore[method-assign]
    with coord_election.coordinator.leadership("r", ttl=3) as lead:
        assert started.wait(5)
        coord_election.win("r")
        assert lead.is_leader


def test_the_default_coordinator_is_put_back() -> None:
    before = default.get()
    with ElectionKit().as_default() as kit:
        assert default.get() is kit.coordinator
    assert default.get() is before


def test_the_plugin_is_registered() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert '[project.entry-points.pytest11]\ncoord = "coord.testing.pytest_plugin"' in text
    plugins = {
        entry_point.value
        for entry_point in entry_points(group="pytest11")
        if entry_point.name == "coord"
    }
    assert plugins in (
        set(),
        {"coord.testing.pytest_plugin"},
    )  # none in a tree that was not installed again


def test_the_example_passes() -> None:
    path = ROOT / "examples" / "testing_a_singleton_job.py"
    assert len(path.read_text().splitlines()) <= 60
    plugin = (
        []
        if entry_points(group="pytest11").select(name="coord")
        else ["-p", "coord.testing.pytest_plugin"]
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, str(path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
