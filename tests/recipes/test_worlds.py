"""The same steps cause the same requests at the same times, in each process."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tests.recipes.test_slot_simulation import MOST, Crowd
from tests.recipes.worlds import Net
from tests.support.levels import by_level, deeper

STEPS = 25


class Choice:
    """Draws from a strategy that samples, as hypothesis does in a test."""

    def __init__(self, rnd: random.Random) -> None:
        self._random = rnd

    def draw(self, strategy: Any) -> Any:
        return self._random.choice(strategy.elements)


def play(seed: int) -> list[tuple[float, str, str]]:
    """Return the requests that arrive at the store: when, which, and with which arguments."""
    rnd = random.Random(seed)
    data = Choice(rnd)
    crowd = Crowd()
    trace: list[tuple[float, str, str]] = []

    def traced(store: Any, name: str) -> Callable[..., Any]:
        request = getattr(store, name)

        async def call(subject: Any, *args: Any) -> Any:
            # A set of roles has no order.
            shown = sorted(subject) if isinstance(subject, (set, frozenset)) else subject
            text = f"{shown!r} {args!r}".replace(f"'pid': {os.getpid()}", "'pid': 0")
            trace.append((crowd.world.time, name, text))
            return await request(subject, *args)

        return call

    try:
        crowd.begin(seed=seed, skew=rnd.choice([0.0, None, 30.0]), size=rnd.randint(1, 4))
        kept = crowd.store.announcements()
        for name in ("post", "withdraw", "read"):
            setattr(kept, name, traced(kept, name))
        for name in ("claim", "release", "renew", "read"):
            setattr(crowd.store, name, traced(crowd.store, name))
        for _ in range(STEPS):
            happen(crowd, rnd, data)
        crowd.run(60.0)
    finally:
        crowd.world.close()
    return trace


def happen(crowd: Crowd, rnd: random.Random, data: Choice) -> None:
    what = rnd.randrange(10)
    if what == 0 or not crowd.candidates:
        if len(crowd.candidates) < MOST:
            crowd.come(rnd.choice([1.0, 1.02, 0.99]))
    elif what == 1:
        crowd.kill(data)
    elif what == 2:
        crowd.step_down(data, rnd.choice([0.0, 2.0, 15.0]), rnd.random() < 0.5)
    elif what == 3:
        crowd.freeze(data, rnd.choice([2.0, 8.0, 30.0]))
    elif what == 4:
        crowd.cut(data, rnd.choice(["cut", "deaf"]), rnd.choice([3.0, 20.0]))
    elif what == 5:
        net = Net(*(rnd.choice([0.0, 0.1, 0.5]) for _ in range(5)))
        crowd.net_is_bad(data, net, rnd.choice([3.0, 20.0]))
    elif what == 6:
        crowd.machine_sleeps(data, rnd.choice([2.0, 30.0]))
    elif what == 7:
        crowd.the_stores_clock_steps(rnd.choice([-0.4, 0.0, 0.4]))
    elif what == 8:
        crowd.change_number(data, rnd.randint(1, 3))
    else:
        crowd.wait(rnd.choice([0.05, 0.5, 3.0, 12.0]))


def digest() -> str:
    """Return a hash of the requests of a few histories."""
    traces = [play(seed) for seed in range(3)]
    return hashlib.sha256(repr(traces).encode()).hexdigest()


@deeper
def test_the_same_steps_cause_the_same_requests() -> None:
    """In one process, where the ids of objects differ, and in others, where hashes differ too."""
    first = digest()
    code = f"from {__name__} import digest; print(digest())"
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
    assert digest() == first
    for other in others:
        output, _ = other.communicate(timeout=120)
        assert output.strip() == first, other.args
