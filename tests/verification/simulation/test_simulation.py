"""Two to five claimants, each the production code of core and shells, on virtual time, with every
fault there is.

A failure prints the rules that lead to it and a `@reproduce_failure` line;
`tests/verification/simulation/drive.py` runs any number of random scenes by their seeds, and a
failure of `test_random_scenes` names its own."""

from __future__ import annotations

import dataclasses
import os

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.support.levels import by_level, deeper, some
from tests.verification.simulation.claimants import Scene
from tests.verification.simulation.drive import come_to_rest, drive, leave, quiet, run_machine
from tests.verification.simulation.wire import Weather

CHANCE = st.sampled_from([0.0, 0.05, 0.3, 1.0])
LONG = st.sampled_from([1.0, 15.0, 29.0, 40.0, 100.0])
WHO = st.integers(0, 4)


class ConcurrentClaimants(RuleBasedStateMachine):
    """Each rule is a fault, or lets time pass. `Scene.check` looks at every promise after
    everything that happens."""

    scene: Scene | None = None
    kind: type[Scene] = Scene

    @initialize(
        claimants=st.integers(2, 5),
        seed=st.integers(0, 2**32),
        skew=st.sampled_from([0.0, None, 20.0]),
        ttl=st.sampled_from([30.0, 8.0]),
    )
    def begin(self, claimants: int, seed: int, skew: float | None, ttl: float) -> None:
        self.quiet = quiet()
        self.quiet.__enter__()
        self.scene = self.kind(claimants, seed, skew, ttl=ttl)

    def scene_of(self, who: int) -> tuple[int, Scene]:
        assert self.scene is not None
        return who % len(self.scene.claimants), self.scene

    @rule(seconds=st.sampled_from([0.01, 1.0, 5.0, 12.0, 31.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.scene_of(0)[1].world.run(seconds)

    @rule(
        not_done=CHANCE,
        permanent=CHANCE,
        lost=CHANCE,
        answer_lost=CHANCE,
        repeated=CHANCE,
        reset=CHANCE,
        delay=st.sampled_from([0.003, 0.1, 3.0, 20.0]),
        answer_delay=st.sampled_from([0.003, 0.1, 3.3]),
    )
    def the_store_fails(self, **what: float) -> None:
        """Errors of each class: not done, permanent, unknown and not done, unknown and done, early,
        late or never."""
        server = self.scene_of(0)[1].server
        server.weather = dataclasses.replace(server.weather, **what)

    @rule()
    def the_store_recovers(self) -> None:
        self.scene_of(0)[1].server.weather = Weather()

    @rule(feed_lost=CHANCE, feed_repeated=CHANCE, feed_ahead=CHANCE, feed_dies=CHANCE)
    def feeds_fail(self, **what: float) -> None:
        server = self.scene_of(0)[1].server
        server.weather = dataclasses.replace(server.weather, **what)

    @rule(who=WHO)
    def a_process_is_cut_off_or_reached_again(self, who: int) -> None:
        index, scene = self.scene_of(who)
        scene.claimants[index].wire.cut = not scene.claimants[index].wire.cut

    @rule()
    def every_feed_dies(self) -> None:
        for feed in tuple(self.scene_of(0)[1].server.feeds):
            feed.die()

    @rule(who=WHO, seconds=LONG)
    def a_process_is_paused(self, who: int, seconds: float) -> None:
        index, scene = self.scene_of(who)
        scene.claimants[index].machine.pause(seconds)

    @rule(who=WHO, seconds=st.sampled_from([0.0, 10.0, 60.0]))
    def a_process_is_paused_between_check_and_write(self, who: int, seconds: float) -> None:
        index, scene = self.scene_of(who)
        scene.claimants[index].act(seconds)

    @rule(who=WHO, seconds=LONG)
    def a_machine_sleeps(self, who: int, seconds: float) -> None:
        index, scene = self.scene_of(who)
        scene.claimants[index].machine.suspend(seconds)

    @rule(who=WHO)
    def a_process_is_killed_and_another_started(self, who: int) -> None:
        index, scene = self.scene_of(who)
        scene.claimants[index].machine.kill()
        scene.replace(index)

    @rule(who=WHO)
    def a_process_forks_and_the_parent_dies(self, who: int) -> None:
        index, scene = self.scene_of(who)
        scene.claimants[index].fork()
        scene.replace(index)

    @rule(who=WHO, stop=st.booleans())
    def a_process_hands_over(self, who: int, stop: bool) -> None:
        index, scene = self.scene_of(who)
        leave(scene.claimants[index], stop)

    @rule(who=WHO, seconds=st.sampled_from([0.0, 5.0, 50.0]))
    def work_takes_long_to_end(self, who: int, seconds: float) -> None:
        index, scene = self.scene_of(who)
        scene.claimants[index].drain = seconds

    @rule(who=WHO)
    def a_callback_fails(self, who: int) -> None:
        index, scene = self.scene_of(who)
        scene.claimants[index].fail_elected = not scene.claimants[index].fail_elected

    @rule(part=st.floats(-0.4, 0.4))
    def the_stores_clock_steps(self, part: float) -> None:
        server = self.scene_of(0)[1].server
        server.offset = part * (server.max_clock_skew or 0.0)

    @precondition(lambda self: self.scene is not None and self.scene.server.edits < 2)
    @rule(back=st.integers(0, 30))
    def a_row_is_deleted_or_its_token_rolled_back(self, back: int) -> None:
        server = self.scene_of(0)[1].server
        server.edit(server.past[-back] if 0 < back <= len(server.past) else None)

    @invariant()
    def callbacks_come_in_pairs(self) -> None:
        if self.scene is not None:
            self.scene.check_callbacks()

    def teardown(self) -> None:
        if self.scene is None:
            return
        try:
            come_to_rest(self.scene)
        finally:
            self.scene.close()
            self.quiet.__exit__(None, None, None)


@deeper
def test_concurrent_claimants() -> None:
    examples = int(os.environ.get("COORD_PROOF_EXAMPLES", by_level(30, 500, 2_000)))
    run_machine(ConcurrentClaimants, examples)


def test_an_edit_after_a_turn_at_the_very_end_of_a_run_is_not_earlier_than_the_turn() -> None:
    """A history was malformed: a turn of a loop ended after the end of the run, and the next event
    was recorded with the time at which the run should have ended."""
    machine = ConcurrentClaimants()
    machine.begin(claimants=2, seed=0, skew=0.0, ttl=30.0)
    try:
        machine.a_machine_sleeps(seconds=1.0, who=0)
        machine.time_passes(seconds=1.0)
        machine.a_row_is_deleted_or_its_token_rolled_back(back=0)
    finally:
        machine.teardown()
    assert machine.scene is not None
    times = [event.at for event in machine.scene.history.events]
    assert times == sorted(times)


@deeper
@pytest.mark.parametrize("first", some([0, 1_000], lambda first: first == 0))
def test_random_scenes(first: int) -> None:
    for seed in range(first, first + by_level(8, 12, 12)):
        drive(seed)


def test_a_scene_repeats_itself_from_its_seed() -> None:
    def trace(seed: int) -> list[tuple[object, ...]]:
        names: dict[object, int] = {}

        def plain(
            value: object,
        ) -> object:  # candidates' ids are random for real: what matters is which is which
            if isinstance(value, dict):
                return {key: plain(first) for key, first in value.items()}
            if isinstance(value, list):
                return [plain(item) for item in value]
            return (
                names.setdefault(value, len(names))
                if isinstance(value, str) and len(value) == 32
                else value
            )

        events = drive(seed).history.events
        return [(e.kind, e.at, e.process, e.action, plain(dict(e.value))) for e in events]

    assert trace(5) == trace(5)
    assert trace(5) != trace(6)


@pytest.mark.parametrize(("skew", "ttls"), [(0.0, 1), (None, 2)])
def test_how_long_nobody_leads_after_the_leader_is_killed(skew: float | None, ttls: int) -> None:
    """One ttl where the store's clock is trusted. Up to two where it is not: the last renewal was
    not seen."""
    worst = 0.0
    for after in range(0, 30, 3):
        scene = Scene(2, 77 + after, skew, drift=0.0)
        scene.server.tells_renewals = False
        try:
            scene.world.run(60 + after)
            leader = next(claimant for claimant in scene.claimants if claimant.believes())
            leader.machine.kill()
            began = scene.world.time
            assert scene.world.run(scene.bound(), until=scene.leads)
            worst = max(worst, scene.world.time - began)
        finally:
            scene.close()
    assert (ttls - 1) * 30 < worst < ttls * 30 + 1
