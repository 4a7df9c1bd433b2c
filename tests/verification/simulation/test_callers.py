"""Callers of `unique_service` and leaderships on one role, with every fault there is: a hypothesis
state machine on virtual time, random scenes by their seeds, and mutants that they must catch."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from coord.election import unique_service
from coord.election.claimant import Claimant
from coord.election.session import Session
from coord.election.term import Term
from coord.election.unique_service import UniqueServices
from tests.support.levels import by_level, deeper, some
from tests.verification.simulation.callers import Caller, MixedScene
from tests.verification.simulation.drive import (
    come_to_rest,
    first_violation,
    happen,
    played,
    quiet,
    run_machine,
)
from tests.verification.simulation.test_simulation import WHO, ConcurrentClaimants

Patch = pytest.MonkeyPatch


class CallersAndClaimants(ConcurrentClaimants):
    """The faults of `ConcurrentClaimants`, and what callers of `unique_service` and operators do."""

    scene: MixedScene | None = None
    kind = MixedScene

    def caller(self, who: int) -> Caller | None:
        assert self.scene is not None
        callers = self.scene.callers()
        return callers[who % len(callers)] if callers else None

    @rule(who=WHO)
    def a_caller_releases(self, who: int) -> None:
        caller = self.caller(who)
        if caller is not None and caller.coordinator is not None:
            caller.release()

    @rule(who=WHO, ttls=st.sampled_from([0.02, 0.3, 0.9, 1.5]))
    def a_caller_calls_more_often_or_less(self, who: int, ttls: float) -> None:
        caller = self.caller(who)
        if caller is not None:
            caller.period = ttls * caller.scene.timing.ttl

    @rule(who=WHO, patience=st.sampled_from([None, 0.0, 0.004, 1.0]))
    def a_caller_cancels_its_calls(self, who: int, patience: float | None) -> None:
        caller = self.caller(who)
        if caller is not None:
            caller.patience = patience

    @rule(who=WHO, name=st.sampled_from("xy"))
    def a_second_thread_calls_for_the_same_candidate(self, who: int, name: str) -> None:
        caller = self.caller(who)
        if caller is not None:
            caller.call_once_more(name)

    @rule(who=WHO)
    def a_caller_looks_up_the_leader(self, who: int) -> None:
        caller = self.caller(who)
        if caller is not None:
            caller.look_up()

    @rule(who=WHO)
    def a_caller_closes_its_coordinator(self, who: int) -> None:
        caller = self.caller(who)
        if caller is not None:
            caller.close()

    @rule(who=WHO)
    def a_caller_forks_and_the_child_goes_on(self, who: int) -> None:
        caller = self.caller(who)
        if caller is not None and caller.alive and caller.standing:
            caller.go_on_as_a_child()

    @rule(to=st.booleans(), cooldown=st.sampled_from([None, 0.0, 60.0]))
    def an_operator_asks_for_a_handover(self, to: bool, cooldown: float | None) -> None:
        assert self.scene is not None
        self.scene.ask(to, cooldown)


@deeper
def test_callers_and_claimants() -> None:
    examples = int(os.environ.get("COORD_PROOF_EXAMPLES", by_level(20, 300, 2_000)))
    run_machine(CallersAndClaimants, examples)


def drive(seed: int, steps: int = 25) -> MixedScene:
    """Play one random scene, and raise what is broken."""
    rnd = random.Random(seed)
    scene = MixedScene(rnd.randint(2, 5), seed, rnd.choice([0.0, None, 20.0]))
    with played(scene, seed):
        for _ in range(steps):
            caller = rnd.choice(scene.callers() or [None])
            what = rnd.randrange(14)
            if caller is not None and what == 0 and caller.coordinator is not None:
                caller.release()
            elif caller is not None and what == 1:
                caller.period = rnd.choice((0.02, 0.3, 0.9, 1.5)) * scene.timing.ttl
            elif caller is not None and what == 2:
                caller.patience = rnd.choice((None, None, 0.0, 0.004, 1.0))
            elif caller is not None and what == 10:
                caller.call_once_more(rnd.choice("xy"))
            elif caller is not None and what == 11:
                caller.look_up()
            elif caller is not None and what == 12:
                caller.close()
            elif caller is not None and what == 13 and caller.alive and caller.standing:
                caller.go_on_as_a_child()
            elif what in (3, 4):
                scene.ask(rnd.random() < 0.5, rnd.choice((None, 0.0, 60.0)))
            else:
                happen(scene, rnd, True)
                scene.server.weather.repeated = rnd.choice((0.0, 0.0, 0.3))
            scene.world.run(rnd.choice([0.01, 1.0, 7.0, 20.0, 45.0]))
        come_to_rest(scene)
    return scene


@deeper
@pytest.mark.parametrize("first", some([0, 1_000], lambda first: first == 0))
def test_random_scenes(first: int) -> None:
    terms = sum(drive(seed).terms for seed in range(first, first + by_level(5, 8, 8)))
    assert terms > 8


def forked_children_keep_the_candidates(patch: Patch) -> None:
    patch.setattr(UniqueServices, "after_fork", lambda self: None)


def forked_children_keep_the_event_loop(patch: Patch) -> None:
    after_fork = Session.after_fork

    def keeping(self: Session) -> None:
        loop = self._loop
        after_fork(self)
        self._loop = loop

    patch.setattr(Session, "after_fork", keeping)


def mine_ignores_the_clock(patch: Patch) -> None:
    patch.setattr(Term, "held", property(lambda self: not self._over))


def all_candidates_of_a_role_are_one(patch: Patch) -> None:
    patch.setattr(unique_service, "_identity", lambda fields: "the only one")


def requests_are_obeyed_at_once(patch: Patch) -> None:
    """The role is released while the caller still works."""

    def obey(self: Claimant) -> None:
        if self._obey_requests():
            self.stop()

    patch.setattr(Claimant, "check_requests", obey)


MUTANTS: dict[Callable[[Patch], None], int] = {
    forked_children_keep_the_candidates: 0,
    forked_children_keep_the_event_loop: 0,
    mine_ignores_the_clock: 3,
    all_candidates_of_a_role_are_one: 1,
    requests_are_obeyed_at_once: 5,
}
"""The first scene to try, so that one that shows the fault is found soon."""


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_caught(mutant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutant(monkeypatch)
    calm = MixedScene(3, 1, 0.0)
    try:
        with quiet():
            assert calm.world.run(300, until=calm.leads), "nobody leads, with no fault at all"
    finally:
        calm.close()
    violation = first_violation(drive, MUTANTS[mutant])
    assert re.search("lead|work|believe|forked|token|a call raised", violation), violation
