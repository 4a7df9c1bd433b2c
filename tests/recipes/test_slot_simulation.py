"""Candidates for slots on virtual time: the production code, with candidates that come, go, step
down, are killed, frozen, slow to end their work, and cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from coord import LossReason, Term
from coord.recipes.slot_elector import change_slots
from coord.stores.memory.store import MemoryStore
from tests.recipes.worlds import NETS, PHASES, SEEDS, Net, Peer, SeededWorld
from tests.support.levels import by_level, deeper
from tests.verification.simulation.drive import quiet

SLOTS, TTL = 2, 10.0
MOST = 5
SETTLE = 60.0
"""Seconds after which a change of the number that began is over, and its late requests arrived."""


class Candidate(Peer):
    """A process with one candidate."""

    def __init__(self, crowd: Crowd, rate: float) -> None:
        super().__init__(crowd.world, crowd.store, crowd.skew, rate)
        self.drain = 0.0
        self._crowd = crowd
        self.lead = self.coordinator.slots(
            "r", SLOTS, ttl=TTL, on_elected=self.elected, on_lost=self.lost
        )

    def elected(self, term: Term) -> None:
        # An exception that is raised here would only be logged: `judge` raises it.
        key = (term.slot, term.token)
        if self._crowd.tokens.setdefault(key, self) is not self:
            self._crowd.twice.append(key)

    async def lost(self, term: Term, reason: LossReason) -> None:
        await asyncio.sleep(self.drain)

    @property
    def slot(self) -> int | None:
        held = self.lead.held if self.alive else None
        return None if held is None else held.slot


class Crowd(RuleBasedStateMachine):
    @initialize(seed=SEEDS, skew=st.sampled_from([0.0, None, 30.0]), size=st.integers(1, 4))
    def begin(self, seed: int, skew: float | None, size: int) -> None:
        self.world, self.skew = SeededWorld(seed), skew
        self.offset = 0.0
        self.changed = False
        self.store = MemoryStore(now=lambda: self.world.time + self.offset, wall=self.world.wall)
        self.tokens: dict[tuple[int | None, int], Candidate] = {}
        self.twice: list[tuple[int | None, int]] = []
        self.candidates: list[Candidate] = []
        self.world.watchers.append(self.judge)
        for _ in range(size):
            self.come(1.0)

    def judge(self) -> None:
        """No slot has two at any moment, and no token comes twice."""
        assert not self.twice, self.twice
        held = self.held()
        assert len(held) == len(set(held)), held

    def held(self) -> list[int]:
        return sorted(candidate.slot for candidate in self.candidates if candidate.slot is not None)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        with quiet():
            return self.world.run(seconds, until)

    @precondition(lambda self: len(self.candidates) < MOST)
    @rule(rate=st.sampled_from([1.0, 1.02, 0.99]))
    def come(self, rate: float) -> None:
        candidate = Candidate(self, rate)
        self.candidates.append(candidate)
        candidate.machine.spawn(candidate.lead.start)

    @rule(seconds=st.sampled_from([0.05, 0.5, 3.0, 12.0]))
    def wait(self, seconds: float) -> None:
        self.run(seconds)

    @precondition(lambda self: self.candidates)
    @rule(data=st.data())
    def kill(self, data: Any) -> None:
        candidate = data.draw(st.sampled_from(self.candidates))
        candidate.machine.kill()
        self.candidates.remove(candidate)

    @precondition(lambda self: self.candidates)
    @rule(data=st.data(), seconds=st.sampled_from([0.0, 2.0, 15.0]), again=st.booleans())
    def step_down(self, data: Any, seconds: float, again: bool) -> None:
        candidate = data.draw(st.sampled_from(self.candidates))
        candidate.drain = seconds
        lead = candidate.lead
        candidate.machine.spawn((lambda: lead.step_down(1.0)) if again else lead.stop)
        self.run(20.0)
        if not again:
            candidate.machine.spawn(lead.start)

    @precondition(lambda self: self.candidates)
    @rule(data=st.data(), seconds=st.sampled_from([2.0, 8.0, 30.0]))
    def freeze(self, data: Any, seconds: float) -> None:
        data.draw(st.sampled_from(self.candidates)).machine.pause(seconds)
        self.run(seconds / 2)

    @precondition(lambda self: self.candidates)
    @rule(
        data=st.data(), how=st.sampled_from(["cut", "deaf"]), seconds=st.sampled_from([3.0, 20.0])
    )
    def cut(self, data: Any, how: str, seconds: float) -> None:
        candidate = data.draw(st.sampled_from(self.candidates))
        setattr(candidate.link, how, True)
        self.run(seconds)
        setattr(candidate.link, how, False)

    @precondition(lambda self: self.candidates)
    @rule(data=st.data(), net=NETS, seconds=st.sampled_from([3.0, 20.0]))
    def net_is_bad(self, data: Any, net: Net, seconds: float) -> None:
        data.draw(st.sampled_from(self.candidates)).link.net = net
        self.run(seconds)

    @precondition(lambda self: self.candidates)
    @rule(data=st.data(), seconds=st.sampled_from([2.0, 30.0]))
    def machine_sleeps(self, data: Any, seconds: float) -> None:
        data.draw(st.sampled_from(self.candidates)).machine.suspend(seconds)
        self.run(seconds / 2)

    @rule(part=st.sampled_from([-0.4, 0.0, 0.4]))
    def the_stores_clock_steps(self, part: float) -> None:
        self.offset = part * (self.skew or 0.0)

    @precondition(lambda self: self.candidates)
    @rule(data=st.data(), slots=st.integers(1, 3))
    def change_number(self, data: Any, slots: int) -> None:
        candidate = data.draw(st.sampled_from(self.candidates))
        session = candidate.coordinator.session
        self.changed = True

        async def change() -> None:
            await change_slots(session, "r", slots)
            await change_slots(session, "r", SLOTS)

        candidate.machine.spawn(change)
        self.run(1.0)

    def restore_number(self) -> None:
        """Give the role its number again: a change without an answer may have been applied late,
        and the change back after it never sent."""
        self.run(SETTLE)
        candidate = self.candidates[0]
        session = candidate.coordinator.session
        done: list[int | None] = []

        async def change() -> None:
            done.append(await change_slots(session, "r", SLOTS))

        candidate.machine.spawn(change)
        assert self.run(TTL, lambda: bool(done)), "the number of slots cannot be changed"
        # One that came, or that stopped to come again, under another number was refused.
        for candidate in self.candidates:
            candidate.machine.spawn(candidate.lead.start)

    def full(self) -> bool:
        return self.held() == list(range(SLOTS))[: len(self.candidates)] or (
            len(self.candidates) < SLOTS and len(self.held()) == len(self.candidates)
        )

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            for candidate in self.candidates:
                candidate.calm()
                candidate.drain = 0.0
            if self.changed and self.candidates:
                self.restore_number()
            assert self.run(6 * TTL, self.full), self.held()
            self.run(TTL)
            assert self.full(), "a holder has lost its slot without a reason"
        finally:
            self.world.close()


@deeper
class TestCrowd(Crowd.TestCase):  # type: ignore[misc, name-defined]
    settings = settings(
        max_examples=by_level(12, 100, 300),
        stateful_step_count=by_level(12, 25, 25),
        deadline=None,
        phases=PHASES,
        suppress_health_check=list(HealthCheck),
    )
