"""Waiting for something, but not for ever, without a task of its own where Python can (from 3.11 on)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def bounded(work: Coroutine[Any, Any, T], timeout: float) -> T:
    """What `work` returns. After `timeout` seconds it is cancelled, and `asyncio.TimeoutError` raised."""
    # `wait_for` makes a task up to Python 3.11: two turns of the loop, which somebody may be waiting for.
    if sys.version_info >= (3, 11):
        async with asyncio.timeout(timeout):
            return await work
    return await asyncio.wait_for(work, timeout)
