"""`once` while operators evict, pause, resume and retire the job, on virtual time: the faults and
the promises of `test_once.py`."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from coord.core import swaps
from coord.core.lease import Lease
from coord.core.operations import Override, Retire
from tests.support.levels import by_level, deeper
from tests.verification.simulation.operators import (
    PREFIXES,
    OperatedWire,
    Operator,
    WithheldServer,
)
from tests.verification.simulation.test_once import TICKS, Jobs

Patch = pytest.MonkeyPatch


class OperatedJobs(Jobs):
    wire = OperatedWire
    server_type = WithheldServer

    def operator(self) -> Operator:
        return Operator(self, f"operator {len(self.world.machines)}")

    @rule()
    def evict(self) -> None:
        self.operator().evict()

    @rule(timeout=st.sampled_from([0.0, 5.0]))
    def pause(self, timeout: float) -> None:
        self.operator().pause(timeout)

    @rule()
    def resume(self) -> None:
        self.operator().resume()

    @rule(prefix=st.sampled_from(PREFIXES))
    def retire(self, prefix: str) -> None:
        self.operator().retire(prefix)

    def come_to_rest(self) -> None:
        self.server.weather = type(self.server.weather)()
        self.run(100.0)  # the last commands have ended
        operator = self.operator()
        operator.resume()
        self.run(20.0)
        assert operator.done == 1
        super().come_to_rest()


@deeper
class TestOperatedJobs(OperatedJobs.TestCase):  # type: ignore[misc, name-defined]
    settings = settings(
        max_examples=by_level(20, 300, 2_000),
        stateful_step_count=by_level(20, 40, 40),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def drive(seed: int) -> OperatedJobs:
    """Play one history that the seed draws."""
    rnd, jobs = random.Random(seed), OperatedJobs()
    jobs.begin(seed, rnd.choice([0.0, None, 20.0]), rnd.random() < 0.5, 3)
    try:
        for _ in range(25):
            what = rnd.randrange(12)
            if what <= 4:
                seconds = rnd.choice([1.0, 8.0, 25.0])
                jobs.call(rnd.randrange(9), rnd.choice(TICKS), seconds, rnd.random() < 0.2)
            elif what == 5:
                jobs.weather_changes()
            elif what == 6:
                jobs.freeze(rnd.randrange(9), rnd.choice([3.0, 15.0, 40.0]))
            elif what <= 8:
                jobs.evict()
            elif what == 9:
                jobs.pause(rnd.choice([0.0, 5.0]))
            elif what == 10:
                jobs.resume()
            else:
                jobs.retire(rnd.choice(PREFIXES))
                jobs.resume()
            jobs.run(rnd.choice([0.01, 0.5, 4.0, 12.0]))
        jobs.come_to_rest()
    finally:
        jobs.world.close()
    return jobs


def broken() -> str:
    """Return what the first of the histories violates in which anything is violated."""
    for seed in range(200):
        try:
            drive(seed)
        except AssertionError as err:
            return str(err).partition("\n")[0] or repr(err)
    return ""


def test_random_histories() -> None:
    played = [drive(seed) for seed in range(8)]
    servers = [jobs.server for jobs in played if isinstance(jobs.server, WithheldServer)]
    assert sum(server.evictions for server in servers) > 0
    assert sum(server.pauses for server in servers) > 0
    assert sum(len(jobs.recorded) for jobs in played) > 8


def evicted_jobs_pass_on_at_once(patch: Patch) -> None:
    override = swaps.override

    def vacating(row: Lease, request: Override, wall: float) -> Lease | None:
        after = override(row, request, wall)
        if after is None or not after.revoked:
            return after
        return replace(after, holder=None, remaining=0.0)

    patch.setattr(swaps, "override", vacating)


def jobs_with_records_are_retired(patch: Patch) -> None:
    retire = swaps.retire

    def careless(row: Lease, request: Retire, text: str) -> bool:
        return retire(row, request, "")

    patch.setattr(swaps, "retire", careless)


@pytest.mark.parametrize(
    ("mutant", "why"),
    [
        (evicted_jobs_pass_on_at_once, "two runs overlap"),
        (jobs_with_records_are_retired, "a record was replaced|after it was recorded"),
    ],
    ids=lambda item: getattr(item, "__name__", ""),
)
def test_a_mutant_is_caught(mutant: Callable[[Patch], None], why: str, monkeypatch: Patch) -> None:
    mutant(monkeypatch)
    violation = broken()
    assert re.search(why, violation), violation
