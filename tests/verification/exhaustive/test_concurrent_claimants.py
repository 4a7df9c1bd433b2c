"""Two to five candidates, larger times, every fault there is, at random; then quiet, in which
somebody must lead.

On a failure hypothesis prints the steps and a blob; `COORD_SEED=<the printed number>` runs the same
examples again, and `COORD_LONG=1` runs eight times as many."""

from __future__ import annotations

import os
import random
import sys
from dataclasses import replace
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from coord.core.actions import Send
from coord.core.election import Election
from coord.core.lease import Lease, Revision
from coord.core.timing import Timing
from tests.support.levels import by_level, deeper
from tests.verification.exhaustive import faults
from tests.verification.exhaustive.model import ROLE, Setup, World

TIMING = Timing.of(ttl=32, renew_every=10, attempt_timeout=5, margin=4)
# The margin covers clocks that differ by as much as 32 : 28.
RATES = (0.9375, 1.0625, 1.0, 1.0625, 0.9375)
seats = st.integers(0, 4)
some = st.integers(0, 40)
spans = st.sampled_from((0.0, 0.25, 1.0, 3.0, 5.0, 8.0, 13.0, 28.0, 31.0, 40.0))
retries = st.sampled_from((0.0, 0.5, 2.0))


class Claimants(RuleBasedStateMachine):
    """The rules are what happens in the world; what must hold is looked at after each, by the world
    itself."""

    world: World
    setup = Setup(TIMING, rates=RATES, store_rate=1.0625, skew=6.0)

    @initialize(
        count=st.integers(2, 5),
        takeover_delay=st.lists(st.sampled_from((0.0, 0.5, 3.0)), min_size=5, max_size=5),
        skew=st.sampled_from((None, 0.0, 6.0)),
    )
    def begin(self, count: int, takeover_delay: list[float], skew: float | None) -> None:
        self.world = World(
            replace(self.setup, takeover_delay=tuple(takeover_delay), skew=skew), count
        )
        self.shown: list[Lease] = [Lease(ROLE)]
        self.sights: set[Revision] = set()
        self.tampered = False

    def seat(self, slot: int) -> int:
        return slot % len(self.world.candidates)

    def packet(self, number: int, answered: bool | None = None) -> int | None:
        """One of the packets under way; the oldest ones are the likeliest to be forgotten, and the
        best to find."""
        packets = [
            i
            for i, p in enumerate(self.world.packets)
            if answered is None or (p.answer is not None) is answered
        ]
        return packets[number % len(packets)] if packets else None

    @rule(slot=seats)
    def acts(self, slot: int) -> None:
        self.world.act(self.seat(slot))

    @rule(slot=seats, times=st.integers(1, 3))
    def acts_and_is_answered(self, slot: int, times: int) -> None:
        for _ in range(times):
            self.world.act(self.seat(slot))
            if self.world.candidates[self.seat(slot)].election.in_flight is not None:
                self.noted(lambda: self.world.settle(self.seat(slot)))

    @rule(number=some)
    def arrives(self, number: int) -> None:
        index = self.packet(number, answered=False)
        if index is not None:
            self.noted(lambda: self.world.arrive(index))

    @rule(number=some)
    def is_answered(self, number: int) -> None:
        index = self.packet(number, answered=True)
        if index is not None:
            self.world.answer(index)

    @rule(seconds=spans)
    def time_passes(self, seconds: float) -> None:
        """A candidate that does not act meanwhile was paused."""
        self.world.pass_time(seconds)

    @rule(slot=seats)
    def work_ends(self, slot: int) -> None:
        candidate = self.world.candidates[self.seat(slot)]
        if candidate.working and not candidate.open:
            self.world.drain(self.seat(slot))

    @rule(turns=st.integers(1, 12), seconds=st.sampled_from((1.0, 4.0)))
    def all_is_well_for_a_while(self, turns: int, seconds: float) -> None:
        for _ in range(turns):
            for slot in range(len(self.world.candidates)):
                self.noted(lambda s=slot: self.turn(s))
            self.world.pass_time(seconds)

    @rule(slot=seats, unknown=st.booleans(), stays=st.booleans(), retry_in=retries)
    def fails(self, slot: int, unknown: bool, stays: bool, retry_in: float) -> None:
        slot = self.seat(slot)
        send = self.world.candidates[slot].election.in_flight
        if send is None:
            return
        waiting = any(
            p.send is send and p.answer is None and not p.copy for p in self.world.packets
        )
        unknown = (
            unknown or not waiting
        )  # a request that has reached the store has not failed for certain
        self.world.fail(slot, unknown, stays and unknown, retry_in)

    @rule(number=some)
    def is_lost(self, number: int) -> None:
        index = self.packet(number)
        if index is not None:
            self.world.drop(index)

    @rule(number=some)
    def is_duplicated(self, number: int) -> None:
        index = self.packet(number, answered=False)
        if index is not None:
            self.world.duplicate(index)

    @rule(slot=seats, seconds=spans)
    def sleeps(self, slot: int, seconds: float) -> None:
        self.world.pass_time(seconds, asleep=(self.seat(slot),))

    @rule(slot=seats, to=seats, rest=st.sampled_from((0.0, 4.0)))
    def hands_over(self, slot: int, to: int, rest: float) -> None:
        if self.world.candidates[self.seat(slot)].election.campaigning:
            self.world.transfer(self.seat(slot), self.seat(to), rest)

    @rule(slot=seats)
    def crashes(self, slot: int) -> None:
        self.world.crash(self.seat(slot))

    @rule(off=st.sampled_from((-1.0, -0.5, 0.0, 0.5, 1.0)))
    def store_clock_steps(self, off: float) -> None:
        self.world.step_clock(off * (self.world.setup.skew or 0) / 2)

    @rule(slot=seats, number=some, how=st.sampled_from(("now", "then", "ahead")))
    def feed_shows(self, slot: int, number: int, how: str) -> None:
        lease: Lease | None = self.world.shown()
        index = self.packet(number, answered=False)
        if how == "then":
            lease = self.shown[number % len(self.shown)]
        elif how == "ahead" and index is not None:
            lease = self.world.ahead(index)
        if lease is not None:
            self.world.whisper(self.seat(slot), lease)

    @rule(slot=seats, rest=spans, linger=st.sampled_from((0.0, 0.0, 3.0, 40.0)))
    def steps_down(self, slot: int, rest: float, linger: float) -> None:
        self.world.resign(self.seat(slot), rest, linger)

    @rule(slot=seats, linger=st.sampled_from((0.0, 0.0, 3.0)))
    def stands_down(self, slot: int, linger: float) -> None:
        self.world.stop(self.seat(slot), linger)

    @rule(slot=seats)
    def abandons_the_work(self, slot: int) -> None:
        self.world.abandon(self.seat(slot))

    @rule(slot=seats)
    def is_prompted(self, slot: int) -> None:
        self.world.try_now(self.seat(slot))

    @rule()
    def row_is_deleted(self) -> None:
        self.world.tamper(Lease(ROLE))
        self.tampered = True

    @rule(back=st.integers(1, 3))
    def token_is_rolled_back(self, back: int) -> None:
        row = self.world.shown()
        self.world.tamper(replace(row, token=max(0, row.token - back)))
        self.tampered = True

    def noted(self, happens: Any) -> None:
        """Rule 9, over the whole history: no write leaves a sight that was there before."""
        before = self.world.row
        happens()
        row = self.world.row
        self.shown = [*self.shown[-20:], row]
        if row is not before and not self.tampered:
            assert row.revision not in self.sights, f"the sight {row.revision} was there before"
            self.sights.add(row.revision)

    def turn(self, slot: int) -> None:
        """What a healthy shell does at one moment, with a store that answers at once and a feed
        that shows the row."""
        world = self.world
        election = world.candidates[slot].election
        if election.observed is not None and election.observed.revision != world.row.revision:
            world.whisper(slot, world.shown())
        for _ in range(8):
            candidate = world.candidates[slot]
            if candidate.election.in_flight is not None:
                world.settle(slot)
            elif candidate.working and not candidate.open:
                world.drain(slot)
            else:
                action = world.act(slot)
                if not isinstance(action, Send) and not (
                    world.candidates[slot].working and not candidate.open
                ):
                    return

    def teardown(self) -> None:
        """Faults stop: what is under way comes in. Somebody leads within ttl + two attempts +
        patience, and goes on."""
        if not hasattr(self, "world") or sys.exc_info()[0] is not None:
            return  # something has been found already: what comes after it tells nothing
        world = self.world
        while (index := self.packet(0, answered=False)) is not None:
            self.noted(lambda i=index: world.arrive(i))
        while world.packets:
            world.answer(0)
        for slot, candidate in enumerate(world.candidates):
            assert candidate.election.campaigning or world.stops(slot), (
                f"candidate {slot} does not stop"
            )
            if (
                not candidate.election.campaigning
                or candidate.election._cooldown_until > candidate.now.total
            ):
                world.crash(slot)  # it stands again, at once
        row = world.row
        bound = (
            max(row.ttl, TIMING.ttl)
            + 2 * TIMING.attempt_timeout
            + max(world.setup.takeover_delay)
            + max(2.0, *RATES)
        )
        passed = 0.0
        while not any(candidate.leads for candidate in world.candidates):
            assert passed <= bound / min(RATES), f"nobody leads {passed} s after the last fault"
            for slot in range(len(world.candidates)):
                self.noted(lambda s=slot: self.turn(s))
            if not any(candidate.leads for candidate in world.candidates):
                world.pass_time(0.5)
                passed += 0.5
        self.quiet(70.0)  # a leader whose row was edited finds out, and another follows
        leaders = [slot for slot, candidate in enumerate(world.candidates) if candidate.leads]
        assert len(leaders) == 1
        token = world.candidates[leaders[0]].election.token
        self.quiet(200.0)
        candidate = world.candidates[leaders[0]]
        assert candidate.leads, "a leader that nothing hinders goes on"
        assert candidate.election.token == token

    def quiet(self, seconds: float) -> None:
        for _ in range(int(seconds / 5)):
            self.world.pass_time(5.0)
            for slot in range(len(self.world.candidates)):
                self.turn(slot)


SEED = int(os.environ.get("COORD_SEED", random.randrange(2**32)))
EXAMPLES = by_level(60, 1_000, 4_000)
PROFILE = settings(
    max_examples=EXAMPLES,
    stateful_step_count=60,
    deadline=None,
    print_blob=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@deeper
@pytest.mark.timeout(3600)
def test_concurrent_claimants() -> None:
    print(f"COORD_SEED={SEED}")
    run_state_machine_as_test(hypothesis.seed(SEED)(Claimants), settings=PROFILE)


@pytest.mark.parametrize(
    "fault", [faults.ForgetsItsFloor, faults.NoDeadlineInLeads, faults.BeatsDoNotReset]
)
def test_the_machine_notices(fault: type[Election]) -> None:
    """The same machine on a core that is broken: or it would be no proof that it finds nothing in
    ours."""

    class Broken(Claimants):
        setup = replace(Claimants.setup, election=fault)

    eager = settings(
        PROFILE, max_examples=2_000, phases=[Phase.generate], report_multiple_bugs=False
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(hypothesis.seed(1)(Broken), settings=eager)
