"""The durations of an election, checked against each other (rule 11), and the two clocks that they
are measured by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from coord.core import validation
from coord.errors import BadArgument


class Instant(NamedTuple):
    """One reading of two clocks, in seconds.

    `awake` stands still while the machine sleeps (CLOCK_MONOTONIC): a challenger waits by it.
    `total` goes on (CLOCK_BOOTTIME): a leader's deadline is on it, so that a laptop that slept
    knows that it lost (rule 7)."""

    awake: float
    total: float

    def after(self, seconds: float) -> Instant:
        return Instant(self.awake + seconds, self.total + seconds)


def default_margin(ttl: float) -> float:
    """max(ttl / 10, 1 s), but never more than a quarter of the ttl."""
    return min(max(ttl / 10, 1.0), ttl / 4)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things take, in seconds.

    ttl: a lease runs this long after a renewal (30)
    renew_every: a leader renews this often (ttl / 3)
    attempt_timeout: one request to the store may take this long (ttl / 6)
    margin: a leader stops believing this long before its lease runs out (max(ttl / 10, 1), at most
    ttl / 4)

    `renew_every + 2 * attempt_timeout + margin <= ttl`: one renewal may fail, and a second still be
    in time. Make one with `Timing.of`, which checks; errors are `BadArgument` and print the
    numbers. The rule is client-go's (leaderelection.go validates its three durations against each
    other), made for two attempts."""

    ttl: float
    renew_every: float
    attempt_timeout: float
    margin: float

    @classmethod
    def of(
        cls,
        ttl: float = 30.0,
        renew_every: float | None = None,
        attempt_timeout: float | None = None,
        margin: float | None = None,
    ) -> Timing:
        """The durations, in seconds, with the defaults for those that are not given. Raises
        `BadArgument`."""
        ttl = validation.ttl(ttl)
        renew = (
            ttl / 3
            if renew_every is None
            else validation.number(renew_every, "renew_every", low=0, above=True)
        )
        attempt = (
            ttl / 6
            if attempt_timeout is None
            else validation.number(attempt_timeout, "attempt_timeout", low=0, above=True)
        )
        spare = (
            default_margin(ttl) if margin is None else validation.number(margin, "margin", low=0)
        )
        needed = renew + 2 * attempt + spare
        if needed > ttl * (1 + 1e-9):
            raise BadArgument(
                "ttl",
                ttl,
                f"renew_every + 2 * attempt_timeout + margin must fit into it: "
                f"{renew:g} + 2 * {attempt:g} + {spare:g} = {needed:g} s",
            )
        return _shared(ttl, renew, attempt, spare)


_shared = lru_cache(maxsize=64)(Timing)  # ten thousand roles of one kind have one
