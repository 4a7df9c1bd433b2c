"""Two things that Linux can do for a guardian, by prctl(2). Elsewhere they do nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from coord.cli import exit_codes

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc: Any = None


def load() -> None:
    """Find libc. To be called before the first fork: what comes between a fork and an exec should
    be short."""
    global _libc
    if sys.platform == "linux" and _libc is None:
        import ctypes

        _libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` (its parent, by pid) ends. Lasts through
    exec, not through fork.

    A set-user-ID program drops it.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(128 + signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that they can be waited for. Not
    kept through fork."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


# -- The terminal at stdin, and which process group is in its foreground.


def foreground() -> int | None:
    """The group in the foreground of our controlling terminal; None when stdin is not our
    controlling terminal."""
    try:
        return os.tcgetpgrp(0)
    except OSError:
        return None


def hand_over(group: int, *, to: int) -> bool:
    """Put group `to` in the foreground where `group` is there now. Whether that was done."""
    if foreground() != group:
        return False
    # From the background this raises SIGTTOU, unless it is blocked.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        os.tcsetpgrp(0, to)
    except OSError:  # the group has just ended, or the terminal has gone
        return False
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return True


def has_shell() -> bool:
    """Whether somebody in our session started us, who gets the terminal when we stop (a shell with
    job control)."""
    return os.getsid(os.getppid()) == os.getsid(0) if os.getppid() else False


# -- Starting COMMAND: what happens between the fork and the exec.


def trouble(command: str) -> tuple[int, str] | None:
    """Why `command` could not be executed as things stand: an exit status and words; None when it
    could.

    Asked before standing by, so that a wrong name shows at once and not at the first takeover.
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
            f"{command}: cannot be executed; is it a program, with its x bit set?",
        )
    return exit_codes.NOT_FOUND, f"{command}: not found; give a path, or a name that is on PATH"


def spawn(
    command: Sequence[str],
    environment: Mapping[bytes, bytes],
    runner_group: int,
    ignored: Collection[signal.Signals],
) -> int:
    """Start `command` in a process group of its own, and return its process id.

    It gets stdin, stdout and stderr and no other descriptor, the default disposition of every
    signal but those `ignored`, and the terminal's foreground when `runner_group` has it. On Linux
    it dies when the caller does."""
    # Blocked until the child has the default dispositions, so that a signal passed on at once is
    # not lost on it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(command, environment, parent, runner_group, ignored)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with contextlib.suppress(OSError):  # it has executed, or ended, already
        os.setpgid(pid, pid)  # the child does it too: whoever comes first
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
                continue  # the C library keeps a few real-time signals to itself
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _close_all_but_standard()
        os.execvpe(command[0], list(command), dict(environment))  # noqa: S606  (this is what we are for)
    except BaseException as err:
        if isinstance(err, FileNotFoundError):
            status = exit_codes.NOT_FOUND
        reason = err.strerror if isinstance(err, OSError) else type(err).__name__
        os.write(
            2, f"coord run: {command[0]}: {reason}\n".encode(sys.getfilesystemencoding(), "replace")
        )
    finally:
        os._exit(status)


def _close_all_but_standard() -> None:
    try:
        descriptors = [
            int(name)
            for name in os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")
        ]
    except OSError:
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # may be a thousand million
        return
    for descriptor in descriptors:
        if descriptor > 2:
            try:
                os.close(descriptor)
            except OSError:
                continue  # the one that listed the others
