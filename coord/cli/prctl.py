"""Two things that Linux can do for a guardian, by prctl(2). Elsewhere they do nothing."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc: Any = None


def load() -> None:
    """Find libc. To be called before the first fork: what comes between a fork and an exec should be short."""
    global _libc
    if sys.platform == "linux" and _libc is None:
        import ctypes

        _libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` (its parent, by pid) ends. Lasts through exec, not through fork.

    A set-user-ID program drops it.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(128 + signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that they can be waited for. Not kept through fork."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
