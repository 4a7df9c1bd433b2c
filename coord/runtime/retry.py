"""How long to hold back after a failure: random, growing, bounded (tenacity's "full jitter")."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from coord.errors import StoreUnavailable


class Backoff:
    """`next()` gives the seconds to wait; `reset()` after a success.

    Random from the first step on, so that a thousand candidates that lost their store together do
    not come back together (the AWS Architecture Blog's "Exponential Backoff And Jitter", as
    tenacity implements it)."""

    __slots__ = ("_failures", "_first", "_most")

    def __init__(self, first: float, most: float) -> None:
        self._first, self._most = first, most
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    def next(self) -> float:
        self._failures += 1
        return full_jitter(self._failures, self._first, self._most)


def full_jitter(failures: int, first: float, most: float) -> float:
    """Seconds to wait after so many failures in a row."""
    from tenacity import (
        RetryCallState,
        Retrying,
        wait_random_exponential,  # 40 ms: not part of `import coord`
    )

    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = failures
    return float(wait_random_exponential(multiplier=first, max=most)(state))


# -- Reads and other harmless requests, repeated while a store is in trouble, within a bound.

T = TypeVar("T")


async def retry_until(ask: Callable[[float], Awaitable[T]], timeout: float) -> T:
    """What `ask(seconds left)` returns. Raises `StoreUnavailable` when it does so for `timeout`
    seconds."""
    loop, backoff = asyncio.get_running_loop(), Backoff(0.02, 1.0)
    until = loop.time() + timeout
    while True:
        try:
            return await ask(max(until - loop.time(), 0.001))
        except StoreUnavailable:
            pause = backoff.next()
            if loop.time() + pause >= until:
                raise
            await asyncio.sleep(pause)
