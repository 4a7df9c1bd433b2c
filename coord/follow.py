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


async def changes_of_leader(source: Source, role: str) -> AsyncIterator[Lease | None]:
    """Who leads now (None for nobody), then each change.

    A lease that runs out with nobody to take it is reported when it does, by the clock of this process. A feed may
    anticipate a write that fails, so this tells people and caches; it decides nothing.
    """
    hints: asyncio.Queue[Lease] = asyncio.Queue()
    loop, story, begun = asyncio.get_running_loop(), Story(), False

    def hinted(lease: Lease) -> None:
        if begun:
            source.known.saw(lease)
        hints.put_nowait(lease)

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
            now = loop.time()
            left = story.runs_out - now if story.leader(now) is not None else None
            try:
                changed = story.saw(await asyncio.wait_for(hints.get(), left), loop.time())
            except asyncio.TimeoutError:
                changed = story.changed(loop.time())
            if changed:
                yield story.leader(loop.time())
    finally:
        stop()
        source.known.unwatch(role)
