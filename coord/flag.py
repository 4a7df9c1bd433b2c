"""Something that happens once, and can be waited for from threads and from coroutines alike."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from typing import Any


class Flag:
    """`wait(timeout)` in a thread, `await flag` in a coroutine, `is_set()` anywhere. Set once, never cleared.

    `lock`: one that its owner has anyway, and does not hold when it calls; without one it has its own.
    """

    __slots__ = ("_actions", "_lock", "_set")

    def __init__(self, lock: threading.Lock | None = None) -> None:
        self._set = False
        self._lock = lock or threading.Lock()
        self._actions: tuple[Callable[[], None], ...] = ()

    def __bool__(self) -> bool:
        return self._set

    def __repr__(self) -> str:
        return f"<Flag {'set' if self._set else 'not set'}>"

    def is_set(self) -> bool:
        """Whether it has happened."""
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

    def when_set(self, action: Callable[[], None]) -> Callable[[], None]:
        """Call `action` once it has happened (at once when it has), on whatever thread set it. Returns an undo."""
        with self._lock:
            if not self._set:
                self._actions += (action,)
                return lambda: self._forget(action)
        action()
        return lambda: None

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread for up to `timeout` seconds (None: without end). Whether it has happened."""
        if self._set:
            return True
        event = threading.Event()
        undo = self.when_set(event.set)
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

        undo = self.when_set(from_any_thread)
        try:
            yield from future
        finally:
            undo()

    def _forget(self, action: Callable[[], None]) -> None:
        with self._lock:
            self._actions = tuple(one for one in self._actions if one is not action)
