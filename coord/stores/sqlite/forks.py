"""No SQLite across a fork: every connection is closed before, and opened anew after it, in parent and child alike.

It is not enough for a child to leave its parent's connections alone. SQLite notes per process which locks it has on a
file (`inodeList` and `unixShmNode` in os_unix.c), and a child has a copy of those notes without having the locks. A
new connection in the child believes them, so it takes no lock of its own: the parent closes, believes itself to be
the last, deletes the log, and what the child commits is seen by nobody. If the parent was writing at the fork, the
child finds the file locked for ever. And a thread that was inside SQLite may leave a mutex locked in the child.

So threads enter SQLite through here; a fork waits until all are outside, and closes what is open.
"""

from __future__ import annotations

import os
import threading
from typing import Protocol

from coord.errors import StoreRefused

PATIENCE = 1.0
"""Seconds that a fork waits for threads inside SQLite, in each of which a disk may be slow."""


class Closable(Protocol):
    """What holds a connection."""

    def drop(self) -> None:
        """Close it, from any thread."""


class _State:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.forking = 0
        self.inside: set[Closable] = set()
        self.open: set[Closable] = set()


_state = _State()
_inherited: list[object] = []
"""Never read: keeps what a child inherited from ever being collected, and so closed."""
_spoilt = False


def enter(one: Closable) -> None:
    """Call before touching SQLite. Waits while a fork is under way. In a child forked unsafely: `StoreRefused`."""
    if _spoilt:
        raise StoreRefused(
            "this process was forked while a thread of its parent was inside SQLite, and cannot use SQLite safely: "
            "fork before coord is used, or start a new program"
        )
    with _state.changed:
        while _state.forking:
            _state.changed.wait()
        _state.inside.add(one)


def leave(one: Closable) -> None:
    """Call when done with SQLite for now."""
    with _state.changed:
        _state.inside.discard(one)
        if _state.forking and not _state.inside:
            _state.changed.notify_all()


def opened(one: Closable) -> None:
    _state.open.add(one)


def closed(one: Closable) -> None:
    _state.open.discard(one)


def keep(thing: object) -> None:
    """Never let the garbage collector have it."""
    _inherited.append(thing)


def _before() -> None:
    with _state.changed:
        _state.forking += 1
        _state.changed.wait_for(lambda: not _state.inside, PATIENCE)
        for one in _state.open - _state.inside:
            one.drop()


def _after_in_parent() -> None:
    with _state.changed:
        _state.forking -= 1
        _state.changed.notify_all()


def _after_in_child() -> None:
    global _state, _spoilt
    if _state.open or _state.inside:
        _spoilt = True
        keep(_state)
    _state = _State()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
