"""Leaders change their info, and followers are told what a leader said under its token, never an
older info after a newer one: a hypothesis state machine on virtual time, random scenes by their
seeds, and mutants that they must catch."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from coord.core import swaps
from coord.core.election import Election
from coord.core.info import InfoUpdates
from coord.core.lease import Lease
from coord.core.operations import Renew
from coord.election import observe
from tests.support.levels import by_level, deeper
from tests.verification.simulation.drive import LONG as PAUSES
from tests.verification.simulation.drive import first_violation, happen, played, quiet, run_machine
from tests.verification.simulation.publishers import Publisher, PublishingScene
from tests.verification.simulation.test_simulation import WHO, ConcurrentClaimants

Patch = pytest.MonkeyPatch


class Publishers(ConcurrentClaimants):
    """The faults of `ConcurrentClaimants` without edits by hand, and leaders that say something
    new."""

    scene: PublishingScene | None = None
    kind = PublishingScene
    a_row_is_deleted_or_its_token_rolled_back = None  # type: ignore[assignment]

    @rule(times=st.integers(1, 3))
    def leaders_say_something_new(self, times: int) -> None:
        assert self.scene is not None
        for _ in range(times):
            publish(self.scene)

    @rule(who=WHO)
    def the_watcher_is_cut_off_or_reached_again(self, who: int) -> None:
        assert self.scene is not None
        self.scene.watcher.wire.cut = not self.scene.watcher.wire.cut

    @rule(seconds=st.sampled_from(PAUSES))
    def the_watcher_is_paused(self, seconds: float) -> None:
        assert self.scene is not None
        self.scene.watcher.machine.pause(seconds)

    def teardown(self) -> None:
        if self.scene is None:
            return
        try:
            self.scene.calm()
            self.scene.somebody_leads()
            self.scene.everybody_knows()
        finally:
            self.scene.close()
            self.quiet.__exit__(None, None, None)


def publish(scene: PublishingScene) -> None:
    for claimant in scene.claimants:
        if isinstance(claimant, Publisher) and claimant.believes() is not None:
            claimant.publish()


@deeper
def test_publishers() -> None:
    run_machine(Publishers, by_level(12, 300, 2_000))


def drive(seed: int, steps: int = 25) -> PublishingScene:
    """Play one random scene, and raise what is broken."""
    rnd = random.Random(seed)
    scene = PublishingScene(rnd.randint(2, 4), seed, rnd.choice([0.0, None, 20.0]))
    with played(scene, seed):
        for _ in range(steps):
            for _ in range(rnd.randrange(3)):
                publish(scene)
            what = rnd.randrange(10)
            if what == 0:
                scene.watcher.wire.cut = not scene.watcher.wire.cut
            elif what == 1:
                scene.watcher.machine.pause(rnd.choice(PAUSES))
            elif what > 3:
                happen(scene, rnd, False)
                scene.server.weather.repeated = rnd.choice((0.0, 0.0, 0.3))
            scene.world.run(rnd.choice([0.01, 1.0, 7.0, 20.0]))
        scene.calm()
        scene.somebody_leads()
        scene.everybody_knows()
    return scene


@deeper
def test_random_scenes() -> None:
    scenes = [drive(seed) for seed in range(by_level(8, 60, 300))]
    assert sum(scene.acknowledged for scene in scenes) > 20
    assert sum(scene.watcher.follower.changes for scene in scenes) > 10
    followers = [c for scene in scenes for c in scene.claimants if isinstance(c, Publisher)]
    assert sum(follower.heard.changes for follower in followers) > 10


def followers_take_rows_in_any_order(patch: Patch) -> None:
    latest = observe.latest
    patch.setattr(observe, "latest", lambda before, row, now: latest(None, row, now))


def candidates_take_rows_in_any_order(patch: Patch) -> None:
    original = Election.hint

    def hint(self: Election, lease: Lease, now: Any) -> None:
        if self.observed is not None and lease.older_than(self.observed):
            self.observed = replace(lease, beat=0)
        original(self, lease, now)

    patch.setattr(Election, "hint", hint)


def a_late_answer_counts(patch: Patch) -> None:
    patch.setattr(Election, "_outdated", lambda self, lease, sent_at: False)


def an_unanswered_change_counts_as_stored(patch: Patch) -> None:
    def failed(self: InfoUpdates) -> InfoUpdates:
        return self._replace(stored=self.sent)

    patch.setattr(InfoUpdates, "failed", failed)


def a_renewal_says_what_was_said_before(patch: Patch) -> None:
    renew = swaps.renew

    def late(row: Lease, request: Renew, wall: float) -> Lease | None:
        return renew(row, replace(request, beat=max(request.beat, row.beat + 1)), wall)

    patch.setattr(swaps, "renew", late)


def nobody_looks_again_after_a_failed_read(patch: Patch) -> None:
    patch.setattr(observe, "FAILED_AGAIN", 86_400.0)
    patch.setattr(observe, "VACANT_AGAIN", 86_400.0)


FIRST = {"candidates_take_rows_in_any_order": 10, "a_late_answer_counts": 241}
"""Seen in few scenes: the first scene to try, so that one is found soon."""
MUTANTS: list[tuple[Callable[[Patch], None], str]] = [
    (followers_take_rows_in_any_order, "watcher is told"),
    (candidates_take_rows_in_any_order, "on_info of .* is told"),
    (a_late_answer_counts, "on_info of .* is told"),
    (an_unanswered_change_counts_as_stored, "was acknowledged"),
    (a_renewal_says_what_was_said_before, "goes back"),
    (nobody_looks_again_after_a_failed_read, "None was told"),
]


@pytest.mark.parametrize(("mutant", "why"), MUTANTS, ids=lambda item: getattr(item, "__name__", ""))
def test_a_mutant_is_caught(mutant: Callable[[Patch], None], why: str, monkeypatch: Patch) -> None:
    mutant(monkeypatch)
    calm = PublishingScene(3, 1, 0.0)
    try:
        with quiet():
            calm.somebody_leads()
            calm.everybody_knows()
    finally:
        calm.close()
    first = FIRST.get(mutant.__name__, 0)
    violation = first_violation(drive, first)
    assert re.search(why, violation), violation
