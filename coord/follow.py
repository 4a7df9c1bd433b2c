"""`watch_leader`: every change of a role's leader, "nobody" among them, for as long as somebody listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from coord.known import Known
from coord.lease import Lease


class Source(Protocol):
    """What it needs of a coordinator."""

    known: Known

    def follow(self, role: str, listener: Callable[[Lease], None]) -> Callable[[], None]: ...

    async def leader(self, role: str) -> Lease | None: ...


async def changes_of_leader(source: Source, role: str) -> AsyncIterator[Lease | None]:
    """Who leads now (None for nobody), then each change.

    A lease that runs out with nobody to take it is reported when it does, by the clock of this process. A feed may
    anticipate a write that fails, so this tells people and caches; it decides nothing.
    """
    hints: asyncio.Queue[Lease] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def hinted(lease: Lease) -> None:
        source.known.saw(lease)
        hints.put_nowait(lease)

    source.known.watch(role)
    stop = source.follow(role, hinted)
    try:
        present = await source.leader(role)
        source.known.saw(present or Lease(role))
        yield present
        told = _who(present)
        runs_out = None if present is None else loop.time() + present.remaining
        while True:
            left = None if runs_out is None else max(0.0, runs_out - loop.time())
            try:
                lease: Lease | None = await asyncio.wait_for(hints.get(), left)
            except asyncio.TimeoutError:
                lease = None
            if lease is not None and present is not None and lease.older_than(present):
                continue
            stands = lease is not None and lease.led
            runs_out = loop.time() + lease.remaining if lease is not None and stands else None
            present = lease or present
            now = _who(lease if stands else None)
            if now != told:
                told = now
                yield lease if stands else None
    finally:
        stop()
        source.known.unwatch(role)


def _who(lease: Lease | None) -> tuple[str | None, int] | None:
    return None if lease is None else (lease.holder, lease.token)
