"""A callback that lets a `CancelledError` out (a task that it awaited was cancelled) has failed
like any other."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from coord import AsyncCoordinator, Coordinator, LossReason
from coord.stores.memory.store import MemoryStore
from tests.support.waits import eventually


async def broken(*_: object) -> None:
    waits = asyncio.ensure_future(asyncio.sleep(60))
    waits.cancel()
    await waits


def plainly_broken(*_: object) -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("function", [broken, plainly_broken])
def test_from_threads(function: Any) -> None:
    lost: list[LossReason] = []
    with Coordinator(store=MemoryStore()) as coordinator:
        told = [function, lambda term, reason: lost.append(reason)]
        lead = coordinator.leadership("r", ttl=5, on_elected=function, on_lost=told)
        lead.start()
        assert eventually(lambda: lost == [LossReason.CALLBACK_FAILED])
        lead.stop()
        assert not lead.started


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="a task cannot tell there whether it is being cancelled"
)
@pytest.mark.parametrize("function", [broken, plainly_broken])
def test_on_a_loop(function: Any) -> None:
    async def body() -> None:
        lost: asyncio.Queue[LossReason] = asyncio.Queue()
        async with AsyncCoordinator(store=MemoryStore()) as coordinator:
            told = [function, lambda term, reason: lost.put_nowait(reason)]
            lead = coordinator.leadership("r", ttl=5, on_elected=function, on_lost=told)
            await lead.start()
            assert await asyncio.wait_for(lost.get(), 5) is LossReason.CALLBACK_FAILED
            await lead.stop()
            assert not lead.started

    asyncio.run(body())


def test_a_loop_that_ends_cancels_a_callback_all_the_same() -> None:
    ended: list[str] = []

    async def lasts(term: object) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("ended")

    async def body() -> None:
        coordinator = AsyncCoordinator(store=MemoryStore())
        lead = coordinator.leadership("r", ttl=5, on_elected=lasts)
        await lead.acquire()
        await asyncio.sleep(0.05)

    asyncio.run(body())
    assert ended == ["ended"]
