"""What a coordinator's requests wait in: claims in turn, renewals in one batch, each for no longer
than its time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from coord import AsyncCoordinator
from coord.core.lease import Lease
from coord.core.operations import Answer, Claim, Failure, Renew, Result
from coord.election import session
from coord.runtime.timers import LightSemaphore
from coord.stores.batching import WAIT_FROM_SIZE, RenewalBatcher
from coord.stores.memory.store import MemoryStore
from coord.testing.clocks import Machine
from coord.testing.clocks import run as virtual_time
from tests.support.waits import soon


def test_so_many_at_a_time_and_the_others_in_turn() -> None:
    began: list[int] = []
    running = most = 0

    async def main() -> None:
        turns = LightSemaphore(3)

        async def job(number: int) -> None:
            nonlocal running, most
            turn = turns.acquire()
            try:
                if turn is not None:
                    await turn
                began.append(number)
                running += 1
                most = max(most, running)
                await asyncio.sleep(0.001)
                running -= 1
            finally:
                turns.release(turn)

        await asyncio.gather(*(job(number) for number in range(20)))
        assert (began, most) == (list(range(20)), 3)
        assert [turns.acquire() for _ in range(3)] == [None] * 3
        assert turns.acquire() is not None

    asyncio.run(main())


@pytest.mark.parametrize("when", ["while it waits", "as its turn comes", "before it began"])
def test_who_is_cancelled_takes_no_turn_with_it(when: str) -> None:
    async def main() -> None:
        turns = LightSemaphore(1)
        ran: list[str] = []

        async def job(name: str) -> None:
            turn = turns.acquire()
            try:
                if turn is not None:
                    await turn
                ran.append(name)
            finally:
                turns.release(turn)

        own_turn = turns.acquire()
        cancelled = asyncio.ensure_future(job("cancelled"))
        if when != "before it began":
            await asyncio.sleep(0)
        if when == "as its turn comes":
            turns.release(own_turn)
        cancelled.cancel()
        if when != "as its turn comes":
            turns.release(own_turn)
        await asyncio.gather(cancelled, return_exceptions=True)
        await asyncio.wait_for(job("next"), 1)
        assert ran == ["next"]
        assert (turns.acquire(), turns.acquire() is None) == (None, False)

    asyncio.run(main())


class Answers:
    """A store's `renew` that waits until it may answer, and what was heard of it."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.batches: list[int] = []
        self.heard: list[Result] = []
        self.renewals = RenewalBatcher(self.renew, self.heard.append)

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        self.batches.append(len(renewals))
        await self.go.wait()
        return [
            Failure(True, "no") if renewal.role == "bad" else Answer(True, Lease(renewal.role))
            for renewal in renewals
        ]

    def ask(self, role: str, timeout: float) -> asyncio.Future[Result]:
        return self.renewals.renew(Renew(role, "a", 1, 2, 30.0), timeout)


def test_each_renewal_gives_up_in_its_own_time() -> None:
    async def main() -> None:
        loop, store = asyncio.get_running_loop(), Answers()
        began = loop.time()
        patient = store.ask("patient", 5.0)
        hasty = store.ask("hasty", 0.1)
        await asyncio.sleep(0)
        later = store.ask("later", 0.2)  # waits for the batch that is under way
        for request, seconds in ((hasty, 0.1), (later, 0.2)):
            result = await asyncio.wait_for(request, 2)
            assert isinstance(result, Failure)
            assert result.unknown
            assert seconds - 0.01 <= loop.time() - began < seconds + 0.5
        assert not patient.done()
        assert isinstance(store.heard[-1], Failure)
        store.go.set()
        assert isinstance(await asyncio.wait_for(patient, 2), Answer)
        await asyncio.sleep(0.01)
        assert not store.renewals._deadlines._waiting

    asyncio.run(main())


def test_a_batch_of_renewals_may_take_as_long_as_its_most_patient_member() -> None:
    timeouts: list[float] = []

    async def renew(renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        timeouts.append(timeout)
        await asyncio.sleep(min(timeout, 3.0))
        return [Answer(True, Lease(renewal.role)) for renewal in renewals]

    async def main(machine: Machine) -> None:
        renewals = RenewalBatcher(renew, lambda result: None)
        results = await asyncio.gather(
            *(
                renewals.renew(Renew(role, "a", 1, 2, 30.0), timeout)
                for role, timeout in (("hasty", 1.0), ("patient", 5.0), ("hasty too", 1.0))
            )
        )
        assert [type(result) for result in results] == [Failure, Answer, Failure]
        assert [round(timeout) for timeout in timeouts] == [5]

    virtual_time(main)


def test_what_nobody_waits_for_is_not_sent() -> None:
    async def main() -> None:
        store = Answers()
        under_way = store.ask("one", 5.0)
        await asyncio.sleep(0)
        behind, cancelled = store.ask("two", 0.05), store.ask("three", 5.0)
        cancelled.cancel()
        assert isinstance(await behind, Failure)
        again = store.ask("two", 5.0)
        store.go.set()
        assert isinstance(await under_way, Answer)
        assert isinstance(await again, Answer)
        assert store.batches == [1, 1]
        store.go.clear()
        last = store.ask("one", 5.0)
        await asyncio.sleep(0)
        store.ask("two", 5.0).cancel()
        store.go.set()
        assert isinstance(await last, Answer)
        await asyncio.sleep(0.01)
        assert store.batches == [1, 1, 1]
        assert store.renewals._task is not None
        assert store.renewals._task.done()

    asyncio.run(main())


def test_who_is_cancelled_leaves_the_others_alone() -> None:
    async def main() -> None:
        store = Answers()
        requests = [store.ask(role, 5.0) for role in ("one", "two", "bad")]
        await asyncio.sleep(0)
        requests[0].cancel()
        store.go.set()
        assert isinstance(await requests[1], Answer)
        assert isinstance(await requests[2], Failure)
        assert store.batches == [3]
        assert [isinstance(item, Failure) for item in store.heard] == [True]
        assert isinstance(await store.ask("four", 5.0), Answer)
        assert isinstance(store.heard[-1], Answer)

    asyncio.run(main())


@pytest.mark.parametrize("answers", [[], [Answer(True, Lease("one"))]])
def test_a_store_that_answers_for_too_few_keeps_nobody_waiting(answers: list[Result]) -> None:
    async def main() -> None:
        async def renew(renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
            return (
                answers
                if len(renewals) == 3
                else [Answer(True, Lease(renewal.role)) for renewal in renewals]
            )

        results: list[Result] = []
        renewals = RenewalBatcher(renew, results.append)
        requests = [
            renewals.renew(Renew(role, "a", 1, 2, 30.0), 5.0) for role in ("one", "two", "three")
        ]
        await asyncio.sleep(0.01)
        another = renewals.renew(Renew("four", "a", 1, 2, 30.0), 5.0)
        for request in requests:
            result = await asyncio.wait_for(request, 2)
            assert isinstance(result, Failure)
            assert result.unknown
        assert isinstance(await another, Answer)
        assert [isinstance(item, Failure) for item in results] == [True, False]

    asyncio.run(main())


@pytest.mark.parametrize("end", ["answer", "exception", "late", "cancelled"])
def test_a_renewal_alone_occupies_the_batcher_until_its_end(end: str) -> None:
    """However it ends: otherwise no later one would be sent alone."""

    async def main() -> None:
        go = asyncio.Event()

        async def renew(renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
            await go.wait()
            if end == "exception":
                raise OSError
            return [Answer(True, Lease(renewal.role)) for renewal in renewals]

        results: list[Result] = []
        renewals = RenewalBatcher(renew, results.append)
        assert renewals.idle
        timeout = 0.01 if end == "late" else 5.0
        alone = asyncio.ensure_future(renewals.renew_alone(Renew("one", "a", 1, 2, 30.0), timeout))
        await asyncio.sleep(0)
        assert not renewals.idle
        if end == "cancelled":
            alone.cancel()
        elif end != "late":
            go.set()
        await asyncio.wait({alone}, timeout=20)
        assert renewals.idle
        if end == "cancelled":
            assert alone.cancelled()
            return
        assert results == [alone.result()]
        assert isinstance(alone.result(), Answer if end == "answer" else Failure)

    asyncio.run(main())


@pytest.mark.parametrize("company", [False, True])
def test_a_loop_that_ends_leaves_nothing_to_the_next(company: bool) -> None:
    store = Answers()
    futures: list[asyncio.Future[Result]] = []

    async def first() -> None:
        if company:  # what follows waits for more
            store.go.set()
            await asyncio.gather(
                *(store.ask(f"r{number}", 5.0) for number in range(WAIT_FROM_SIZE))
            )
        timeout = (
            5.0 if company else 0.1
        )  # which makes it wait for long enough, or sets an early timer
        futures.append(store.ask("under way", timeout))
        await asyncio.sleep(0)
        futures.append(store.ask("behind it", timeout))
        await asyncio.sleep(0.005)

    async def second() -> None:
        store.go = asyncio.Event()
        store.batches.clear()
        began = asyncio.get_running_loop().time()
        result = await asyncio.wait_for(store.ask("another", 0.3), 2)
        assert isinstance(result, Failure)  # in its time, though the store hangs
        assert 0.29 < asyncio.get_running_loop().time() - began < 1
        assert store.batches == [1]

    asyncio.run(first())
    assert all(isinstance(item.result(), Failure) for item in futures)
    asyncio.run(second())


def test_a_claim_that_waited_longer_than_its_lease_lasts_is_won_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A deadline counts from when the claim left, not from when it began to wait."""
    monkeypatch.setattr(session, "MAX_CONCURRENT_CLAIMS", 2)
    claims = 0

    class Slow(MemoryStore):
        async def claim(self, claim: Claim, timeout: float) -> Result:
            nonlocal claims
            claims += 1
            await asyncio.sleep(0.1)
            return await super().claim(claim, timeout)

    async def main() -> None:
        async with AsyncCoordinator(store=Slow()) as c:
            leads = [
                c.leadership(f"role {number}", ttl=2) for number in range(60)
            ]  # three seconds of claims
            await asyncio.gather(*(lead.start() for lead in leads))
            assert await soon(lambda: all(lead.is_leader for lead in leads))
            assert claims < 80

    asyncio.run(main())
