"""Requests of many roles that travel together: what leaves when, and what becomes of those that
wait."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection, Sequence

import pytest

from coord import AsyncCoordinator
from coord.core.lease import Lease
from coord.core.operations import Answer, Claim, Failure, Operation, Read, Release, Renew, Result
from coord.errors import AccessDenied, StoreUnavailable
from coord.stores import batching
from coord.stores.batching import (
    INITIAL_BATCH_SIZE,
    MAX_BATCH_SIZE,
    MAX_CONCURRENT_BATCHES,
    MIN_BATCH_SIZE,
    Batchable,
    SwapBatcher,
)
from coord.stores.memory.store import MemoryStore
from coord.stores.protocol import Bulk
from coord.stores.requests import send_all
from coord.testing.clocks import Machine
from coord.testing.clocks import run as virtual_time
from tests.support.waits import soon


class Store:
    """Answers when it is told to; what it was asked, and what was heard of it."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.queries: list[list[str]] = []
        self.results: list[Result] = []
        self.takes: Callable[[float], float] = lambda timeout: 0.0
        self.batches = SwapBatcher(self.answer, self.results.append)

    async def answer(self, operations: Sequence[Batchable], timeout: float) -> Sequence[Result]:
        self.queries.append([operation.role for operation in operations])
        await self.go.wait()
        await asyncio.sleep(self.takes(timeout))
        return [
            Failure(True, "no") if operation.role == "bad" else Answer(True, Lease(operation.role))
            for operation in operations
        ]

    def ask(
        self, role: str, timeout: float = 5.0, going: Callable[[], None] = lambda: None
    ) -> asyncio.Future[Result]:
        future = self.batches.add(Read(role), timeout, going)
        assert future is not None
        return future


def test_what_is_asked_while_others_are_under_way_leaves_as_one() -> None:
    async def main() -> None:
        store = Store()
        store.go.clear()
        first = [store.ask(str(number)) for number in range(3)]
        await asyncio.sleep(0)
        assert store.queries == [["0", "1", "2"]]
        second = store.ask("3")
        await asyncio.sleep(0)
        assert store.queries[1:] == [["3"]]  # two are under way at a time
        later = [store.ask(str(number)) for number in range(4, 20)]
        await asyncio.sleep(0.01)
        assert len(store.queries) == MAX_CONCURRENT_BATCHES == 2
        store.go.set()
        answers = await asyncio.gather(*first, second, *later)
        assert [answer.lease.role for answer in answers if isinstance(answer, Answer)] == [
            str(n) for n in range(20)
        ]
        assert store.queries[2:] == [[str(number) for number in range(4, 20)]]
        assert not store.batches._under_way

    asyncio.run(main())


def test_a_role_is_in_a_batch_once_and_renewals_are_in_none() -> None:
    async def main() -> None:
        store = Store()
        first = store.ask("a")
        assert store.batches.add(Release("a", "h", 1, 2), 5.0, lambda: None) is None
        assert store.batches.add(Renew("b", "h", 1, 2, 30.0), 5.0, lambda: None) is None
        await first
        assert store.batches.add(Release("a", "h", 1, 2), 5.0, lambda: None) is not None

    asyncio.run(main())


def test_each_hears_when_it_is_sent_and_equal_timeouts_travel_together() -> None:
    async def main() -> None:
        store, departures = Store(), list[str]()
        requests = [
            store.ask(
                f"{timeout:g} {number}",
                timeout,
                functools.partial(departures.append, f"{timeout:g} {number}"),
            )
            for number in range(2)
            for timeout in (5.0, 1.0)
        ]
        assert departures == []
        await asyncio.gather(*requests)
        assert store.queries == [["5 0", "5 1"], ["1 0", "1 1"]]
        assert departures == ["5 0", "5 1", "1 0", "1 1"]

    asyncio.run(main())


def test_who_was_cancelled_does_not_leave() -> None:
    async def main() -> None:
        store = Store()
        store.go.clear()
        under_way = [store.ask("a")]
        await asyncio.sleep(0)
        under_way.append(store.ask("b"))
        await asyncio.sleep(0)
        waiting, cancelled = store.ask("c"), store.ask("d")
        cancelled.cancel()
        under_way[0].cancel()
        store.go.set()
        assert isinstance(await waiting, Answer)
        assert isinstance(await under_way[1], Answer)
        assert store.queries == [["a"], ["b"], ["c"]]

    asyncio.run(main())


def test_batches_grow_while_the_store_is_quick_and_shrink_when_it_is_not() -> None:
    async def main() -> None:
        store, sizes, clock = Store(), list[int](), [0.0]
        asyncio.get_running_loop().time = lambda: clock[0]  # type: ignore[method-assign] # however busy the machine is

        def takes(share: float) -> None:
            def passes(timeout: float) -> float:
                clock[0] += timeout * share
                return 0.0

            store.takes = passes

        async def full() -> None:
            size = store.batches._size
            await asyncio.gather(*(store.ask(str(number), 0.4) for number in range(size)))
            sizes.append(store.batches._size)

        for _ in range(5):
            await full()
        assert sizes == [
            2 * INITIAL_BATCH_SIZE,
            4 * INITIAL_BATCH_SIZE,
            MAX_BATCH_SIZE,
            MAX_BATCH_SIZE,
            MAX_BATCH_SIZE,
        ]
        takes(0.2)  # neither
        await full()
        takes(0.3)
        for _ in range(7):
            await full()
        assert sizes[5:] == [
            MAX_BATCH_SIZE,
            MAX_BATCH_SIZE // 2,
            MAX_BATCH_SIZE // 4,
            MAX_BATCH_SIZE // 8,
            MAX_BATCH_SIZE // 16,
            MIN_BATCH_SIZE,
            MIN_BATCH_SIZE,
            MIN_BATCH_SIZE,
        ]
        takes(0.0)
        await store.ask("lone", 0.4)
        assert store.batches._size == MIN_BATCH_SIZE  # it was no full one that was quick

    asyncio.run(main())


@pytest.mark.parametrize("answers", [[], [Answer(True, Lease("a"))], None])
def test_a_store_that_misbehaves_keeps_nobody_waiting(answers: list[Result] | None) -> None:
    async def main() -> None:
        async def answer(operations: Sequence[Batchable], timeout: float) -> Sequence[Result]:
            if answers is None:
                raise RuntimeError("a defect")
            return answers

        outcomes: list[Result] = []
        batches = SwapBatcher(answer, outcomes.append)
        requests = [batches.add(Read(role), 5.0, lambda: None) for role in ("a", "b", "c")]
        results = await asyncio.gather(*(request for request in requests if request is not None))
        assert [isinstance(result, Failure) and result.unknown for result in results] == [True] * 3
        assert [isinstance(item, Failure) for item in outcomes] == [True]

    asyncio.run(main())


def test_one_failure_is_heard_of() -> None:
    async def main() -> None:
        store = Store()
        results = await asyncio.gather(*(store.ask(role) for role in ("a", "bad", "c")))
        assert [isinstance(result, Failure) for result in results] == [False, True, False]
        assert [isinstance(item, Failure) for item in store.results] == [True]

    asyncio.run(main())


def test_a_loop_that_ends_leaves_nothing_to_the_next() -> None:
    stores: list[Store] = []
    futures: list[asyncio.Future[Result]] = []

    async def wait_for(request: asyncio.Future[Result]) -> Result:
        return await request

    async def first() -> None:
        store = Store()
        stores.append(store)
        store.go.clear()
        for role in "ab":
            futures.append(store.ask(role))
            await asyncio.sleep(0)
        futures.extend(asyncio.ensure_future(wait_for(store.ask(role))) for role in "cd")
        await asyncio.sleep(0)

    async def second() -> None:
        store = stores[0]
        store.go = asyncio.Event()
        store.go.set()
        assert isinstance(await asyncio.wait_for(store.ask("a"), 5), Answer)

    asyncio.run(first())
    assert [isinstance(item.result(), Failure) for item in futures[:2]] == [True] * 2
    assert [item.cancelled() for item in futures[2:]] == [True] * 2
    assert not stores[0].batches._under_way
    asyncio.run(second())
    # A loop that is closed around its tasks does not even tell them.
    loop = asyncio.new_event_loop()
    stores[0].go.clear()
    loop.run_until_complete(first_of(stores[0]))
    tasks = list(stores[0].batches._under_way)
    assert len(tasks) == MAX_CONCURRENT_BATCHES
    asyncio.run(second())
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()


async def first_of(store: Store) -> None:
    store.go = asyncio.Event()
    for role in "abc":
        store.ask(role)
        await asyncio.sleep(0)


class CanTogether(MemoryStore):
    """A memory store that can; `trouble` is what becomes of reads."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.trouble: Exception | None = None
        self.hangs = False

    async def swap_all(self, swaps: Sequence[Claim | Release], timeout: float) -> Sequence[Result]:
        self.sizes.append(len(swaps))
        if self.hangs:
            await asyncio.sleep(3600)
        await asyncio.sleep(0.01)
        alone = super()
        return [
            await (
                alone.claim(swap, timeout)
                if isinstance(swap, Claim)
                else alone.release(swap, timeout)
            )
            for swap in swaps
        ]

    async def claim(self, claim: Claim, timeout: float) -> Result:
        await asyncio.sleep(0.01)
        return await super().claim(claim, timeout)

    async def release(self, release: Release, timeout: float) -> Result:
        await asyncio.sleep(0.01)
        return await super().release(release, timeout)

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        if self.trouble is not None:
            raise self.trouble
        return await super().read(roles, timeout)


def test_swaps_and_looks_are_told_apart_and_answered_in_order() -> None:
    async def main() -> None:
        store = CanTogether()
        await store.claim(Claim("held", "h", 1, 30.0), 5)
        requests: list[Operation] = [
            Read("nowhere"),
            Claim("new", "n", 1, 30.0),
            Read("held"),
            Release("held too", "h", 1, 2),
        ]
        results = await send_all(store, requests, 5)  # type: ignore[arg-type] # no renewals are in it
        answers = [
            (result.applied, result.lease.role, result.lease.holder)
            for result in results
            if isinstance(result, Answer)
        ]
        expected = [
            (False, "nowhere", None),
            (True, "new", "n"),
            (False, "held", "h"),
            (False, "held too", None),
        ]
        assert answers == expected
        for trouble, refusal in (
            (StoreUnavailable("gone"), None),
            (AccessDenied("no"), AccessDenied),
        ):
            store.trouble = trouble
            results = await send_all(store, requests, 5)  # type: ignore[arg-type]
            failures = [result for result in results if isinstance(result, Failure)]
            assert failures == [Failure(unknown=False, detail=str(trouble), refusal=refusal)] * 2
        store.hangs = True
        results = await send_all(store, requests[1:2], 0.05)  # type: ignore[arg-type]
        assert [isinstance(result, Failure) and result.unknown for result in results] == [True]

    asyncio.run(main())


def test_many_roles_are_had_and_given_back_in_few_queries() -> None:
    async def main(machine: Machine) -> None:
        store = CanTogether()
        assert isinstance(store, Bulk)
        assert not isinstance(MemoryStore(), Bulk)
        async with AsyncCoordinator(store=store) as c:
            leads = [c.leadership(f"role {number}", ttl=300) for number in range(1000)]
            await asyncio.gather(*(lead.start() for lead in leads))
            assert await soon(lambda: all(lead.is_leader for lead in leads))
            assert sum(store.sizes) == 1000 - batching.MAX_SINGLE_REQUESTS
            assert len(store.sizes) <= 8
            assert max(store.sizes) >= INITIAL_BATCH_SIZE
            store.sizes.clear()
            await asyncio.gather(*(lead.stop() for lead in leads))
            assert all(row.vacant for row in await store.read(None, 5))
            assert len(store.sizes) <= 8

    virtual_time(main)  # a batch is as large as the store answers in good time: not the machine


def test_rivals_in_one_process_do_not_wait_for_each_other() -> None:
    """A thousand candidates for one role: a batch could have but one of them."""

    async def main() -> None:
        store = CanTogether()
        async with AsyncCoordinator(store=store) as c:
            leads = [c.leadership("role", ttl=30) for _ in range(300)]
            await asyncio.gather(*(lead.start() for lead in leads))
            await soon(
                lambda: all(
                    lead._elector is not None and lead._elector.first_result_seen for lead in leads
                )
            )
            assert sum(lead.is_leader for lead in leads) == 1

    asyncio.run(main())


def test_a_store_that_does_not_answer_costs_one_attempt() -> None:
    async def main() -> None:
        store = CanTogether()
        async with AsyncCoordinator(store=store) as c:
            leads = [c.leadership(f"role {number}", ttl=1) for number in range(100)]
            store.hangs = True
            starting = [asyncio.ensure_future(lead.start()) for lead in leads]
            await soon(lambda: len(store.sizes) >= 2)
            store.hangs = False
            assert await soon(lambda: all(lead.is_leader for lead in leads))
            await asyncio.gather(*starting)

    asyncio.run(main())
