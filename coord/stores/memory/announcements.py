"""Announcements in the memory of this process: for tests and for `memory://`."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import replace

from coord.core.announcements import (
    CANDIDATE,
    MAX_COUNTED,
    Announcement,
    counted_roles,
    encode_body,
)
from coord.runtime import clock, process
from coord.stores.memory.feeds import Feeds


class MemoryAnnouncements:
    """Announcements in memory. Everything that uses the same instance shares them.

    Implements `protocol.Announcements`. `now` is the clock by which they expire, in seconds; `wall`
    is for people.
    """

    def __init__(
        self, now: Callable[[], float] = clock.total_seconds, wall: Callable[[], float] = time.time
    ) -> None:
        self._now, self._wall = now, wall
        self._rows: dict[str, tuple[Announcement, float]] = {}
        self._feeds: Feeds[Announcement] = Feeds()
        self._lock = threading.RLock()
        process.reset_after_fork(self)

    async def post(self, notices: Sequence[Announcement], timeout: float) -> dict[str, int]:
        """Write announcements, and count the candidates. See `protocol.Announcements.post`."""
        with self._lock:
            for key in [
                key for key, (_, runs_out) in self._rows.items() if runs_out <= self._now()
            ]:
                del self._rows[key]
            for item in notices:
                # Encoded as JSON, so that a body which other stores would refuse is refused here.
                posted = replace(
                    item,
                    body=json.loads(encode_body(item.body)),
                    posted_at=self._wall(),
                    remaining=item.ttl,
                )
                self._rows[item.key] = (posted, self._now() + item.ttl)
                self._feeds.publish(posted)
            waiting = [item.role for item, _ in self._rows.values() if item.kind == CANDIDATE]
            return {role: min(waiting.count(role), MAX_COUNTED) for role in counted_roles(notices)}

    async def withdraw(self, keys: Collection[str], timeout: float) -> None:
        """Delete the announcements with these keys, if they exist."""
        with self._lock:
            for key in keys:
                self._rows.pop(key, None)

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Announcement]:
        """Return the announcements about `roles` (None: about every role)."""
        return [item for item in self._unexpired() if roles is None or item.role in roles]

    def watch(self) -> AsyncIterator[Announcement]:
        """Yield the urgent announcements, and again whenever one is posted."""
        return self._feeds.open(
            lambda: [notice for notice in self._unexpired() if notice.urgent],
            lambda notice: notice.urgent,
        )

    async def purge(self, timeout: float) -> int:
        """Delete all expired announcements, and return how many they were."""
        with self._lock:
            expired = [key for key, (_, runs_out) in self._rows.items() if runs_out <= self._now()]
            for key in expired:
                del self._rows[key]
            return len(expired)

    def after_fork(self) -> None:
        """Forget everything, in a forked child: its copy says nothing about others."""
        self._rows, self._feeds = {}, Feeds()
        self._lock = threading.RLock()

    def _unexpired(self) -> list[Announcement]:
        with self._lock:
            now = self._now()
            return [
                replace(item, remaining=runs_out - now)
                for item, runs_out in self._rows.values()
                if runs_out > now
            ]
