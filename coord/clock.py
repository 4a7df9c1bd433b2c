"""The machine's clocks, read in one place. Tests put a manual clock where `system_now` stands (`coord.testing`)."""

from __future__ import annotations

import sys
import time
from functools import lru_cache

from coord.timing import Instant

if sys.platform == "linux":
    TOTAL_CLOCK, AWAKE_CLOCK = time.CLOCK_BOOTTIME, time.CLOCK_MONOTONIC
elif sys.platform == "darwin":
    # There CLOCK_MONOTONIC goes on during sleep and CLOCK_UPTIME_RAW does not.
    TOTAL_CLOCK, AWAKE_CLOCK = time.CLOCK_MONOTONIC, time.CLOCK_UPTIME_RAW
else:
    # No clock counts suspend here: a machine that slept finds out at its next request (docs/guarantees.md).
    TOTAL_CLOCK = AWAKE_CLOCK = getattr(time, "CLOCK_MONOTONIC", -1)

COUNTS_SUSPEND = TOTAL_CLOCK != AWAKE_CLOCK


def system_now() -> Instant:
    """Both clocks, now."""
    if AWAKE_CLOCK == -1:
        both = time.monotonic()
        return Instant(both, both)
    # As `Instant(…)`, without its Python code: every `is_leader` comes here.
    return tuple.__new__(Instant, (time.clock_gettime(AWAKE_CLOCK), time.clock_gettime(TOTAL_CLOCK)))


def total_seconds() -> float:
    """The clock that counts suspend, alone."""
    return time.monotonic() if TOTAL_CLOCK == -1 else time.clock_gettime(TOTAL_CLOCK)


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Names this boot of this machine: `total_seconds` compares only within one. "" where it is not to be had."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
