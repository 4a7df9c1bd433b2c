"""The durations of an election, checked against each other, and two clocks."""

from __future__ import annotations

from typing import NamedTuple

from coord.core import validation
from coord.errors import BadArgument


class Instant(NamedTuple):
    """One reading of two clocks, in seconds.

    Attributes:
        awake: Stops while the machine is suspended (CLOCK_MONOTONIC). Followers wait on this clock.
        total: Continues during suspend (CLOCK_BOOTTIME). The deadline of a leader is on this clock,
            so that a laptop that was suspended knows that it lost the lease (rule 7).
    """

    awake: float
    total: float

    def after(self, seconds: float) -> Instant:
        """Return the instant `seconds` later on both clocks."""
        return Instant(self.awake + seconds, self.total + seconds)


def default_margin(ttl: float) -> float:
    """Return the default margin in seconds: max(ttl / 10, 1), at most a quarter of the ttl."""
    return min(max(ttl / 10, 1.0), ttl / 4)


class Timing(NamedTuple):
    """The durations of an election, in seconds. Create one with `Timing.of`, which checks them.

    `renew_every + 2 * attempt_timeout + margin <= ttl`, so that one renewal may fail and a second
    one is still in time. client-go checks its durations in the same way (leaderelection.go), for
    one attempt.

    Attributes:
        ttl: A lease lasts this long after a renewal.
        renew_every: Time between two renewals.
        attempt_timeout: Maximum time of one request to the store.
        margin: A leader stops this long before its lease expires.
    """

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
        """Return durations that fit together, in seconds.

        Args:
            ttl: A lease lasts this long after a renewal.
            renew_every: Time between two renewals; None means ttl / 3.
            attempt_timeout: Maximum time of one request to the store; None means ttl / 6.
            margin: A leader stops this long before its lease expires; None means max(ttl / 10, 1),
                at most ttl / 4.

        Raises:
            BadArgument: A duration is invalid, or they do not fit together.
        """
        return _checked(ttl, renew_every, attempt_timeout, margin)


@validation.shared
def _checked(
    ttl: float, renew_every: float | None, attempt_timeout: float | None, margin: float | None
) -> Timing:
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
    spare = default_margin(ttl) if margin is None else validation.number(margin, "margin", low=0)
    needed = renew + 2 * attempt + spare
    if needed > ttl * (1 + 1e-9):
        raise BadArgument(
            "ttl",
            ttl,
            f"must be at least renew_every + 2 * attempt_timeout + margin: "
            f"{renew:g} + 2 * {attempt:g} + {spare:g} = {needed:g} s",
        )
    return Timing(ttl, renew, attempt, spare)
