"""Forks and the end of the process.

A forked child drops every term, connection and id (rule 9). What is held is released when the
process ends: at a normal end, `sys.exit`, Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import weakref
from types import FrameType
from typing import NoReturn, Protocol

fork_generation = 0
"""How often this process was forked. Objects of another generation belong to the parent."""


class ForkAware(Protocol):
    def after_fork(self) -> None:
        """Called in the child, before any other code of it: forget, touch nothing, raise
        nothing."""


_known: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def reset_after_fork(thing: ForkAware) -> None:
    """Have `thing.after_fork` called in every child of this process, for as long as somebody holds
    it."""
    _known.add(thing)


def _in_child() -> None:
    global fork_generation
    fork_generation += 1
    for thing in list(_known):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class ClosesAtExit(Protocol):
    def close_quickly(self) -> None:
        """Release what is held, within a few seconds. Raises nothing."""


_leavers: set[ClosesAtExit] = set()  # held: a leadership that nobody refers to any more still leads
_registered_in: int | None = None


def close_at_exit(leaver: ClosesAtExit) -> None:
    """Have `leaver.close_quickly()` called when this process ends.

    SIGTERM ends a Python process without a word, unless somebody handles it. Where nobody does, it
    is turned into `SystemExit(143)` in the main thread, so that `finally` blocks run and the lease
    goes back; a handler of the application's own is left alone."""
    global _registered_in
    _leavers.add(leaver)
    if _registered_in != fork_generation:
        _registered_in = fork_generation
        atexit.register(_leave_all)
        if "multiprocessing" in sys.modules:  # its children end without running atexit
            from multiprocessing import util

            util.Finalize(None, _leave_all, exitpriority=0)
    exit_on_sigterm()


def exit_on_sigterm() -> None:
    """Turn SIGTERM into `SystemExit(143)`, unless the application handles SIGTERM itself.

    Only the main thread of the main interpreter can do so. Elsewhere this does nothing.
    """
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        with contextlib.suppress(ValueError):  # a subinterpreter, as in mod_wsgi
            signal.signal(signal.SIGTERM, _terminated)


def cancel_close_at_exit(leaver: ClosesAtExit) -> None:
    """Undo `close_at_exit`: the object was closed."""
    _leavers.discard(leaver)


def _terminated(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _leave_all() -> None:
    for leaver in list(_leavers):
        leaver.close_quickly()
