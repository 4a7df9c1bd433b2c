"""Reads and other harmless requests, repeated while a store is in trouble, within a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from coord.backoff import Backoff
from coord.errors import StoreUnavailable

T = TypeVar("T")


async def retried(ask: Callable[[float], Awaitable[T]], timeout: float) -> T:
    """What `ask(seconds left)` returns. Raises `StoreUnavailable` when it does so for `timeout` seconds."""
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
