"""Forks and the end of the process.

A forked child drops every term, connection and id (rule 9). What is held is released when the
process ends: at a normal end, `sys.exit`, Ctrl-C, SIGTERM and SIGHUP.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import weakref
from types import FrameType
from typing import Any, NoReturn, Protocol

fork_generation = 0
"""How often this process was forked. Objects of another generation belong to the parent."""


class ForkAware(Protocol):
    """Something that a forked child must not share with its parent."""

    def after_fork(self) -> None:
        """Forget what belongs to the parent. Called in the child, before any other code of it; it
        must not raise."""


_fork_aware: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def reset_after_fork(thing: ForkAware) -> None:
    """Call `thing.after_fork` in every child of this process, while `thing` exists."""
    _fork_aware.add(thing)


def _in_child() -> None:
    global fork_generation
    fork_generation += 1
    for thing in list(_fork_aware):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class ClosesAtExit(Protocol):
    """Something to close when the process ends."""

    def close_quickly(self) -> None:
        """Release what is held, within a few seconds. Raises nothing."""


_held_until_exit: set[ClosesAtExit] = set()
_closed_at_exit: weakref.WeakSet[ClosesAtExit] = weakref.WeakSet()
_registered_in: int | None = None


def close_at_exit(thing: ClosesAtExit, *, hold: bool = True) -> None:
    """Call `thing.close_quickly()` when this process ends.

    SIGTERM and SIGHUP end a Python process at once, unless they are handled. If nobody handles
    them, they become `SystemExit` in the main thread, so that `finally` blocks run and leases are
    released. A handler of the application is left alone.

    Args:
        thing: What to close.
        hold: Whether `thing` is kept alive until then.
    """
    global _registered_in
    if hold:
        _held_until_exit.add(thing)
    _closed_at_exit.add(thing)
    if _registered_in != fork_generation:
        _registered_in = fork_generation
        atexit.register(_close_all)
        if "multiprocessing" in sys.modules:  # its children end without running atexit
            from multiprocessing import util

            util.Finalize(None, _close_all, exitpriority=0)
    exit_on_signals()


def exit_on_signals() -> None:
    """Turn SIGTERM and SIGHUP into `SystemExit(128 + number)`, so that the leases are released.

    A signal that the application handles or ignores itself, as under nohup, stays as it is. Only
    the main thread of the main interpreter can do this. Elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP.
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            with contextlib.suppress(ValueError):  # a subinterpreter, as in mod_wsgi
                signal.signal(number, _terminated)


def identity() -> dict[str, Any]:
    """Return the host and the process id of this process, as candidates describe themselves."""
    return {"host": sys.intern(socket.gethostname()), "pid": os.getpid()}


def cancel_close_at_exit(thing: ClosesAtExit) -> None:
    """Undo `close_at_exit`: the object was closed."""
    _held_until_exit.discard(thing)
    _closed_at_exit.discard(thing)


def _terminated(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _close_all() -> None:
    for thing in list(_closed_at_exit):
        thing.close_quickly()
