"""A loop that ends around batches: who gives back what he holds asks only then, and is not left
waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest

from coord import AsyncCoordinator
from coord.core.operations import Answer, Claim, Failure, Release, Result
from coord.stores.batching import MAX_CONCURRENT_BATCHES, MAX_SINGLE_REQUESTS
from tests.stores.test_batching import CanTogether, Store
from tests.support.waits import soon

HELD = 3 * MAX_SINGLE_REQUESTS


def test_who_asks_while_batches_are_cancelled_is_answered() -> None:
    async def main() -> None:
        store = Store()
        store.go.clear()
        under_way = []
        for role in "ab":
            under_way.append(store.ask(role))
            await asyncio.sleep(0)
        waiting = store.ask("c")
        for task in tuple(store.batches._under_way):
            task.cancel()
        later = store.ask("d")
        store.go.set()
        results = await asyncio.wait_for(asyncio.gather(*under_way, waiting, later), 5)
        assert [type(result) for result in results] == [Failure, Failure, Answer, Answer]
        assert store.queries == [["a"], ["b"], ["c", "d"]]

    asyncio.run(main())


def test_batches_that_are_cancelled_before_they_began_are_followed_by_others() -> None:
    async def main() -> None:
        store = Store()
        requests = [store.ask(role) for role in "ab"]
        tasks = tuple(store.batches._under_way)
        assert len(tasks) == MAX_CONCURRENT_BATCHES
        for task in tasks:
            task.cancel()
        requests.append(store.ask("c"))
        results = await asyncio.wait_for(asyncio.gather(*requests), 5)
        assert [type(result) for result in results] == [Answer] * 3
        assert store.queries == [["a", "b", "c"]]

    asyncio.run(main())


class Stuck(CanTogether):
    """Once it is stuck no claim is answered, but releases are."""

    stuck = False

    async def claim(self, claim: Claim, timeout: float) -> Result:
        if self.stuck:
            await asyncio.sleep(3600)
        return await super().claim(claim, timeout)

    async def swap_all(self, swaps: Sequence[Claim | Release], timeout: float) -> Sequence[Result]:
        if self.stuck and any(isinstance(swap, Claim) for swap in swaps):
            self.sizes.append(len(swaps))
            await asyncio.sleep(3600)
        return await super().swap_all(swaps, timeout)


async def busy(c: AsyncCoordinator, store: Stuck) -> None:
    """Two batches are under way, and so are as many as go alone."""
    store.stuck, before = True, len(store.sizes)
    for number in range(1, MAX_CONCURRENT_BATCHES + 1):
        for lead in [c.leadership(f"more {number} {item}", ttl=300) for item in range(HELD)]:
            await lead.start()
        await soon(lambda number=number: len(store.sizes) == before + number)  # type: ignore[misc]


async def just_begun(c: AsyncCoordinator, _store: Stuck) -> None:
    """The loop ends in the turn in which the candidates ask."""
    for lead in [c.leadership(f"more {number}", ttl=300) for number in range(HELD)]:
        await lead.start()


@pytest.mark.parametrize("end", [busy, just_begun])
def test_a_loop_that_ends_gives_back_all_that_it_holds(
    end: Callable[[AsyncCoordinator, Stuck], Awaitable[None]],
) -> None:
    store = Stuck()
    ended = threading.Event()

    async def main() -> None:
        c = AsyncCoordinator(store=store)
        leads = [c.leadership(f"role {number}", ttl=300) for number in range(HELD)]
        await asyncio.gather(*(lead.start() for lead in leads))
        assert await soon(lambda: all(lead.is_leader for lead in leads))
        await end(c, store)

    def run() -> None:
        asyncio.run(main())
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    assert ended.wait(60), "the loop does not end"
    rows = asyncio.run(store.read([f"role {number}" for number in range(HELD)], 5))
    assert len(rows) == HELD
    assert all(row.vacant for row in rows)
