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
from coord.core.timing import Timing
from coord.recipes.slot_elector import change_slots
from coord.stores.memory.store import MemoryStore
from tests.recipes.worlds import NETS, PHASES, SEEDS, Link, Net, Peer, SeededWorld
from tests.support.levels import by_level, deeper
from tests.verification.simulation.drive import quiet

SLOTS, TTL = 2, 10.0
MOST = 5
LASTS = TTL - Timing.of(TTL).margin
"""Seconds for which a candidate holds a slot after it has sent a renewal that is answered."""
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

    def calm(self) -> None:
        super().calm()
        self.drain = 0.0
        self._calm_at = self.machine.now().total

    @property
    def renewed(self) -> bool:
        """Whether a renewal that it sent after the faults was answered, if it holds a slot."""
        held = self.lead.held
        return held is None or held.deadline > self._calm_at + LASTS


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
        self.links: list[Link] = []  # of all candidates, also of those that were killed
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
        self.links.append(candidate.link)
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
        """Whether each candidate holds a slot, or each slot is held."""
        held = self.held()
        return len(held) == min(len(self.candidates), SLOTS) and all(slot < SLOTS for slot in held)

    def settled(self) -> bool:
        """Whether all that the faults can still do is over, and the slots are full.

        The slots may be full before that, and a holder loses its slot with reason: a fault lost the
        answers to its last renewals, so its term ends although the next renewals are answered too
        late or not at all. A late request of the past may then renew its lease, so that nobody
        gets the slot for another ttl.
        """
        return (
            self.full()
            and all(candidate.renewed for candidate in self.candidates)
            and all(link.last_arrival <= self.world.time for link in self.links)
        )

    def holdings(self) -> list[tuple[int | None, int] | None]:
        terms = [candidate.lead.held for candidate in self.candidates]
        return [None if term is None else (term.slot, term.token) for term in terms]

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            for candidate in self.candidates:
                candidate.calm()
            if self.changed and self.candidates:
                self.restore_number()
            assert self.run(6 * TTL, self.settled), self.holdings()
            before = self.holdings()
            moved = self.run(TTL, lambda: self.holdings() != before)
            reason = f"a holder has lost its slot without a reason: {before}, {self.holdings()}"
            assert not moved, reason
            assert self.settled(), "the slots do not stay full"
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
