"""The machine's clocks, read in one place. Tests put a manual clock where `system_now` stands
(`coord.testing`)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from coord.core.timing import Instant

if sys.platform == "linux":
    TOTAL_CLOCK, AWAKE_CLOCK = time.CLOCK_BOOTTIME, time.CLOCK_MONOTONIC
elif sys.platform == "darwin":
    # There CLOCK_MONOTONIC goes on during sleep and CLOCK_UPTIME_RAW does not.
    TOTAL_CLOCK, AWAKE_CLOCK = time.CLOCK_MONOTONIC, time.CLOCK_UPTIME_RAW
else:
    # No clock counts suspend here: a machine that slept finds out at its next request
    # (docs/guarantees.md).
    TOTAL_CLOCK = AWAKE_CLOCK = getattr(time, "CLOCK_MONOTONIC", -1)

COUNTS_SUSPEND = TOTAL_CLOCK != AWAKE_CLOCK


def system_now() -> Instant:
    """Both clocks, now."""
    if AWAKE_CLOCK == -1:
        both = time.monotonic()
        return Instant(both, both)
    # As `Instant(…)`, without its Python code: every `is_leader` comes here.
    return tuple.__new__(
        Instant, (time.clock_gettime(AWAKE_CLOCK), time.clock_gettime(TOTAL_CLOCK))
    )


def total_seconds() -> float:
    """The clock that counts suspend, alone."""
    return time.monotonic() if TOTAL_CLOCK == -1 else time.clock_gettime(TOTAL_CLOCK)


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Names this boot of this machine: `total_seconds` compares only within one. "" where it is not
    to be had."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


WALL = "wall"
"""Stands where a boot id would, in rows that were written by wall time."""
WALL_SKEW = 5.0
"""Seconds that a lease must have run out for, where the store's clock is the wall clock, which may
be set."""


@dataclass(frozen=True, slots=True)
class StoreClock:
    """`total` decides, in seconds; `wall` (seconds since 1970) is for people to read. `boot` names
    what `total` counts
    from: a row written under another one was written before the machine started anew, so its holder
    is gone."""

    total: Callable[[], float] = total_seconds
    wall: Callable[[], float] = time.time
    boot: str = ""

    @property
    def skew(self) -> float:
        """How far it may be off. A machine's own clock is never off: all who use the file read the
        same one."""
        return WALL_SKEW if self.boot == WALL else 0.0


def machine_clock() -> StoreClock:
    """CLOCK_BOOTTIME and the boot id (rule 7): steps of the wall clock change nothing.

    Where there is no boot id (no Linux) it is the wall clock: a lease is then still there, and
    still runs out, after a reboot, but setting the clock forward makes it run out early; so a
    takeover by it waits `WALL_SKEW` longer."""
    boot = boot_id()
    return StoreClock(boot=boot) if boot else StoreClock(total=time.time, boot=WALL)
