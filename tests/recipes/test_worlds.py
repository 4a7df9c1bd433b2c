"""The same steps cause the same requests at the same times, in each process."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Union

from tests.recipes.test_share_simulation import Group
from tests.recipes.test_slot_simulation import MOST, Crowd
from tests.recipes.worlds import Net
from tests.support.levels import by_level, deeper

STEPS = 25
SEED = 3
"""Of a history in which each order of events that was random once matters."""


class Choice:
    """Draws from a strategy that samples, as hypothesis does in a test."""

    def __init__(self, rnd: random.Random) -> None:
        self._random = rnd

    def draw(self, strategy: Any) -> Any:
        return self._random.choice(strategy.elements)


Request = tuple[float, str, str]
Scene = Union[Crowd, Group]


def play(scene: Scene, seed: int) -> list[Request]:
    """Return the requests that arrive at the store: when, which, and with which arguments."""
    rnd = random.Random(seed)
    data = Choice(rnd)
    trace: list[Request] = []

    def traced(store: Any, name: str) -> Callable[..., Any]:
        request = getattr(store, name)

        async def call(subject: Any, *args: Any) -> Any:
            # A set of roles has no order.
            shown = sorted(subject) if isinstance(subject, (set, frozenset)) else subject
            text = f"{shown!r} {args!r}".replace(f"'pid': {os.getpid()}", "'pid': 0")
            trace.append((scene.world.time, name, text))
            return await request(subject, *args)

        return call

    try:
        skew = rnd.choice([0.0, None, 30.0])
        if isinstance(scene, Crowd):
            scene.begin(seed=seed, skew=skew, size=rnd.randint(1, 4))
        else:
            scene.begin(seed=seed, skew=skew, grace=rnd.choice([0.0, 3.0]), size=rnd.randint(1, 3))
        kept = scene.store.announcements()
        for name in ("post", "withdraw", "read"):
            setattr(kept, name, traced(kept, name))
        for name in ("claim", "release", "renew", "read"):
            setattr(scene.store, name, traced(scene.store, name))
        for _ in range(STEPS):
            happen(scene, rnd, data)
        scene.run(60.0)
    finally:
        scene.world.close()
    return trace


def happen(scene: Scene, rnd: random.Random, data: Choice) -> None:
    slots = isinstance(scene, Crowd)
    peers = scene.candidates if slots else scene.members
    what = rnd.randrange(10)
    if what == 0 or not peers:
        if len(peers) < MOST:
            (scene.come if slots else scene.join)(rnd.choice([1.0, 1.02, 0.99]))
    elif what == 1:
        scene.kill(data)
    elif what == 2 and slots:
        scene.step_down(data, rnd.choice([0.0, 2.0, 15.0]), rnd.random() < 0.5)
    elif what == 2:
        scene.leave(data, rnd.choice([0.0, 2.0, 15.0]))
    elif what == 3:
        scene.freeze(data, rnd.choice([2.0, 8.0, 30.0]))
    elif what == 4:
        scene.cut(data, rnd.choice(["cut", "deaf"]), rnd.choice([3.0, 20.0]))
    elif what == 5:
        net = Net(*(rnd.choice([0.0, 0.1, 0.5]) for _ in range(5)))
        scene.net_is_bad(data, net, rnd.choice([3.0, 20.0]))
    elif what == 6:
        scene.machine_sleeps(data, rnd.choice([2.0, 30.0]))
    elif what == 7:
        scene.the_stores_clock_steps(rnd.choice([-0.4, 0.0, 0.4]))
    elif what == 8 and slots:
        scene.change_number(data, rnd.randint(1, 3))
    elif what == 8:
        scene.work_fails(data)
    else:
        scene.wait(rnd.choice([0.05, 0.5, 3.0, 12.0]))


def digest(*scenes: Scene) -> str:
    """Return a hash of the requests of the scenes."""
    traces = [play(scene, SEED) for scene in scenes]
    return hashlib.sha256(repr(traces).encode()).hexdigest()


@deeper
def test_the_same_steps_cause_the_same_requests() -> None:
    """In one process, where the ids of objects differ, and in others, where hashes differ too."""
    code = f"from {__name__} import *; print(digest(Crowd()))"
    others = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for seed in by_level((1, 2), (1, 2, 3, 4), (1, 2, 3, 4))
    ]
    assert digest(Group()) == digest(Group())
    first = digest(Crowd())
    assert digest(Crowd()) == first
    for other in others:
        output, _ = other.communicate(timeout=120)
        assert output.strip() == first, other.args
