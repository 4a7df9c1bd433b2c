"""A latch that threads and coroutines can wait for, and threads for callbacks."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable, Generator
from typing import Any

from coord.core import validation
from coord.runtime import process


class Latch:
    """`wait(timeout)` in a thread, `await flag` in a coroutine, `is_set()` anywhere. Set once,
    never cleared.

    `lock`: one that its owner has anyway, and does not hold when it calls; without one it has its
    own."""

    __slots__ = ("_actions", "_lock", "_set")

    def __init__(self, lock: threading.Lock | None = None) -> None:
        self._set = False
        self._lock = lock or threading.Lock()
        self._actions: tuple[Callable[[], None], ...] = ()

    def __bool__(self) -> bool:
        return self._set

    def __repr__(self) -> str:
        return f"<Latch {'set' if self._set else 'not set'}>"

    def is_set(self) -> bool:
        """Return whether `set` was called."""
        return self._set

    def set(self) -> None:
        """Let it have happened. What waits is woken; a second time does nothing."""
        with self._lock:
            if self._set:
                return
            self._set = True
            actions, self._actions = self._actions, ()
        for action in actions:
            action()

    def add_callback(self, action: Callable[[], None]) -> Callable[[], None]:
        """Call `action` once it has happened (at once when it has), on whatever thread set it.
        Returns an undo."""
        with self._lock:
            if not self._set:
                self._actions += (action,)
                return lambda: self._forget(action)
        action()
        return lambda: None

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread until the latch is set, and return whether it is set.

        Args:
            timeout: Seconds to wait; None means no limit.

        Raises:
            BadArgument: The timeout is invalid.
        """
        timeout = validation.timeout(timeout)
        if self._set:
            return True
        event = threading.Event()
        undo = self.add_callback(event.set)
        try:
            event.wait(timeout)
        finally:
            undo()
        return self._set

    def __await__(self) -> Generator[Any, None, None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def happened() -> None:
            if not future.done():
                future.set_result(None)

        def from_any_thread() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(happened)

        undo = self.add_callback(from_any_thread)
        try:
            yield from future
        finally:
            undo()

    def _forget(self, action: Callable[[], None]) -> None:
        with self._lock:
            self._actions = tuple(one for one in self._actions if one is not action)


Work = Callable[[], None]
_Inbox = queue.SimpleQueue[tuple[Work, str]]

_kept: list[tuple[int, _Inbox]] = []
"""Who waits for work, and under which epoch: in a forked child, nobody does. Its methods are
atomic: no lock is needed, which a fork might leave taken."""


def start_thread_soon(work: Work, name: str) -> None:
    """Run `work` at once, in a daemon thread with this name. It must not raise.

    One idle thread is kept for the next call, because to wake it takes a tenth of starting one.
    """
    while _kept:
        try:
            epoch, inbox = _kept.pop()
        except IndexError:  # another thread was quicker
            break
        if epoch == process.fork_generation:
            inbox.put((work, name))
            return
    _start(work, name)


def warm_up() -> None:
    """Start the idle thread now, so that the next `start_thread_soon` is quick."""
    if not any(epoch == process.fork_generation for epoch, _ in tuple(_kept)):
        _start(lambda: None, "coord spare")


def _start(work: Work, name: str) -> None:
    try:
        threading.Thread(target=_live, args=(work, name), name=name, daemon=True).start()
    except (
        RuntimeError
    ):  # the interpreter is ending, and starts no more threads (3.12.0 and 3.12.1)
        contextvars.copy_context().run(work)


def _live(work: Work, name: str) -> None:
    inbox: _Inbox = queue.SimpleQueue()
    begun = process.fork_generation
    while True:
        threading.current_thread().name = name
        contextvars.Context().run(work)  # what callbacks set is not seen by those of other roles
        del work
        if begun != process.fork_generation or any(epoch == begun for epoch, _ in tuple(_kept)):
            # in a child that the work forked, this is the only thread: were it kept, the child
            # would never end
            return
        threading.current_thread().name = "coord spare"
        _kept.append((begun, inbox))
        work, name = inbox.get()
