"""The descendants of a process: finding them, sending signals to them, and ending them.

On Linux these are all processes that a process has started, directly or indirectly, whatever
process group or session they moved to. The process must be a subreaper
(`process.adopt_orphans`), so that a descendant whose parent ends stays a descendant. Elsewhere, and
without /proc, only the process group of COMMAND is known.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection
from dataclasses import dataclass

MAX_PASSES = 50
"""Passes over the descendants in one call. Each pass finds what was started during the last one."""
_DEAD = "ZXx"


@dataclass(frozen=True)
class Process:
    """A process that lives."""

    pid: int
    name: str
    """Its name, as in `ps -o comm`; empty if unknown."""

    def __str__(self) -> str:
        return f"{self.pid} ({self.name})" if self.name else str(self.pid)


def signal_all(
    root: int, group: int | None, number: int, spared: Collection[int] = ()
) -> list[Process]:
    """Send a signal to every descendant of `root`. Return those that live.

    SIGKILL is sent again and again until it has reached every process that was started meanwhile. A
    process of another user may get no signal.

    Args:
        root: The process id of the ancestor, which itself gets no signal.
        group: The process group of COMMAND; None if there is none.
        number: The signal.
        spared: Children of `root` that get no signal, nor do their descendants.
    """
    if group is not None:
        # This reaches the whole group at once, even while its processes start others.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
    signalled: set[int] = set()
    processes: list[Process] = []
    for _ in range(MAX_PASSES if number == signal.SIGKILL else 1):
        processes = living(root, group, spared)
        new = [process.pid for process in processes if process.pid not in signalled]
        if not new:
            break
        for pid in new:
            if number == signal.SIGKILL or not _is_in(group, pid):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        signalled.update(new)
    return processes


def end_all(
    root: int, group: int | None, within: float, spared: Collection[int] = ()
) -> list[Process]:
    """Kill every descendant of `root`, and wait until they have ended. Return those that live.

    Args:
        root: The process id of the ancestor.
        group: The process group of COMMAND; None if there is none.
        within: The maximum wait in seconds.
        spared: Children of `root` to spare, with their descendants.
    """
    until = time.monotonic() + within
    while processes := signal_all(root, group, signal.SIGKILL, spared):
        if time.monotonic() >= until:
            return processes
        time.sleep(0.01)
    return []


def living(root: int, group: int | None, spared: Collection[int] = ()) -> list[Process]:
    """Return the descendants of `root` that live. A zombie does not.

    The arguments are those of `signal_all`.
    """
    if not os.path.exists("/proc/self/stat"):
        return [Process(group, "")] if group is not None and _group_lives(group) else []
    visited: set[int] = set(spared)
    queue = [root]
    processes = []
    while queue:
        for pid in children(queue.pop()):
            if pid not in visited:
                visited.add(pid)
                queue.append(pid)
                if (process := _living(pid)) is not None:
                    processes.append(process)
    return processes


def children(pid: int) -> list[int]:
    """Return the children of a process, zombies included; none if the process is gone."""
    if not os.path.exists("/proc/thread-self/children"):  # The kernel has no such files.
        return [child for child in _numbers("/proc") if _parent(child) == pid]
    pids = []
    for thread in _numbers(f"/proc/{pid}/task"):
        pids += [int(word) for word in _read(f"/proc/{pid}/task/{thread}/children").split()]
    return pids


def _numbers(directory: str) -> list[int]:
    try:
        return [int(name) for name in os.listdir(directory) if name.isdecimal()]
    except OSError:  # The process has ended, or belongs to another user and is hidden.
        return []


def _parent(pid: int) -> int | None:
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[1]) if fields else None


def _living(pid: int) -> Process | None:
    name, _, fields = _read(f"/proc/{pid}/stat").partition("(")[2].rpartition(")")
    if fields:
        return None if fields.split()[0] in _DEAD else Process(pid, name)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # A process of another user, which /proc hides (hidepid).
        return Process(pid, "")
    return None  # It was starting or ending between the two calls; the next pass sees it.


def _read(path: str) -> str:
    """Return the content of a file of /proc; empty if its process has ended."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _is_in(group: int | None, pid: int) -> bool:
    try:
        return group is not None and os.getpgid(pid) == group
    except OSError:
        return False


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
