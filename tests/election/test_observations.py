"""Callers that do not wait get the role of a dead holder: what one has observed counts for the
next."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coord import AsyncCoordinator
from coord.core.lease import Observation, Revision
from coord.core.operations import Answer, Claim, Release, Renew, Result
from coord.election import observations
from coord.election.observations import MAX_ROLES, Observations
from coord.runtime import clock
from coord.stores.memory.store import MemoryStore
from coord.stores.sqlite import SQLiteStore, StoreClock
from coord.testing.clocks import Machine, run
from tests.support.waits import soon

TTL = 6.0


class Elsewhere(MemoryStore):
    """A store of another machine, whose clock may be off by so much."""

    url = "elsewhere://server/database"

    def __init__(self, skew: float | None, now: Callable[[], float] = clock.total_seconds) -> None:
        super().__init__(now)
        self.max_clock_skew = skew


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "coord" / "observations.json"


async def led(store: MemoryStore, ttl: float = TTL) -> None:
    """Somebody who is then killed."""
    result = await store.claim(Claim("r", "dead", 1, ttl), 5)
    assert isinstance(result, Answer)
    assert result.applied


async def calls(machine: Machine, c: AsyncCoordinator, every: float) -> float:
    """Call until the role is had; how many seconds that took."""
    began = machine.now().awake
    while True:
        lead = c.leadership("r", ttl=TTL)
        term = await lead.acquire(blocking=False)
        if term is not None:
            await lead.stop()
            return machine.now().awake - began
        await asyncio.sleep(every)


@pytest.mark.parametrize("skew", [0.0, 60.0, None], ids=["exact", "60 s", "off"])
@pytest.mark.parametrize(
    ("later", "most"), [(0.0, TTL + 2), (3.0, 2 * TTL + 2)], ids=["before", "after"]
)
def test_a_caller_every_second_gets_a_dead_holders_role(
    skew: float | None, later: float, most: float
) -> None:
    """`later`: seconds from the last renewal to the first call."""

    async def main(machine: Machine) -> float:
        store = Elsewhere(skew, lambda: machine.now().total)
        c = AsyncCoordinator(store=store, now=machine.now)
        await led(store)
        await asyncio.sleep(later)
        took = later + await calls(machine, c, 1.0)
        await c.close()
        return took

    assert TTL - 0.1 <= run(main) <= most


def test_a_cron_job_every_minute_skips_one_run() -> None:
    async def main(machine: Machine) -> float:
        store = Elsewhere(None, lambda: machine.now().total)
        c = AsyncCoordinator(store=store, now=machine.now)
        await led(store, 30.0)
        await asyncio.sleep(1.0)
        took = await calls(machine, c, 60.0)
        await c.close()
        return took

    assert 60.0 <= run(main) < 61.0


def test_one_call_takes_over_what_was_observed_to_expire() -> None:
    """Its first claim is refused, since an earlier candidate made the observation. The call has no
    result until the takeover, which follows, has one; here the store takes its time."""

    class Slow(Elsewhere):
        async def claim(self, claim: Claim, timeout: float) -> Result:
            await asyncio.sleep(0.1)
            return await super().claim(claim, timeout)

    async def main(machine: Machine) -> bool:
        store = Slow(None, lambda: machine.now().total)
        c = AsyncCoordinator(store=store, now=machine.now)
        await led(store)
        assert await c.leadership("r", ttl=TTL).acquire(blocking=False) is None
        await asyncio.sleep(TTL + 1)
        term = await c.leadership("r", ttl=TTL).acquire(blocking=False)
        await c.close()
        return term is not None

    assert run(main)


def test_a_minimum_hold_is_over_when_it_is_over() -> None:
    async def main(machine: Machine) -> float:
        store = Elsewhere(None, lambda: machine.now().total)
        c = AsyncCoordinator(store=store, now=machine.now)
        lead = c.leadership("r", ttl=30)
        assert await lead.acquire(blocking=False)
        await lead.stop(linger=2.0)
        took = await calls(machine, c, 1.0)
        await c.close()
        return took

    assert run(main) <= 4


def test_every_renewal_starts_the_observation_again() -> None:
    async def main(machine: Machine) -> bool:
        store = Elsewhere(None, lambda: machine.now().total)
        c = AsyncCoordinator(store=store, now=machine.now)
        await led(store)
        for beat in range(2, 30):
            await store.renew([Renew("r", "dead", 1, beat, TTL)], 5)
            for _ in range(5):
                lead = c.leadership("r", ttl=TTL)
                if await lead.acquire(blocking=False) is not None:
                    return True
                await asyncio.sleep(1.0)
        await c.close()
        return False

    assert not run(main)


def test_a_role_that_was_given_back_is_had_by_the_next_call() -> None:
    async def main(machine: Machine) -> bool:
        store = Elsewhere(None, lambda: machine.now().total)
        c = AsyncCoordinator(store=store, now=machine.now)
        await led(store)
        assert await c.leadership("r", ttl=TTL).acquire(blocking=False) is None
        await asyncio.sleep(2 * TTL)
        await store.release(Release("r", "dead", 1, 2), 5)
        lead = c.leadership("r", ttl=TTL)
        had = await lead.acquire(blocking=False) is not None
        await c.close()
        return had

    assert run(main)


def test_a_lease_by_an_unknown_clock_is_taken_by_callers_too(tmp_path: Path) -> None:
    """Its end says nothing to them: without an observation it would be there forever."""

    async def main() -> float:
        path = str(tmp_path / "coord.db")
        hidden = SQLiteStore(path, clock=StoreClock(name=f"{clock.UNKNOWN}another container"))
        result = await hidden.claim(Claim("r", "dead", 1, 1.0), 30)
        assert isinstance(result, Answer)
        assert result.applied
        began = time.monotonic()
        c = AsyncCoordinator(f"sqlite://{path}")
        while await c.leadership("r", ttl=1.0).acquire(blocking=False) is None:
            assert time.monotonic() - began < 60
            await asyncio.sleep(0.1)
        took = time.monotonic() - began
        await c.close()
        await hidden.close()
        return took

    assert asyncio.run(main()) >= 0.9


def observation(beat: int, since: float = 1.0) -> Observation:
    return Observation(Revision("dead", 1, beat), since)


def test_the_earlier_time_counts_for_one_revision() -> None:
    kept = Observations("elsewhere://server/database", lambda: False)
    kept.keep("r", observation(1, 5.0))
    kept.keep("r", observation(1, 9.0))
    assert kept.get("r") == observation(1, 5.0)
    kept.keep("r", observation(2, 9.0))
    assert kept.get("r") == observation(2, 9.0)
    kept.keep("r", None)
    assert kept.get("r") is None


def test_a_session_keeps_a_bounded_number() -> None:
    kept = Observations("elsewhere://server/database", lambda: False)
    for number in range(3 * MAX_ROLES):
        kept.keep(f"r{number}", observation(1))
    assert len(kept._kept) == len(kept._unsaved) == MAX_ROLES
    assert kept.get(f"r{3 * MAX_ROLES - 1}") == observation(1)


# What follows happens in processes that end: the file is between them.


@pytest.fixture
def known_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = clock.KernelClock("11111111-2222-3333-4444-555555555555", "", 100.0, 50.0)
    monkeypatch.setattr(clock, "kernel_clock", lambda: kernel)


def a_process(store: MemoryStore) -> bool:
    """Whether a process that calls once, and ends, gets the role."""

    async def main() -> bool:
        c = AsyncCoordinator(store=store)
        term = await c.leadership("r", ttl=TTL).acquire(blocking=False)
        await c.close()
        return term is not None

    return asyncio.run(main())


def rewritten(state: Path, **changes: Any) -> None:
    rows = json.loads(state.read_text())
    state.write_text(json.dumps([{**row, **changes} for row in rows]))


def rows_of(state: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(state.read_text())
    return rows


def observed_long_ago(store: MemoryStore, state: Path) -> None:
    asyncio.run(led(store))
    assert not a_process(store)
    (row,) = rows_of(state)
    rewritten(state, since=row["since"] - TTL - 1)


@pytest.mark.usefixtures("known_clock")
def test_a_process_goes_on_where_another_ended(state: Path) -> None:
    store = Elsewhere(None)
    asyncio.run(led(store))
    assert not a_process(store)
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.parent.stat().st_mode) == 0o700
    assert os.listdir(state.parent) == [state.name]
    (row,) = rows_of(state)
    kernels_time = clock.system_now().awake - 50.0
    assert kernels_time - 60 < row["since"] < kernels_time
    assert not a_process(store)
    assert [again["since"] for again in rows_of(state)] == [row["since"]]
    rewritten(state, since=row["since"] - TTL - 1)
    assert a_process(store)


@pytest.mark.usefixtures("known_clock")
@pytest.mark.parametrize(
    "changes",
    [
        {"clock": "22222222-2222-3333-4444-555555555555"},
        {"clock": ""},
        {"beat": 2},
        {"holder": "another"},
        {"role": "another"},
        {"store": "another"},
        {"since": 1e9},
        {"since": -90_000.0},
        {"since": "1"},
        {"since": float("nan")},
    ],
    ids=str,
)
def test_what_is_no_observation_of_this_lease(state: Path, changes: dict[str, Any]) -> None:
    store = Elsewhere(None)
    observed_long_ago(store, state)
    rewritten(state, **changes)
    assert not a_process(store)


@pytest.mark.usefixtures("known_clock")
@pytest.mark.parametrize("content", ["", "{", "[1]", "{}", "null", "[" * 100_000, '[{"role": 1}]'])
def test_a_damaged_file_is_no_file(state: Path, content: str) -> None:
    store = Elsewhere(None)
    observed_long_ago(store, state)
    state.write_text(content)
    assert not a_process(store)
    assert len(rows_of(state)) == 1


@pytest.mark.usefixtures("known_clock")
def test_a_file_that_others_may_write_is_not_read(state: Path) -> None:
    store = Elsewhere(None)
    observed_long_ago(store, state)
    state.chmod(0o666)
    assert not a_process(store)


@pytest.mark.usefixtures("known_clock")
def test_a_file_behind_a_link_is_not_read(state: Path, tmp_path: Path) -> None:
    store = Elsewhere(None)
    observed_long_ago(store, state)
    state.rename(tmp_path / "elsewhere")
    state.symlink_to(tmp_path / "elsewhere")
    assert not a_process(store)


def test_without_the_name_of_its_clock_a_process_leaves_no_file(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "kernel_clock", lambda: clock.KernelClock(problem="hidden"))

    store = Elsewhere(None)
    asyncio.run(led(store))
    assert not a_process(store)

    assert not state.exists()


@pytest.mark.usefixtures("known_clock")
def test_only_a_refused_claim_is_written(state: Path) -> None:
    assert a_process(Elsewhere(None))
    store = MemoryStore()
    asyncio.run(led(store))
    assert not a_process(store)

    assert not state.exists()


@pytest.mark.usefixtures("known_clock")
def test_the_file_holds_a_bounded_number_of_roles(state: Path) -> None:
    observations._write("one", {f"r{number}": observation(1) for number in range(MAX_ROLES)})
    observations._write("two", {"r": observation(1)})
    rows = rows_of(state)
    assert len(rows) == MAX_ROLES
    assert rows[0]["store"] == "two"


@pytest.mark.usefixtures("known_clock")
def test_observations_of_another_clock_stay_for_a_day(state: Path) -> None:
    observations._write("one", {"r": observation(1), "old": observation(1)})
    rows = rows_of(state)
    for row in rows:
        row["clock"] = "another machine with this home directory"
        row["written"] -= 90_000 if row["role"] == "old" else 0
    state.write_text(json.dumps(rows))
    observations._write("one", {"r": observation(2)})
    assert [(row["role"], row["beat"]) for row in rows_of(state)] in (
        [("r", 2), ("r", 1)],
        [("r", 1), ("r", 2)],
    )


@pytest.mark.usefixtures("known_clock")
def test_a_directory_that_cannot_be_written_disturbs_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))

    store = Elsewhere(None)
    asyncio.run(led(store))
    assert not a_process(store)


def test_processes_that_end_get_the_role_of_a_killed_one(rethinkdb_url: str) -> None:
    """Real processes, which do not wait: each finds what the one before has observed."""
    url = f"{rethinkdb_url}?max_clock_skew=off"
    command = [sys.executable, "-m", "coord", "run", "r", "--ttl", "3", "--url", url]
    with subprocess.Popen(
        [*command, "--", "sh", "-c", "echo started; exec sleep 600"], stdout=subprocess.PIPE
    ) as leader:
        assert leader.stdout is not None
        assert leader.stdout.readline() == b"started\n"
        leader.kill()
    began, skipped = time.monotonic(), list[float]()
    while time.monotonic() - began < 120:
        result = subprocess.run(
            [*command, "--no-wait", "--", "true"], capture_output=True, text=True, check=False
        )
        if result.returncode == 0:
            break
        assert result.returncode == 75, result.stderr
        match = re.search(r"for (\d+\.\d) s more", result.stderr)
        assert match is not None, result.stderr
        skipped.append(float(match[1]))
        time.sleep(0.8)
    assert result.returncode == 0
    assert skipped
    assert all(0 <= seconds <= 3.0 for seconds in skipped)


def test_a_fork_forgets() -> None:
    async def main() -> None:
        store = Elsewhere(None)
        await led(store)
        c = AsyncCoordinator(store=store)
        assert await c.leadership("r", ttl=TTL).acquire(blocking=False) is None
        await soon(lambda: c.session.observations.get("r") is not None)  # its task has ended
        c.session.after_fork()
        assert c.session.observations.get("r") is None
        await c.close()

    asyncio.run(main())
