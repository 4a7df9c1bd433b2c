"""One feed for all roles that a session watches.

A feed gives hints: they wake candidates and followers, and decide nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING

from coord.core.lease import Lease
from coord.runtime.retry import Backoff, reconnecting

if TYPE_CHECKING:
    from coord.stores.protocol import Store

Listener = Callable[[Lease], None]

COALESCE_DELAY = 0.005
"""Seconds to wait for more roles before the feed is opened again with them."""


class SharedFeed:
    """Shares a store's feed among listeners, on one event loop.

    It opens the feed again after a failure, and to add a role. The first rows of a feed are the
    present ones, so nothing that happens between two feeds is missed.
    """

    def __init__(self, store: Callable[[], Store], broken: Callable[[], None]) -> None:
        """Create a feed without listeners.

        Args:
            store: Returns the store to watch.
            broken: Called when the feed ended, before it is opened again.
        """
        self._store, self._broken = store, broken
        self._listeners: dict[str, list[Listener]] = {}
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._watched: frozenset[str] = frozenset()

    def subscribe(self, role: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` with each row of `role` from now on.

        Returns:
            A function that unsubscribes the listener.
        """
        self._listeners.setdefault(role, []).append(listener)
        # A role that is watched already counts as new: the new listener needs a first row, too.
        self._watched = self._watched - {role}
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="coord feed")
        return lambda: self._remove(role, listener)

    def _remove(self, role: str, listener: Listener) -> None:
        listeners = self._listeners.get(role, [])
        if listener in listeners:
            listeners.remove(listener)
        if not listeners:
            # The open feed still includes the role; the next one does not.
            self._listeners.pop(role, None)
        if not self._listeners and self._task is not None:
            self._task.cancel()
            self._task = None

    async def close(self) -> None:
        """End the feed."""
        self._listeners.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        backoff = Backoff(0.05, 5.0)
        while self._listeners:
            # While the store does not answer, a new role waits for the next attempt.
            await asyncio.sleep(backoff.next() if backoff.failing else COALESCE_DELAY)
            roles = self._watched = frozenset(self._listeners)
            self._changed.clear()
            feed = asyncio.ensure_future(
                reconnecting(partial(self._open, roles), self._notify, backoff, self._broken)
            )
            try:
                await self._until_changed()
            finally:
                feed.cancel()
                await asyncio.gather(feed, return_exceptions=True)

    async def _until_changed(self) -> None:
        while self._watched >= self._listeners.keys():
            self._changed.clear()
            await self._changed.wait()

    def _open(self, roles: frozenset[str]) -> AsyncIterator[Lease]:
        return self._store().watch(roles)

    def _notify(self, lease: Lease) -> None:
        for listener in tuple(self._listeners.get(lease.role, ())):
            listener(lease)
