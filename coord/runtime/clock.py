"""The machine's clocks, read in one place, and the names that tell whether two readings compare.

Tests replace `system_now` by a manual clock (`coord.testing`).
"""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from coord.core.timing import Instant
from coord.runtime import process

if sys.platform == "linux":
    TOTAL_CLOCK, AWAKE_CLOCK = time.CLOCK_BOOTTIME, time.CLOCK_MONOTONIC
elif sys.platform == "darwin":
    # There CLOCK_MONOTONIC continues during sleep and CLOCK_UPTIME_RAW does not.
    TOTAL_CLOCK, AWAKE_CLOCK = time.CLOCK_MONOTONIC, time.CLOCK_UPTIME_RAW
else:
    # No clock counts suspend here: a machine that slept finds out at its next request
    # (docs/guarantees.md).
    TOTAL_CLOCK = AWAKE_CLOCK = getattr(time, "CLOCK_MONOTONIC", -1)

COUNTS_SUSPEND = TOTAL_CLOCK != AWAKE_CLOCK


def system_now() -> Instant:
    """Read both clocks."""
    if AWAKE_CLOCK == -1:
        both = time.monotonic()
        return Instant(both, both)
    # As `Instant(…)`, without its Python code: every `is_leader` comes here.
    return tuple.__new__(
        Instant, (time.clock_gettime(AWAKE_CLOCK), time.clock_gettime(TOTAL_CLOCK))
    )


def total_seconds() -> float:
    """Read the clock that counts suspend."""
    return time.monotonic() if TOTAL_CLOCK == -1 else time.clock_gettime(TOTAL_CLOCK)


PROC = "/proc"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
_TEMPORARY = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN, errno.EIO}


class KernelClock(NamedTuple):
    """What this process knows about the clocks of its kernel.

    Two readings of a clock compare only if both were made under the same boot id and with the same
    offset. A time namespace (LXD, CRIU) shifts the clocks of its processes, so the offsets of the
    namespace are subtracted: then all processes of a kernel read the same time.

    Attributes:
        boot_id: The boot id of the kernel; "" if it is not known. Where it is not known, the
            offsets are not known either.
        problem: Why the boot id is not known; "" if it is known.
        total_offset: Seconds that this process reads above the kernel's own `total_seconds`.
        awake_offset: The same for the clock that stops during suspend.
        temporary: Whether the problem may pass, such as too many open files.
    """

    boot_id: str = ""
    problem: str = ""
    total_offset: float = 0.0
    awake_offset: float = 0.0
    temporary: bool = False


def read_kernel_clock(proc: str = PROC) -> KernelClock:
    """Find out which clock this process reads.

    The result is a boot id only if everything about it is certain. A boot id that is mounted over
    (systemd-nspawn gives every container its own) is not the kernel's.

    Args:
        proc: Where the files of /proc are; another directory is for tests.
    """
    try:
        with open(f"{proc}/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot_id = file.read().strip()
        with open(f"{proc}/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = file.read()
        total, awake = _time_offsets(proc)
    except (OSError, ValueError, LookupError) as err:
        reason = getattr(err, "strerror", None) or str(err)
        name = getattr(err, "filename", None) or BOOT_ID
        temporary = getattr(err, "errno", None) in _TEMPORARY
        return KernelClock(problem=f"{name}: {reason}", temporary=temporary)
    if not re.fullmatch(r"[0-9A-Za-z-]{8,64}", boot_id):
        return KernelClock(problem=f"{BOOT_ID} holds no boot id")
    if problem := _covered_by(mounts):
        return KernelClock(problem=problem)
    return KernelClock(boot_id, "", total, awake)


def _covered_by(mounts: str) -> str:
    """Return what is mounted over the kernel's boot id; "" if nothing is.

    A container runtime may mount a part of /proc over itself, to make it read-only. That shows the
    same file.
    """
    is_mounted = False
    for line in mounts.splitlines():
        fields, _, source = line.partition(" - ")
        columns = fields.split(" ")
        if len(columns) < 5:
            continue
        root, point = columns[3], columns[4]
        if not (point == "/proc" or point.startswith("/proc/")):
            continue
        if not f"{BOOT_ID}/".startswith(f"{point}/"):
            continue
        kind = source.split(" ")[0]
        if kind != "proc" or root != (point[len("/proc") :] or "/"):
            return f"{BOOT_ID} is not the kernel's: {kind} is mounted at {point}"
        is_mounted = True
    return "" if is_mounted else f"{BOOT_ID} may not be the kernel's: /proc is not mounted"


def _time_offsets(proc: str) -> tuple[float, float]:
    """Return how far the boot clock and the awake clock of this process run ahead of the kernel's.

    Raises:
        OSError: The namespaces of this process cannot be read.
        ValueError: The offsets are not known.
    """
    if "time" not in os.listdir(f"{proc}/self/ns"):
        return 0.0, 0.0  # a kernel without time namespaces
    # The file shows the offsets of the namespace that children get.
    if os.readlink(f"{proc}/self/ns/time") != os.readlink(f"{proc}/self/ns/time_for_children"):
        raise ValueError("this process and its children are in different time namespaces")
    with open(f"{proc}/self/timens_offsets", encoding="ascii") as file:
        rows = [line.split() for line in file]
    offsets = {row[0]: int(row[1]) + int(row[2]) / 1e9 for row in rows}
    return offsets["boottime"], offsets["monotonic"]


_reading: tuple[int, KernelClock] | None = None


def kernel_clock() -> KernelClock:
    """Return what this process knows about its clocks; it is read once in each process.

    A problem that may pass is not kept: the next call reads again.
    """
    global _reading
    if _reading is None or _reading[0] != process.fork_generation:
        reading = read_kernel_clock()
        if reading.temporary:
            return reading
        # A forked child may be in another time namespace than its parent.
        _reading = process.fork_generation, reading
    return _reading[1]


WALL = "wall"
"""The name of the wall clock, which decides on systems other than Linux."""
WALL_SKEW = 5.0
"""Seconds that a lease must have expired for, where the store's clock is the wall clock, which may
be set."""
UNKNOWN = "unknown:"
"""The names of clocks that compare with no other begin with this."""


def is_known(name: str) -> bool:
    """Return whether a clock with this name may be compared with that of another process."""
    return bool(name) and not name.startswith(UNKNOWN)


class StoreClock(NamedTuple):
    """The clock of a store on one machine.

    Two times compare only if they were read from clocks with equal names. If the names differ,
    nothing is known: the machine may have restarted, or the writer reads another clock.

    Attributes:
        total: Reads the clock that decides, in seconds.
        wall: Reads the wall clock (seconds since 1970), for people.
        name: Names the clock that `total` reads.
    """

    total: Callable[[], float] = total_seconds
    wall: Callable[[], float] = time.time
    name: str = ""

    @property
    def skew(self) -> float:
        """How far the clock may be off, in seconds. A machine's own clock is never off, because all
        who use the file read the same one."""
        return WALL_SKEW if self.name == WALL else 0.0

    @property
    def known(self) -> bool:
        """Whether other processes may compare times with those of this clock."""
        return is_known(self.name)


_machine_clock: tuple[int, KernelClock | None, StoreClock] | None = None


def machine_clock() -> StoreClock:
    """Return the clock of this machine, for stores that only its processes use.

    On Linux that is the kernel's CLOCK_BOOTTIME, and its name is the boot id (rule 7): steps of the
    wall clock change nothing. If the boot id is not known, the clock has a random name, and so
    compares with no other.

    Elsewhere it is the wall clock. A lease still expires after a restart of the machine, but
    setting the clock forward makes it expire early; so a takeover waits `WALL_SKEW` longer.
    """
    global _machine_clock
    kernel = kernel_clock() if sys.platform == "linux" else None
    generation, before = process.fork_generation, _machine_clock
    if before is not None and before[1] is kernel and before[0] == generation:
        return before[2]  # every request to a file comes here several times
    if before is None or before[:2] != (generation, kernel):
        before = _machine_clock = generation, kernel, _clock_of(kernel)
    return before[2]


def _clock_of(kernel: KernelClock | None) -> StoreClock:
    if kernel is None:
        return StoreClock(total=time.time, name=WALL)
    if not kernel.boot_id:
        return StoreClock(name=UNKNOWN + os.urandom(16).hex())
    if not kernel.total_offset:
        return StoreClock(name=kernel.boot_id)
    offset = kernel.total_offset
    return StoreClock(total=lambda: total_seconds() - offset, name=kernel.boot_id)
