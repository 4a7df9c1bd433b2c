"""What is held goes back when the process ends: at a normal end, `sys.exit`, Ctrl-C and SIGTERM."""

from __future__ import annotations

import atexit
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn, Protocol

from coord import forking


class Leaver(Protocol):
    def leave(self) -> None:
        """Release what is held, within a few seconds. Raises nothing."""


_leavers: set[Leaver] = set()  # held: a leadership that nobody refers to any more still leads
_registered_in: int | None = None


def release_at_exit(leaver: Leaver) -> None:
    """Have `leaver.leave()` called when this process ends.

    SIGTERM ends a Python process without a word, unless somebody handles it. Where nobody does, it is turned into
    `SystemExit(143)` in the main thread, so that `finally` blocks run and the lease goes back; a handler of the
    application's own is left alone.
    """
    global _registered_in
    _leavers.add(leaver)
    if _registered_in != forking.epoch:
        _registered_in = forking.epoch
        atexit.register(_leave_all)
        if "multiprocessing" in sys.modules:  # its children end without running atexit
            from multiprocessing import util

            util.Finalize(None, _leave_all, exitpriority=0)
    end_on_sigterm()


def end_on_sigterm() -> None:
    """Turn SIGTERM into `SystemExit(143)`, where we may and nobody else has."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminated)


def forget(leaver: Leaver) -> None:
    """It was closed, and holds nothing."""
    _leavers.discard(leaver)


def _terminated(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _leave_all() -> None:
    for leaver in list(_leavers):
        leaver.leave()
