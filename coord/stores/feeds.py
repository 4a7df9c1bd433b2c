"""One feed for all the roles that this process waits for. What it brings is a hint: it wakes, it
decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Collection
from typing import TYPE_CHECKING, Any, cast

from coord.core.lease import Lease
from coord.errors import CoordError
from coord.runtime import log
from coord.runtime.retry import Backoff

if TYPE_CHECKING:
    from coord.stores.protocol import Store

Listener = Callable[[Lease], None]

COALESCE_DELAY = 0.005
"""Seconds to wait for more roles before the feed is opened anew for them."""


class SharedFeed:
    """Shares a store's feed among listeners; opens it anew after a failure (`broken` is told), or
    to add a role to it.

    The first rows of a new feed are the present ones, so that nothing which happened in a gap stays
    unknown."""

    def __init__(self, store: Callable[[], Store], broken: Callable[[], None]) -> None:
        self._store, self._broken = store, broken
        self._listeners: dict[str, list[Listener]] = {}
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._watched: frozenset[str] = frozenset()

    def add(self, role: str, listener: Listener) -> Callable[[], None]:
        """Hear of `role` from now on. Returns what ends that."""
        self._listeners.setdefault(role, []).append(listener)
        # A role that is watched already is asked for again: the new listener needs a first row,
        # too.
        self._watched = self._watched - {role}
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="coord watcher")
        return lambda: self._remove(role, listener)

    def _remove(self, role: str, listener: Listener) -> None:
        listeners = self._listeners.get(role, [])
        if listener in listeners:
            listeners.remove(listener)
        if not listeners:
            # The open feed goes on telling of it, and nobody listens; the next feed leaves it out.
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
            await asyncio.sleep(COALESCE_DELAY)
            roles = self._watched = frozenset(self._listeners)
            self._changed.clear()
            feed = asyncio.ensure_future(self._follow(roles, backoff))
            changed = asyncio.ensure_future(self._until_changed())
            try:
                await asyncio.wait({feed, changed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (feed, changed):
                    task.cancel()
                await asyncio.gather(feed, changed, return_exceptions=True)
            if feed.done() and not feed.cancelled() and (error := feed.exception()) is not None:
                self._broken()
                log.debug("feed.broken", error=type(error).__name__)
                await asyncio.sleep(backoff.next())

    async def _until_changed(self) -> None:
        while self._watched >= self._listeners.keys():
            self._changed.clear()
            await self._changed.wait()

    async def _follow(self, roles: Collection[str], backoff: Backoff) -> None:
        feed = cast("AsyncGenerator[Lease, Any]", self._store().watch(roles))
        async with contextlib.aclosing(feed):
            async for lease in feed:
                backoff.reset()
                for listener in tuple(self._listeners.get(lease.role, ())):
                    listener(lease)
        raise CoordError("the feed ended")
