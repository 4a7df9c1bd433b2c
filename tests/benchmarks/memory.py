"""What a process holds of the machine's memory, in bytes, garbage collected."""

from __future__ import annotations

import gc
import re
from pathlib import Path
from typing import NamedTuple

ROLLUP = Path("/proc/self/smaps_rollup")


class Memory(NamedTuple):
    """`rss`: all resident pages; `uss`: only those that no other process has, too."""

    rss: int
    uss: int

    def above(self, other: Memory) -> Memory:
        return Memory(
            *(value - other_value for value, other_value in zip(self, other, strict=True))
        )


def now() -> Memory:
    """Needs Linux 4.14 or later."""
    gc.collect()
    kilobytes = {
        name: int(amount) for name, amount in re.findall(r"(\w+):\s+(\d+) kB", ROLLUP.read_text())
    }
    uss = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return Memory(kilobytes["Rss"] * 1024, uss * 1024)
