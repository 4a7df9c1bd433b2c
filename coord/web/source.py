"""A coordinator as the request handlers use it, on whatever event loop they run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from coord.api.coordinator import AsyncCoordinator
from coord.api.sync_coordinator import Coordinator
from coord.errors import BadArgument
from coord.runtime.portal import Portal

T = TypeVar("T")


class Source:
    """The store behind the pages.

    A `Coordinator` has an event loop in a thread of its own, to which requests are passed.

    Args:
        coordinator: The coordinator.

    Raises:
        BadArgument: It is no coordinator.
    """

    def __init__(self, coordinator: Coordinator | AsyncCoordinator) -> None:
        self._portal: Portal | None = None
        if isinstance(coordinator, Coordinator):
            self._inner, self._portal = coordinator.inner, coordinator.portal
        elif isinstance(coordinator, AsyncCoordinator):
            self._inner = coordinator
        else:
            raise BadArgument(
                "coordinator", coordinator, "must be a Coordinator or an AsyncCoordinator"
            )

    @property
    def url(self) -> str:
        """The URL of the store, without secrets."""
        return self._inner.url

    async def ask(self, question: Callable[[AsyncCoordinator], Coroutine[Any, Any, T]]) -> T:
        """Return what `question(coordinator)` returns, awaited on the coordinator's own loop."""
        if self._portal is None:
            return await question(self._inner)
        return await self._portal.submit(lambda: question(self._inner))

    async def watch(self, changed: Callable[[], object]) -> None:
        """Call `changed` on the running loop after each change of a leader.

        It returns when the coordinator is closed.
        """
        loop = asyncio.get_running_loop()

        async def report(coordinator: AsyncCoordinator) -> None:
            changes = coordinator.watch_leaders()
            async for _ in changes:
                with contextlib.suppress(RuntimeError):  # the server's loop has ended
                    loop.call_soon_threadsafe(changed)

        await self.ask(report)
