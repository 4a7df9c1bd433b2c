"""Samples of two or more things taken in turns, so that what else the machine does meets them
alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def medians(
    works: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 0
) -> dict[str, float]:
    """The median of what each returns, over `rounds`; the first `warm_up` rounds are not counted.

    Who goes first changes from round to round: what comes second finds caches and the disk as the
    first left them."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for turn in range(rounds + warm_up):
        for name in names if turn % 2 == 0 else reversed(names):
            value = works[name]()
            if turn >= warm_up:
                taken[name].append(value)
    return {name: statistics.median(values) for name, values in taken.items()}
