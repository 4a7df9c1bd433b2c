"""How long a candidate lets others go first.

All candidates see at the same time that a lease is free. If all of them sent a claim at once, the
store would answer two hundred requests of which one matters. So each candidate draws a delay, and
most delays are long: before they end, the feed shows that the first candidate has the role. These
are the truncated exponential timers with which multicast receivers limit their answers (RFC 5401,
section 4.2, after Nonnenmacher and Biersack). The range of the delays grows with the number of
candidates, if it is known (`coord/election/announcements.py`), because many candidates on few
machines also receive the feed more slowly.

When a lease is released, about one candidate draws no delay at all and claims at once, so that a
handover takes hardly longer with many candidates than with two. Nobody names this candidate, so it
cannot be dead: if no candidate draws that, the shortest of the delays decides.
"""

from __future__ import annotations

import math

from coord.runtime.retry import rng

NO_DELAY_UP_TO = 4
"""Up to this many candidates claim without a delay when a lease is released."""
AT_ONCE = 1.25
"""Of many candidates, this many claim without a delay on average. A higher number costs claims that
the store refuses; with a lower one too often nobody claims at once (now in 29 % of the cases)."""
AT_ONCE_OF_FEW = 5.0
"""Divided by the number of candidates, how many more of them claim without a delay. Few candidates
all claim before the feed shows the first claim, so their delays save nothing."""
AT_ONCE_OF_FEW_PROCESSES = 2.5
"""The same where each process has many candidates, of which one goes first: divided by how many
such processes there are."""


def draw(ttl: float, waiting: int | None) -> tuple[float, float]:
    """Draw the takeover delay and the release delay of one candidate, in seconds."""
    chance = rng.random()
    return takeover_delay(ttl, chance, waiting), release_delay(ttl, chance, waiting)


def takeover_delay(ttl: float, chance: float, waiting: int | None) -> float:
    """Return how long a candidate waits after a lease has expired before it claims.

    Args:
        ttl: The ttl of the lease, in seconds.
        chance: A random number from 0 to 1.
        waiting: How many candidates wait for the role; None if that is not known.

    Returns:
        The delay in seconds, at most a tenth of the ttl.
    """
    if waiting is None:
        return min(0.1, ttl / 10) * math.sqrt(chance)
    if waiting <= 1:
        return 0.0
    return _drawn(min(max(0.06, 0.0015 * waiting), 0.3, ttl / 10), chance, waiting)


def release_delay(ttl: float, chance: float, waiting: int | None, local: int = 1) -> float:
    """Return how long a candidate waits after a lease was released before it claims.

    With few candidates there is no delay; of many, about one has none.

    Args:
        ttl: See `takeover_delay`.
        chance: See `takeover_delay`.
        waiting: See `takeover_delay`.
        local: How many candidates of its process hear of the release later, itself included.

    Returns:
        The delay in seconds, at most a tenth of the ttl.
    """
    if waiting is None or waiting <= NO_DELAY_UP_TO:
        return 0.0
    at_once = (AT_ONCE + AT_ONCE_OF_FEW / waiting) / waiting
    if local > 1:
        processes = max(waiting / local, 1.0)
        at_once = min((AT_ONCE + AT_ONCE_OF_FEW_PROCESSES / processes) / processes, 1.0)
    if chance < at_once:
        return 0.0
    others = (chance - at_once) / (1 - at_once)
    # Above 50 candidates the first delay is long compared with the time that the feed needs.
    span = max(min(0.001 * waiting, 0.05), 0.0005 * waiting)
    return _drawn(min(span, 0.3, ttl / 10), others, waiting)


def _drawn(span: float, chance: float, waiting: int) -> float:
    steep = math.log(waiting) + 1
    return span * math.log1p(chance * math.expm1(steep)) / steep
