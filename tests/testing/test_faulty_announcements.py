"""A wrapped store shows the board of the store within it, so that handing over can be tested on it
too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from coord import AsyncCoordinator
from coord.stores.memory.store import MemoryStore
from coord.stores.protocol import Store
from coord.testing import FaultyStore, History
from coord.testing.history.recording import RecordingStore


@pytest.mark.parametrize(
    "wrap", [FaultyStore, lambda store: RecordingStore(store, History(), "one")]
)
def test_a_role_is_handed_over_on_a_wrapped_store(wrap: Callable[[Store], Store]) -> None:
    async def main() -> None:
        store = wrap(MemoryStore())
        async with AsyncCoordinator(store=store) as first, AsyncCoordinator(store=store) as second:
            a, b = first.leadership("r", ttl=1), second.leadership("r", ttl=1)
            await a.acquire(timeout=5)
            await b.start()
            while not await first.candidates("r"):  # noqa: ASYNC110 # a board tells of loud notices only
                await asyncio.sleep(0.01)
            await a.transfer(str(b.candidate))
            assert await b.wait(5)
            assert b.term.token == 2

    asyncio.run(asyncio.wait_for(main(), 20))
