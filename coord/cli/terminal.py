"""The terminal at stdin, and which process group is in its foreground."""

from __future__ import annotations

import os
import signal


def foreground() -> int | None:
    """The group in the foreground of our controlling terminal; None when stdin is not our controlling terminal."""
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
    """Whether somebody in our session started us, who gets the terminal when we stop (a shell with job control)."""
    return os.getsid(os.getppid()) == os.getsid(0) if os.getppid() else False
