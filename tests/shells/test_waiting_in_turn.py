"""What a coordinator's requests wait in: claims in turn, renewals in one batch, each for no longer than its time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from coord.lease import Lease
from coord.operations import Answer, Failure, Renew, Result
from coord.renewals import Renewals
from coord.turns import Turns


def test_so_many_at_a_time_and_the_others_in_turn() -> None:
    began: list[int] = []
    running = most = 0

    async def main() -> None:
        turns = Turns(3)

        async def job(number: int) -> None:
            nonlocal running, most
            turn = turns.take()
            try:
                if turn is not None:
                    await turn
                began.append(number)
                running += 1
                most = max(most, running)
                await asyncio.sleep(0.001)
                running -= 1
            finally:
                turns.give_back(turn)

        await asyncio.gather(*(job(number) for number in range(20)))
        assert (began, most) == (list(range(20)), 3)
        assert [turns.take() for _ in range(3)] == [None] * 3
        assert turns.take() is not None

    asyncio.run(main())


@pytest.mark.parametrize("when", ["while it waits", "as its turn comes", "before it began"])
def test_who_is_cancelled_takes_no_turn_with_it(when: str) -> None:
    async def main() -> None:
        turns = Turns(1)
        ran: list[str] = []

        async def job(name: str) -> None:
            turn = turns.take()
            try:
                if turn is not None:
                    await turn
                ran.append(name)
            finally:
                turns.give_back(turn)

        mine = turns.take()
        cancelled = asyncio.ensure_future(job("cancelled"))
        if when != "before it began":
            await asyncio.sleep(0)
        if when == "as its turn comes":
            turns.give_back(mine)
        cancelled.cancel()
        if when != "as its turn comes":
            turns.give_back(mine)
        await asyncio.gather(cancelled, return_exceptions=True)
        await asyncio.wait_for(job("next"), 1)
        assert ran == ["next"]
        assert (turns.take(), turns.take() is None) == (None, False)

    asyncio.run(main())


class Answers:
    """A store's `renew` that waits until it may answer, and what was heard of it."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.batches: list[int] = []
        self.heard: list[Result] = []
        self.renewals = Renewals(self.renew, self.heard.append)

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        self.batches.append(len(renewals))
        await self.go.wait()
        return [Failure(True, "no") if one.role == "bad" else Answer(True, Lease(one.role)) for one in renewals]

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
        for asked, seconds in ((hasty, 0.1), (later, 0.2)):
            result = await asyncio.wait_for(asked, 2)
            assert isinstance(result, Failure)
            assert result.unknown
            assert seconds - 0.01 <= loop.time() - began < seconds + 0.5
        assert not patient.done()
        assert isinstance(store.heard[-1], Failure)
        store.go.set()
        assert isinstance(await asyncio.wait_for(patient, 2), Answer)
        await asyncio.sleep(0.01)
        assert store.renewals._late is None  # nobody waits any more

    asyncio.run(main())


def test_who_is_cancelled_leaves_the_others_alone() -> None:
    async def main() -> None:
        store = Answers()
        asked = [store.ask(role, 5.0) for role in ("one", "two", "bad")]
        await asyncio.sleep(0)
        asked[0].cancel()
        store.go.set()
        assert isinstance(await asked[1], Answer)
        assert isinstance(await asked[2], Failure)
        assert store.batches == [3]
        assert [isinstance(one, Failure) for one in store.heard] == [True]
        assert isinstance(await store.ask("four", 5.0), Answer)
        assert isinstance(store.heard[-1], Answer)

    asyncio.run(main())
