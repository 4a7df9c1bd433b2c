"""`watch_leader`: every change of a role's leader, "nobody" among them, for as long as somebody listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from coord.known import Known
from coord.lease import Lease
from coord.story import Story


class Source(Protocol):
    """What it needs of a coordinator."""

    known: Known

    def follow(self, role: str, listener: Callable[[Lease], None]) -> Callable[[], None]: ...

    async def read(self, roles: list[str] | None) -> list[Lease]: ...


Rows = asyncio.Queue[tuple[Lease, float]]
"""Rows, each with the moment at which it came: whoever takes them may be slow, and a lease runs on from then."""


async def taken(rows: Rows, within: float | None) -> tuple[Lease, float] | None:
    """The next row; None when none comes `within` so many seconds (None: wait for ever).

    Not `asyncio.wait_for`: before Python 3.12 it swallows a cancellation that comes together with a row.
    """
    if not rows.empty():
        return rows.get_nowait()
    getting = asyncio.ensure_future(rows.get())
    try:
        await asyncio.wait({getting}, timeout=within)
    finally:
        if not getting.done():
            getting.cancel()
    return getting.result() if getting.done() and not getting.cancelled() else None


async def changes_of_leader(source: Source, role: str) -> AsyncIterator[Lease | None]:
    """Who leads now (None for nobody), then each change.

    A lease that runs out with nobody to take it is reported when it does, by the clock of this process. A feed may
    anticipate a write that fails, so this tells people and caches; it decides nothing.
    """
    hints = Rows()
    loop, story, begun = asyncio.get_running_loop(), Story(), False

    def hinted(lease: Lease) -> None:
        if begun:
            source.known.saw(lease)
        hints.put_nowait((lease, loop.time()))

    source.known.watch(role)
    stop = source.follow(role, hinted)
    try:
        rows = await source.read([role])
        present = rows[0] if rows else Lease(role)
        source.known.saw(present)
        begun = True
        story.saw(present, loop.time())
        yield story.leader(loop.time())
        while True:
            row = await taken(hints, max(0.0, story.runs_out - loop.time()) if story.leads else None)
            now = loop.time() if row is None else row[1]
            if story.changed(now) if row is None else story.saw(*row):
                yield story.leader(now)
    finally:
        stop()
        source.known.unwatch(role)
