"""The feeds of the in-memory tables."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Feeds(Generic[T]):
    """The open feeds of one table, on any threads and event loops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[tuple[Callable[[T], bool], Callable[[T], None]]] = []

    def publish(self, item: T) -> None:
        """Give `item` to the feeds that want it."""
        for wants, deliver in tuple(self._listeners):
            if wants(item):
                deliver(item)

    async def open(
        self, present: Callable[[], Iterable[T]], wants: Callable[[T], bool]
    ) -> AsyncGenerator[T, None]:
        """Yield what is in the table, then what is published.

        Args:
            present: Returns what is in the table. It is called once the feed receives what is
                published, so nothing is missed; an item may come twice.
            wants: Whether this feed yields an item.
        """
        queue: asyncio.Queue[T] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def deliver(item: T) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed, but not its feed
                loop.call_soon_threadsafe(queue.put_nowait, item)

        listener = (wants, deliver)
        with self._lock:
            self._listeners.append(listener)
        try:
            for item in present():
                yield item
            while True:
                yield await queue.get()
        finally:
            with self._lock:
                self._listeners.remove(listener)
