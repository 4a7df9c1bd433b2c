"""Processes and the terminal: prctl(2), process groups, and starting COMMAND.

prctl(2) exists on Linux only. Elsewhere `die_with` and `adopt_orphans` do nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from coord.cli import exit_codes

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_ARG_START = 45
"""The field arg_start of /proc/PID/stat, counted from the one after the name."""
_libc: Any = None


def load() -> None:
    """Load libc. Call it before the first fork, so that little happens between fork and exec."""
    global _libc
    if sys.platform == "linux" and _libc is None:
        import ctypes

        _libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent process `parent` ends.

    This survives exec, but not fork, and a set-user-ID program drops it.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # The parent ended before the call.
            os._exit(128 + signal.SIGKILL)


def adopt_orphans() -> bool:
    """Become the parent of descendants whose parent ends, so that this process can wait for them.

    This does not survive fork. Return whether the system can do this.
    """
    return _libc is not None and _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def rename(name: str) -> None:
    """Change the name of this process and its command line, as `killall`, `pkill` and `ps` see
    them. The name has at most 15 characters."""
    if _libc is None:
        return
    _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
    # The command line is the memory that the kernel filled before the program started. A wrong
    # address gives an error here, because the kernel does the access.
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/stat", "rb") as stat, open("/proc/self/cmdline", "rb") as file:
            start = int(stat.read().rpartition(b")")[2].split()[_ARG_START])
            before = file.read()
        memory = os.open("/proc/self/mem", os.O_RDWR)
        try:
            if os.pread(memory, len(before), start) == before:
                title = name.encode()[: len(before) - 1]
                os.pwrite(memory, title.ljust(len(before), b"\0"), start)
        finally:
            os.close(memory)


def foreground() -> int | None:
    """Return the foreground process group of the terminal; None if stdin is not our terminal."""
    try:
        return os.tcgetpgrp(0)
    except OSError:
        return None


def hand_over(group: int, *, to: int) -> bool:
    """Move the terminal from the foreground group `group` to `to`. Return whether that was done."""
    if foreground() != group:
        return False
    # The call raises SIGTTOU in a background process, unless that signal is blocked.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        os.tcsetpgrp(0, to)
    except OSError:  # The group has just ended, or the terminal is gone.
        return False
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return True


def has_shell() -> bool:
    """Return whether a shell with job control started us, which gets the terminal if we stop."""
    return os.getsid(os.getppid()) == os.getsid(0) if os.getppid() else False


def find_problem(command: str) -> tuple[int, str] | None:
    """Return why `command` cannot be executed, as an exit status and a message; None if it can.

    `coord run` checks this before it waits, so that a wrong name fails at once and not at the first
    takeover.
    """
    places = (
        [command]
        if "/" in command
        else [os.path.join(place, command) for place in os.get_exec_path()]
    )
    there = [place for place in places if os.path.exists(place)]
    if any(os.path.isfile(place) and os.access(place, os.X_OK) for place in there):
        return None
    if there:
        return (
            exit_codes.NOT_EXECUTABLE,
            f"cannot execute COMMAND {command!r}: it is not an executable file; name a program, "
            "or run chmod +x on this one",
        )
    return (
        exit_codes.NOT_FOUND,
        f"cannot execute COMMAND {command!r}: there is no such program; use a path, or the name "
        "of a program on PATH",
    )


def spawn(
    command: Sequence[str],
    environment: Mapping[bytes, bytes],
    runner_group: int,
    ignored: Collection[signal.Signals],
) -> int:
    """Start `command` in a process group of its own, and return its process id.

    It inherits the descriptors that this program inherited; Python closes its own on exec. All
    signals have their default disposition, except those in `ignored`. It gets the foreground of the
    terminal if `runner_group` has it. On Linux, the kernel kills it when the caller ends.
    """
    # Signals are blocked until the child has the default dispositions, so that a signal that is
    # passed on at once is not lost.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(command, environment, parent, runner_group, ignored)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with contextlib.suppress(OSError):  # It has already executed or ended.
        os.setpgid(pid, pid)  # The child calls it too, because either may be first.
    return pid


def _become(
    command: Sequence[str],
    environment: Mapping[bytes, bytes],
    parent: int,
    runner_group: int,
    ignored: Collection[signal.Signals],
) -> NoReturn:
    status = exit_codes.NOT_EXECUTABLE
    try:
        os.setpgid(0, 0)
        die_with(parent)
        hand_over(runner_group, to=os.getpid())
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            try:
                signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
            except OSError:
                continue  # The C library reserves a few real-time signals.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvpe(command[0], list(command), dict(environment))  # noqa: S606  # `coord run` exists to do this.
    except BaseException as err:
        if isinstance(err, FileNotFoundError):
            status = exit_codes.NOT_FOUND
        reason = err.strerror if isinstance(err, OSError) else type(err).__name__
        os.write(
            2, f"coord run: {command[0]}: {reason}\n".encode(sys.getfilesystemencoding(), "replace")
        )
    finally:
        os._exit(status)
