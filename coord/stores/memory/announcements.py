"""The board in this process's memory: for `memory://`, for tests, and as the oracle of the other
boards."""

from __future__ import annotations

import asyncio
import contextlib
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


class MemoryAnnouncements:
    """All coordinators that are given the same instance share it, from whatever threads and loops.

    `now` is the store's own clock, in seconds; `wall` is what people read.
    """

    def __init__(
        self, now: Callable[[], float] = clock.total_seconds, wall: Callable[[], float] = time.time
    ) -> None:
        self._now, self._wall = now, wall
        self._rows: dict[str, tuple[Announcement, float]] = {}
        self._watchers: list[Callable[[Announcement], None]] = []
        self._lock = threading.RLock()
        process.reset_after_fork(self)

    async def post(self, notices: Sequence[Announcement], timeout: float) -> dict[str, int]:
        with self._lock:
            for key in [
                key for key, (_, runs_out) in self._rows.items() if runs_out <= self._now()
            ]:
                del self._rows[key]
            for one in notices:
                # Through JSON: what another board would not take is not taken here either.
                posted = replace(
                    one,
                    body=json.loads(encode_body(one.body)),
                    posted_at=self._wall(),
                    remaining=one.ttl,
                )
                self._rows[one.key] = (posted, self._now() + one.ttl)
                if one.urgent:
                    for tell in self._watchers:
                        tell(posted)
            waiting = [one.role for one, _ in self._rows.values() if one.kind == CANDIDATE]
            return {role: min(waiting.count(role), MAX_COUNTED) for role in counted_roles(notices)}

    async def withdraw(self, keys: Collection[str], timeout: float) -> None:
        with self._lock:
            for key in keys:
                self._rows.pop(key, None)

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Announcement]:
        return [one for one in self._standing() if roles is None or one.role in roles]

    async def watch(self) -> AsyncIterator[Announcement]:
        queue: asyncio.Queue[Announcement] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(notice: Announcement) -> None:
            with contextlib.suppress(RuntimeError):  # that loop has closed without closing its feed
                loop.call_soon_threadsafe(queue.put_nowait, notice)

        with self._lock:
            self._watchers.append(tell)
            present = [one for one in self._standing() if one.urgent]
        try:
            for notice in present:
                yield notice
            while True:
                yield await queue.get()
        finally:
            with self._lock:
                self._watchers.remove(tell)

    async def purge(self, timeout: float) -> int:
        with self._lock:
            gone = [key for key, (_, runs_out) in self._rows.items() if runs_out <= self._now()]
            for key in gone:
                del self._rows[key]
            return len(gone)

    def after_fork(self) -> None:
        """A fork has a copy of the memory: what it says about others is worth nothing there."""
        self._rows, self._watchers = {}, []
        self._lock = threading.RLock()

    def _standing(self) -> list[Announcement]:
        with self._lock:
            now = self._now()
            return [
                replace(one, remaining=runs_out - now)
                for one, runs_out in self._rows.values()
                if runs_out > now
            ]
