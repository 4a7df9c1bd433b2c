"""A leader that changes what it says about itself during its term."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import coord
from coord import Coordinator, Lease
from coord.core.operations import Failure
from coord.runtime.clock import total_seconds
from coord.stores.memory import MemoryStore
from coord.testing.clocks import Machine, run
from tests.support.store_time import RealTime
from tests.support.waits import soon

Two = tuple[Coordinator, Coordinator]


def test_followers_and_watchers_hear_of_it_and_renewals_stay_silent(
    store_time: RealTime, two: Two
) -> None:
    eventually = store_time.until
    infos: list[dict[str, Any]] = []
    leaders: list[Lease | None] = []
    a = two[0].leadership("r", ttl=0.9, info={"name": "a", "ready": False})
    b = two[1].leadership("r", ttl=0.9, on_info=lambda lease: infos.append(dict(lease.info)))
    changes = two[1].watch_leader("r")

    def watch() -> None:
        for lease in changes:
            leaders.append(lease)
            if lease is None or lease.info.get("n") == 2:
                return

    with a:
        assert a.wait(5)
        token = a.term.token
        with b:
            assert eventually(
                lambda: b.candidate in {candidate.id for candidate in two[0].candidates("r")}
            )
            ended = store_time.start(watch)
            assert eventually(lambda: leaders)
            a.update({"name": "a", "ready": True})
            assert eventually(lambda: infos)
            assert (infos[0]["name"], infos[0]["ready"]) == ("a", True)
            assert "host" in infos[0]
            began = a.term.deadline
            assert eventually(lambda: a.term.deadline > began + 0.6)  # at least two renewals
            a.update({"n": 2})
            assert eventually(lambda: len(infos) > 1)
            ended()
            assert [info.get("n", info.get("ready")) for info in infos] == [True, 2]
            output = [lease.info.get("n", lease.info.get("ready")) for lease in leaders if lease]
            assert output == [False, True, 2]
            assert {lease.token for lease in leaders if lease} == {token}
            assert two[1].leader("r").info["n"] == 2  # type: ignore[union-attr]
            assert a.info == {"n": 2}
    changes.close()


def test_a_later_term_says_it_too(two: Two) -> None:
    lead = two[0].leadership("r", ttl=2, info={"n": 1})
    assert lead.info == {"n": 1}
    with pytest.raises(coord.NotLeader):
        lead.update({"n": 2})
    with lead:
        assert lead.wait(5)
        lead.update({"n": 2})
        lead.update({"n": 2})  # what the row says already
    with pytest.raises(coord.NotLeader):
        lead.update({"n": 3})
    assert lead.info == {"n": 2}
    with lead:
        assert lead.wait(5)
        assert two[1].leader("r").info["n"] == 2  # type: ignore[union-attr]


def test_invalid_infos_are_refused_before_they_are_sent(two: Two) -> None:
    with two[0].leadership("r", ttl=2, info={"n": 1}) as lead:
        assert lead.wait(5)
        for invalid in ({"n": {1, 2}}, {"n": "x" * 20_000}, 7):
            with pytest.raises(coord.BadArgument, match="info"):
                lead.update(invalid)  # type: ignore[arg-type]
        assert lead.info == {"n": 1}


class Counting(MemoryStore):
    """Counts the renewals that carry an info, and answers them when it may."""

    def __init__(self, now: Callable[[], float] = total_seconds) -> None:
        super().__init__(now)
        self.infos: list[dict[str, Any]] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.silent = False

    async def renew(self, renewals: Any, timeout: float) -> Any:
        carrying = [renewal for renewal in renewals if renewal.info is not None]
        self.infos += [dict(item.info) for item in carrying]
        if carrying:
            await self.answers.wait()
            if self.silent:
                return [Failure(unknown=True, detail="no answer") for _ in renewals]
        return await super().renew(renewals, timeout)


def test_several_calls_within_one_renewal_become_one() -> None:
    async def main() -> None:
        store = Counting()
        async with coord.AsyncCoordinator(store=store) as c:
            lead = c.leadership("r", ttl=30)
            await lead.acquire()
            store.answers.clear()
            calls = [asyncio.ensure_future(lead.update({"n": 0}))]
            await soon(lambda: store.infos)
            calls += [asyncio.ensure_future(lead.update({"n": n})) for n in range(1, 6)]
            await asyncio.sleep(0)
            assert not any(call.done() for call in calls)
            store.answers.set()
            await asyncio.gather(*calls)
            assert [info["n"] for info in store.infos] == [0, 5]
            assert (await c.leader("r")).info["n"] == 5  # type: ignore[union-attr]

    asyncio.run(main())


def test_without_an_answer_the_outcome_is_unknown_and_it_is_sent_again() -> None:
    async def main(machine: Machine) -> None:
        store = Counting(lambda: machine.now().total)
        async with coord.AsyncCoordinator(store=store, now=machine.now) as c:
            lead = c.leadership("r", ttl=30, info={"n": 0})
            await lead.acquire()
            store.silent = True
            with pytest.raises(coord.OutcomeUnknown, match="new info of 'r'"):
                await lead.update({"n": 1})
            store.silent = False
            await asyncio.sleep(30)
            assert len(store.infos) > 1
            assert lead.info == {"n": 1}
            await lead.update({"n": 1})
            assert (await c.leader("r")).info["n"] == 1  # type: ignore[union-attr]

    run(main)


def test_a_term_that_ends_meanwhile_is_lost() -> None:
    async def main() -> None:
        store = Counting()
        async with coord.AsyncCoordinator(store=store) as c:
            lead = c.leadership("r", ttl=30)
            await lead.acquire()
            store.answers.clear()
            call = asyncio.ensure_future(lead.update({"n": 1}))
            await soon(lambda: store.infos)
            stopping = asyncio.ensure_future(lead.stop())
            with pytest.raises(coord.LeadershipLost, match="released"):
                await call
            store.answers.set()
            await stopping

    asyncio.run(main())
