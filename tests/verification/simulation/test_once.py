"""`once` on virtual time: the production code, with callers that are killed, frozen, cut off and
slow, and a net that loses and delays requests and answers."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from coord import AsyncCoordinator, CoordError, Once, Term, TickUnfinished, require_term
from coord.api import once as once_module
from coord.core.kept import Values
from coord.core.ticks import Ledger
from coord.stores.memory.store import MemoryStore
from coord.testing.clocks import World
from coord.testing.history import History
from tests.support.levels import by_level, deeper
from tests.verification.simulation.drive import quiet, weather
from tests.verification.simulation.wire import ROLE, Server, Weather, Wire

TICKS, TTL = (1, 2, 3), 10.0


class Caller:
    """A process that calls `once`, on a machine of its own."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.machine = jobs.world.machine(f"m{len(jobs.world.machines)}")
        self.wire = jobs.wire(jobs.server, self.machine)
        self.coordinator = AsyncCoordinator(store=self.wire, now=self.machine.now)
        self.running: Term | None = None

    def call(self, tick: int, seconds: float, *, fails: bool = False) -> None:
        self.machine.spawn(lambda: self._call(tick, seconds, fails))

    async def _call(self, tick: int, seconds: float, fails: bool) -> None:
        jobs = self.jobs

        async def work() -> int:
            term = require_term()
            jobs.begins(tick, term)
            self.running = term
            try:
                await asyncio.sleep(seconds)
            finally:
                self.running = None
            if fails:
                raise RuntimeError("the work failed")
            return random.getrandbits(60)  # no two runs have one result

        try:
            done = await self.coordinator.once(
                ROLE, tick, work, ttl=TTL, retry=jobs.retry, timeout=60.0
            )
        except (CoordError, RuntimeError) as err:
            jobs.errors.append(err)
        else:
            jobs.ended(tick, done)


class Jobs(RuleBasedStateMachine):
    wire: type[Wire] = Wire
    server_type: type[Server] = Server

    @initialize(
        seed=st.integers(0, 2**32),
        skew=st.sampled_from([0.0, None, 20.0]),
        retry=st.booleans(),
        size=st.integers(2, 3),
    )
    def begin(self, seed: int, skew: float | None, retry: bool, size: int) -> None:
        self.world, self.retry = World(), retry
        self.random = random.Random(seed)
        self.server = self.server_type(self.world, History(), seed, skew)
        self.recorded: dict[Any, tuple[Any, int]] = {}
        self.text = ""
        self.violations: list[str] = []
        self.begun: list[int] = []
        self.errors: list[BaseException] = []
        self.callers = [Caller(self) for _ in range(size)]
        self.world.watchers.append(self.judge)

    def begins(self, tick: int, term: Term) -> None:
        if term.held and tick in self.recorded:
            self.violations.append(f"tick {tick} begins after it was recorded")
        if not self.retry and tick in self.begun:
            self.violations.append(f"tick {tick} begins twice")
        self.begun.append(tick)

    def ended(self, tick: int, done: Once) -> None:
        if self.recorded.get(tick) != (done.result, done.token):
            self.violations.append(f"tick {tick} returns what is not recorded")

    def judge(self) -> None:
        alive = [caller for caller in self.callers if not caller.machine.dead]
        running = [caller for caller in alive if caller.running is not None]
        assert sum(caller.running.held for caller in running) <= 1, "two runs overlap"
        text = self.server.memory._kept.get(ROLE, "")
        if text != self.text:
            self.text = text
            violations = {
                entry.tick: (entry.result, entry.token)
                for entry in Ledger.decode(ROLE, Values.decode(ROLE, text).ticks).entries
                if not entry.begun
            }
            assert self.recorded.items() <= violations.items(), "a record was replaced"
            self.recorded = violations
        assert not self.violations, self.violations[0]

    def run(self, seconds: float) -> None:
        with quiet():
            self.world.run(seconds)

    def caller(self, index: int) -> Caller:
        return self.callers[index % len(self.callers)]

    @rule(
        index=st.integers(0, 9),
        tick=st.sampled_from(TICKS),
        seconds=st.sampled_from([0.0, 1.0, 8.0, 25.0]),
        fails=st.sampled_from([False, False, False, True]),
    )
    def call(self, index: int, tick: int, seconds: float, fails: bool) -> None:
        self.caller(index).call(tick, seconds, fails=fails)

    @rule(seconds=st.sampled_from([0.01, 0.5, 4.0, 12.0]))
    def wait(self, seconds: float) -> None:
        self.run(seconds)

    @rule()
    def weather_changes(self) -> None:
        self.server.weather = weather(self.random)
        self.server.weather.repeated = self.random.choice((0.0, 0.0, 0.3))

    @rule(index=st.integers(0, 9))
    def cut(self, index: int) -> None:
        wire = self.caller(index).wire
        wire.cut = not wire.cut

    @rule(index=st.integers(0, 9), seconds=st.sampled_from([3.0, 15.0, 40.0]))
    def freeze(self, index: int, seconds: float) -> None:
        self.caller(index).machine.pause(seconds)

    @rule(index=st.integers(0, 9), seconds=st.sampled_from([3.0, 40.0]))
    def suspend(self, index: int, seconds: float) -> None:
        self.caller(index).machine.suspend(seconds)

    @precondition(lambda self: len(self.callers) < 8)
    @rule(index=st.integers(0, 9))
    def kill(self, index: int) -> None:
        caller = self.caller(index)
        caller.machine.kill()
        self.callers[self.callers.index(caller)] = Caller(self)

    def come_to_rest(self) -> None:
        """Faults have ended, and everybody else: who calls now gets each tick run."""
        self.server.weather = Weather()
        for caller in self.callers:
            caller.wire.cut = False
        self.run(200.0)
        last = Caller(self)
        self.callers.append(last)
        for tick in TICKS:
            self.errors.clear()
            last.call(tick, 0.0)
            self.run(30.0)
            if self.errors:  # its begin was recorded, perhaps without an answer, and no result
                (error,) = self.errors
                assert isinstance(error, TickUnfinished), error
                assert not self.retry
            else:
                assert tick in self.recorded
                assert tick in self.begun

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                self.come_to_rest()
            finally:
                self.world.close()


@deeper
class TestJobs(Jobs.TestCase):  # type: ignore[misc, name-defined]
    settings = settings(
        max_examples=by_level(30, 300, 2_000),
        stateful_step_count=by_level(20, 40, 40),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def drive(seed: int, retry: bool) -> None:
    """Play one history that the seed draws."""
    rnd, jobs = random.Random(seed), Jobs()
    jobs.begin(seed, rnd.choice([0.0, None, 20.0]), retry, 3)
    try:
        for _ in range(25):
            what = rnd.randrange(8)
            if what <= 3:
                seconds = rnd.choice([0.0, 1.0, 8.0, 25.0])
                jobs.call(rnd.randrange(9), rnd.choice(TICKS), seconds, rnd.random() < 0.2)
            elif what == 4:
                jobs.weather_changes()
            elif what == 5:
                jobs.freeze(rnd.randrange(9), rnd.choice([3.0, 15.0, 40.0]))
            elif what == 6 and len(jobs.callers) < 8:
                jobs.kill(rnd.randrange(9))
            elif what == 7:
                jobs.cut(rnd.randrange(9))
            jobs.run(rnd.choice([0.01, 0.5, 4.0, 12.0]))
        jobs.come_to_rest()
    finally:
        jobs.world.close()


def broken(retry: bool, most: int = 300) -> str:
    """Return what the first of the histories violates in which anything is violated."""
    for seed in range(most):
        try:
            drive(seed, retry)
        except AssertionError as err:
            return str(err).partition("\n")[0] or repr(err)
    return ""


def test_deciding_by_the_read_before_the_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    original = once_module.OnceCall._outcome

    def outcome(self: Any, ledger: Ledger, *, claimed: bool = True) -> Any:
        return None if claimed else original(self, ledger, claimed=False)

    monkeypatch.setattr(once_module.OnceCall, "_outcome", outcome)
    assert "after it was recorded" in broken(retry=True)


def test_a_begin_that_is_not_recorded_first(monkeypatch: pytest.MonkeyPatch) -> None:
    original = once_module.OnceCall._write

    async def write(self: Any, entry: Any, *, stop: bool = False) -> None:
        if not entry.begun:
            await original(self, entry, stop=stop)

    monkeypatch.setattr(once_module.OnceCall, "_write", write)
    assert "begins twice" in broken(retry=False)


def late_record() -> None:
    """A record is on its way for so long that another caller has run the tick meanwhile."""
    jobs = Jobs()
    jobs.begin(1, 0.0, True, 2)
    try:
        jobs.call(0, 1, 1.0, False)
        jobs.run(0.5)
        jobs.server.weather = Weather(delay=40.0)
        jobs.run(1.0)  # it is sent
        jobs.server.weather = Weather()
        jobs.callers[0].wire.cut = True
        jobs.call(1, 1, 0.0, False)
        jobs.run(100.0)
        assert jobs.begun == [1, 1]
        assert jobs.recorded[1][1] == 2
    finally:
        jobs.world.close()


def test_a_late_record_replaces_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    late_record()
    original = MemoryStore._swap

    def swap(self: MemoryStore, row: Any, after: Any, keep: str | None = None) -> Any:
        if after is None and keep is not None:
            self._kept[row.role] = keep
        return original(self, row, after, keep)

    monkeypatch.setattr(MemoryStore, "_swap", swap)  # no token guards it
    with pytest.raises(AssertionError, match="replaced"):
        late_record()
