"""Waiting for what should come at once, without a test's depending on how busy the machine is."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

WITHIN = float(os.environ.get("COORD_TEST_WITHIN", "30"))
"""Seconds. Nothing waits for so long, except on a machine that is loaded ten times over; and in
tests that run with a mutant, which shorten it, because some faults show as something that never
comes."""


def eventually(what: Callable[[], Any], otherwise: object = None, within: float = WITHIN) -> Any:
    """The first true answer of `what`, asked again and again. `otherwise`: what a failure says."""
    until = time.monotonic() + within
    while not (answer := what()):
        assert time.monotonic() < until, otherwise or f"not within {within} s"
        time.sleep(0.005)
    return answer


async def soon(what: Callable[[], Any], otherwise: object = None, within: float = WITHIN) -> Any:
    """The same on a loop."""
    until = time.monotonic() + within
    while not (answer := what()):
        assert time.monotonic() < until, otherwise or f"not within {within} s"
        await asyncio.sleep(0.005)
    return answer
