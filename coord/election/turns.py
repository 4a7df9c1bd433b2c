"""A coordinator that released a role lets the candidates that wait for it go first.

A store whose feed looks at the database now and then shows a release to its candidates a few
milliseconds late. A coordinator that gives a role back and claims it again at once would therefore
win every time. So its next first claim of that role waits for two looks of the feed, unless nobody
else waits. This is no queue: it promises no order, and nothing depends on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from coord.core.timing import Instant
from coord.errors import CoordError
from coord.stores.protocol import PolledFeed, Store

LOOKS = 2
"""Looks of the feed that a claim waits for."""
MAX_ROLES = 1_000
"""Roles that are remembered, until only those remain whose pause lasts."""


class Turns:
    """The roles that a session gave back a moment ago.

    Args:
        store: The store of the session.
        now: Reads the clocks.
        others_wait: Returns whether another candidate waits for a role. It may ask the store.
    """

    def __init__(
        self,
        store: Store,
        now: Callable[[], Instant],
        others_wait: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._now, self._others_wait = now, others_wait
        self._pause = LOOKS * store.feed_interval if isinstance(store, PolledFeed) else 0.0
        self._until: dict[str, float] = {}

    def gave_back(self, role: str) -> None:
        """A candidate of this session has released `role`, so that any candidate may claim it."""
        if self._pause <= 0:
            return
        now = self._now().awake
        if len(self._until) >= MAX_ROLES:
            self._until = {role: until for role, until in self._until.items() if until > now}
        self._until[role] = now + self._pause

    async def wait(self, role: str) -> None:
        """Wait before the first claim of a new candidate for `role`, if that is fair."""
        delay = self._until.pop(role, 0.0) - self._now().awake
        if delay <= 0:
            return
        try:
            if not await self._others_wait(role):
                return
        except CoordError:
            pass  # it is not known, so that others may wait
        delay = min(delay, self._pause)  # tests replace clocks
        await asyncio.sleep(delay)
