"""The clock that leases in a file run out by: the machine's own, and the name of the boot within which it counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from coord import clock

WALL = "wall"
"""Stands where a boot id would, in rows that were written by wall time."""
WALL_SKEW = 5.0
"""Seconds that a lease must have run out for, where the store's clock is the wall clock, which may be set."""


@dataclass(frozen=True, slots=True)
class StoreClock:
    """`total` decides, in seconds; `wall` (seconds since 1970) is for people to read. `boot` names what `total` counts
    from: a row written under another one was written before the machine started anew, so its holder is gone."""

    total: Callable[[], float] = clock.total_seconds
    wall: Callable[[], float] = time.time
    boot: str = ""

    @property
    def skew(self) -> float:
        """How far it may be off. A machine's own clock is never off: all who use the file read the same one."""
        return WALL_SKEW if self.boot == WALL else 0.0


def machine_clock() -> StoreClock:
    """CLOCK_BOOTTIME and the boot id (rule 7): steps of the wall clock change nothing.

    Where there is no boot id (no Linux) it is the wall clock: a lease is then still there, and still runs out, after
    a reboot, but setting the clock forward makes it run out early; so a takeover by it waits `WALL_SKEW` longer.
    """
    boot = clock.boot_id()
    return StoreClock(boot=boot) if boot else StoreClock(total=time.time, boot=WALL)
