"""One scene from one number: what happens in it is drawn from the seed, so that a failure can be
seen again.

python -m tests.verification.simulation.drive 0 1000      # seeds 0 to 999; prints each failure, and
how long nobody led at most"""

from __future__ import annotations

import logging
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.verification.simulation.claimants import Claimant, Scene
from tests.verification.simulation.wire import Weather

LONG = (1.0, 15.0, 40.0, 100.0)


@contextmanager
def quiet() -> Iterator[None]:
    """Losses and failures are what this is about: they need not be told on the way."""
    logger = logging.getLogger("coord")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def played(scene: Scene, seed: int) -> Iterator[None]:
    """Play a scene without a log: the seed is named in what fails, and the scene is closed."""
    try:
        with quiet():
            yield
    except AssertionError as err:
        raise AssertionError(f"seed {seed}: {err}") from err
    finally:
        scene.close()


def come_to_rest(scene: Scene) -> None:
    """End all faults, and judge what has happened."""
    scene.check_callbacks()
    scene.calm()
    scene.somebody_leads()
    scene.judge()


def run_machine(machine: type[RuleBasedStateMachine], examples: int) -> None:
    """Run a state machine for so many examples, each of 25 steps at most."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def drive(seed: int, steps: int = 25, edits: bool = True) -> Scene:
    """Raises what was broken. The scene is closed when it comes back."""
    rnd = random.Random(seed)
    scene = Scene(rnd.randint(2, 5), seed, rnd.choice([0.0, None, 20.0]))
    with played(scene, seed):
        for _ in range(steps):
            happen(scene, rnd, edits)
            scene.world.run(rnd.choice([0.01, 1.0, 7.0, 20.0, 45.0]))
        come_to_rest(scene)
    return scene


def first_violation(play: Callable[[int], object], first: int = 0, scenes: int = 300) -> str:
    """Return the first promise that one of these random scenes breaks.

    Args:
        play: Plays the scene of a seed, and raises AssertionError if it breaks a promise.
        first: The seed of the first scene.
        scenes: How many scenes to play at most.
    """
    for seed in range(first, first + scenes):
        try:
            play(seed)
        except AssertionError as err:
            return str(err)
    return "no scene has caught it"


def happen(scene: Scene, rnd: random.Random, edits: bool) -> None:
    index = rnd.randrange(len(scene.claimants))
    first = scene.claimants[index]
    what = rnd.randrange(14)
    if what in (0, 13):
        scene.server.weather = weather(rnd)
    elif what == 1:
        first.machine.pause(rnd.choice(LONG))
    elif what == 2:
        first.machine.suspend(rnd.choice(LONG))
    elif what == 3:
        first.machine.kill()
        scene.replace(index)
    elif what == 4:
        first.fork()
        scene.replace(index)
    elif what == 5:
        first.act(rnd.choice((0.0, 10.0, 60.0)))
    elif what == 6:
        leave(first, stop=rnd.random() < 0.3)
    elif what == 7 and scene.server.max_clock_skew:
        scene.server.offset = rnd.uniform(-0.4, 0.4) * scene.server.max_clock_skew
    elif what == 8:
        first.drain = rnd.choice((0.0, 5.0, 50.0))
    elif what == 9 and edits and rnd.random() < 0.2:
        scene.server.edit(rnd.choice([None, *scene.server.past]))
    elif what == 10:
        first.fail_elected = rnd.random() < 0.3
    elif what in (11, 12):
        first.wire.cut = not first.wire.cut


def leave(first: Claimant, stop: bool) -> None:
    if first.lead is not None:
        first.standing = first.standing and not stop
        first.machine.spawn(first.lead.stop if stop else first.lead.step_down)


def weather(rnd: random.Random) -> Weather:
    often = rnd.choice((0.05, 0.3))
    return Weather(
        *(rnd.choice((0.0, 0.0, often)) for _ in range(4)),
        reset=rnd.random(),
        delay=rnd.choice((0.003, 0.003, 0.1, 3.0, 20.0)),
        answer_delay=rnd.choice((0.003, 0.1, 3.3)),
        feed_lost=rnd.choice((0.0, 0.3, 1.0)),
        feed_repeated=rnd.random() / 2,
        feed_ahead=rnd.choice((0.0, 0.5)),
        feed_dies=rnd.choice((0.0, 0.2)),
    )


def main(first: int, last: int) -> int:
    failures, terms, began = 0, 0, time.monotonic()
    waited: dict[float | None, list[tuple[float, int]]] = defaultdict(list)
    for seed in range(first, last):
        try:
            scene = drive(seed)
        except AssertionError as err:
            failures += 1
            print(err)
        else:
            terms += scene.terms
            waited[scene.server.max_clock_skew].append((scene.waited, seed))
    for skew, times in waited.items():
        most, seed = max(times)
        print(
            f"max_clock_skew {skew}: {len(times)} scenes; nobody led for at most {most:.2f} s (seed {seed})"
        )
    print(
        f"{last - first} scenes, {terms} terms, {failures} failures, {time.monotonic() - began:.1f} s"
    )
    return failures


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])) > 0)
