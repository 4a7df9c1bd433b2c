"""A call of a function under `@leader_only(job, once_per=…)`: it is run once for each tick.

This module is apart from the decorator (`coord/api/leader_only.py`) because it imports asyncio.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from coord.api.default import default
from coord.api.once import OnceCall, run_sync
from coord.api.sync_coordinator import Coordinator
from coord.core.ticks import Tick
from coord.election.term import run_async_under_term
from coord.runtime import process


class OncePerTick:
    """Runs calls of one decorated function, each once for its tick.

    Args:
        coordinator: The coordinator; None means the default one of the process.
        ttl: The duration of the lease, in seconds.
        retry: Whether a tick is run again if a run of it did not end.
        timeout: Seconds to wait while another tick of the job runs; None means no limit.
    """

    def __init__(
        self, coordinator: Coordinator | None, ttl: float, retry: bool, timeout: float | None
    ) -> None:
        self._coordinator, self._ttl = coordinator, ttl
        self._retry, self._timeout = retry, timeout

    def call(
        self, job: str, tick: Tick, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Call a plain function unless the tick was run, and return its result or the kept one."""
        coordinator, call = self._begin(job, tick)
        return run_sync(
            coordinator.portal, call, functools.partial(function, *args, **kwargs)
        ).result

    async def call_async(
        self,
        job: str,
        tick: Tick,
        function: Callable[..., Awaitable[Any]],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Await a coroutine function unless the tick was run, and return its result or the kept
        one."""
        coordinator, call = self._begin(job, tick)
        # The candidate lives on coord's own thread, so that renewals do not depend on how busy this
        # loop is.
        submit = coordinator.portal.submit
        try:
            done = await submit(call.begin)
            if done is not None:
                return done.result
            assert call.term is not None
            result = await run_async_under_term(call.term, None, function, *args, **kwargs)
            return (await submit(functools.partial(call.record, result))).result
        finally:  # also if this task was cancelled just when the role was acquired
            await asyncio.shield(submit(call.give_back))

    def _begin(self, job: str, tick: Tick) -> tuple[Coordinator, OnceCall]:
        coordinator = self._coordinator or default.get()
        process.close_at_exit(coordinator, hold=False)
        call = OnceCall(
            coordinator.inner, job, tick, ttl=self._ttl, retry=self._retry, timeout=self._timeout
        )
        return coordinator, call
