"""Waits after failures: random, growing and bounded ("full jitter")."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from coord.errors import StoreUnavailable

T = TypeVar("T")

RETRY_FIRST, RETRY_MAX = 0.02, 1.0
"""Seconds that `retry_until` waits at most after the first failure, and after any."""
MIN_REMAINING = 0.001
"""Seconds that `retry_until` gives the last attempt at least."""


class Backoff:
    """Computes how long to wait after each failure in a row.

    The wait is random from the first failure on, so that a thousand candidates that lost their
    store at the same time do not return at the same time (AWS Architecture Blog, "Exponential
    Backoff And Jitter").

    Args:
        first: The longest wait after the first failure, in seconds. It doubles with each failure.
        most: The longest wait after any failure, in seconds.
    """

    __slots__ = ("_failures", "_first", "_most")

    def __init__(self, first: float, most: float) -> None:
        self._first, self._most = first, most
        self._failures = 0

    def reset(self) -> None:
        """Start again with the shortest wait: a request succeeded."""
        self._failures = 0

    def next(self) -> float:
        """Count a failure, and return how many seconds to wait."""
        self._failures += 1
        return full_jitter(self._failures, self._first, self._most)


def full_jitter(failures: int, first: float, most: float) -> float:
    """Return a random wait in seconds after `failures` failures in a row (1 or more).

    Args:
        failures: The number of failures in a row.
        first: The longest wait after one failure, in seconds. It doubles with each failure.
        most: The longest wait, in seconds.
    """
    # From the thousandth failure on, 2.0 ** failures would not be a float any more.
    longest = min(most, first * 2.0 ** min(failures - 1, 100))
    return random.uniform(0, longest)  # noqa: S311  # the wait is not a secret


async def retry_until(ask: Callable[[float], Awaitable[T]], timeout: float) -> T:
    """Call `ask` until it does not raise `StoreUnavailable`, for at most `timeout` seconds.

    Use it for requests that may be repeated.

    Args:
        ask: Makes the request. It gets the remaining time in seconds, at least 0.001.
        timeout: Seconds from now after which no other attempt begins.

    Returns:
        What `ask` returned.

    Raises:
        StoreUnavailable: The last attempt raised it, and the next one would be too late.
    """
    # tenacity takes 40 ms to import, so `import coord` does without it.
    from tenacity import (
        AsyncRetrying,
        RetryCallState,
        retry_if_exception_type,
        wait_random_exponential,
    )

    loop = asyncio.get_running_loop()
    end = loop.time() + timeout

    async def attempt() -> T:
        return await ask(max(end - loop.time(), MIN_REMAINING))

    def next_is_too_late(state: RetryCallState) -> bool:
        # tenacity's own `stop_before_delay` reads another clock than the loop, which tests replace.
        return loop.time() + state.upcoming_sleep >= end

    attempts = AsyncRetrying(
        sleep=asyncio.sleep,
        stop=next_is_too_late,
        wait=wait_random_exponential(multiplier=RETRY_FIRST, max=RETRY_MAX),
        retry=retry_if_exception_type(StoreUnavailable),
        reraise=True,
    )
    return await attempts(attempt)
