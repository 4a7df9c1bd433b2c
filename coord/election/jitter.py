"""How long a candidate lets others go first: nothing when it is alone, a drawn moment when many
wait.

All candidates see a lease come free at the same time. Were they all to ask at once, the store would
answer two hundred questions of which one mattered. So each draws a moment, most of them late ones,
and the first has told the others through the feed before theirs has come: the truncated exponential
timers by which multicast receivers keep their answers few (RFC 5401, section 4.2, after
Nonnenmacher and Biersack). The span grows with the number of those that wait, as far as that is
known (`coord/election/announcements.py`), for many on few machines also hear more slowly."""

from __future__ import annotations

import math

from coord.runtime.retry import rng

NO_DELAY_UP_TO = 4
"""So few do not wait for one another when a lease is given back."""


def draw(ttl: float, waiting: int | None) -> tuple[float, float]:
    """One candidate's `at_takeover` and `at_release`."""
    chance = rng.random()
    return takeover_delay(ttl, chance, waiting), release_delay(ttl, chance, waiting)


def takeover_delay(ttl: float, chance: float, waiting: int | None) -> float:
    """Seconds beyond the end of a lease that has run out. `chance` is drawn from 0 to 1; `waiting`
    None: unknown."""
    if waiting is None:
        return min(0.1, ttl / 10) * math.sqrt(chance)
    if waiting <= 1:
        return 0.0
    return _drawn(min(max(0.06, 0.0015 * waiting), 0.3, ttl / 10), chance, waiting)


def release_delay(ttl: float, chance: float, waiting: int | None) -> float:
    """Seconds from when a lease was seen to have been given back."""
    if waiting is None or waiting <= NO_DELAY_UP_TO:
        return 0.0
    return _drawn(min(0.001 * waiting, 0.3, ttl / 10), chance, waiting)


def _drawn(span: float, chance: float, waiting: int) -> float:
    steep = math.log(waiting) + 1
    return span * math.log1p(chance * math.expm1(steep)) / steep
