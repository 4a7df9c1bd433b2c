"""Threads for callbacks. One with nothing left to do is kept for the next: to wake it takes a tenth of starting one.

At most one is kept, whatever the number of roles; all are daemons.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable

from coord import forking

Work = Callable[[], None]
_Inbox = queue.SimpleQueue[tuple[Work, str]]

_kept: list[tuple[int, _Inbox]] = []
"""Who waits for work, and under which epoch: in a forked child, nobody does. Its methods are atomic: no lock is needed,
which a fork might leave taken."""


def run(work: Work, name: str) -> None:
    """Run it, at once, in a thread that has this name meanwhile. It must not raise."""
    while _kept:
        try:
            epoch, inbox = _kept.pop()
        except IndexError:  # another thread was quicker
            break
        if epoch == forking.epoch:
            inbox.put((work, name))
            return
    _start(work, name)


def ready() -> None:
    """See that a thread is kept, for somebody who will want it and cannot wait then."""
    if not any(epoch == forking.epoch for epoch, _ in tuple(_kept)):
        _start(lambda: None, "coord spare")


def _start(work: Work, name: str) -> None:
    try:
        threading.Thread(target=_live, args=(work, name), name=name, daemon=True).start()
    except RuntimeError:  # the interpreter is ending, and starts no more threads (3.12.0 and 3.12.1)
        contextvars.copy_context().run(work)


def _live(work: Work, name: str) -> None:
    inbox: _Inbox = queue.SimpleQueue()
    begun = forking.epoch
    while True:
        threading.current_thread().name = name
        contextvars.Context().run(work)  # what callbacks set is not seen by those of other roles
        del work
        if begun != forking.epoch or any(epoch == begun for epoch, _ in tuple(_kept)):
            return  # in a child that the work forked, this is the only thread: were it kept, the child would never end
        threading.current_thread().name = "coord spare"
        _kept.append((begun, inbox))
        work, name = inbox.get()
