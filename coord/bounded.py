"""Waiting for something, but not for ever, without a task of its own, and without a cancellation that gets lost."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def bounded(work: Awaitable[T], timeout: float | None) -> T:
    """What `work` returns. After `timeout` seconds (None: never) it is cancelled, and `asyncio.TimeoutError` raised."""
    # Up to Python 3.11 `wait_for` makes a task: two turns of the loop, which somebody may be waiting for. And it
    # swallows a cancellation that comes together with the outcome: whoever cancelled then waits for ever.
    if sys.version_info >= (3, 11):
        async with asyncio.timeout(timeout):
            return await work
    if timeout is None:
        return await work
    task, late = asyncio.current_task(), False
    assert task is not None

    def give_up() -> None:
        nonlocal late
        late = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(timeout, give_up)
    try:
        return await work
    except asyncio.CancelledError:
        if late:
            raise asyncio.TimeoutError from None
        raise
    finally:
        timer.cancel()
