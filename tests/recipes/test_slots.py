"""A role that several may hold at a time: what its user sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from itertools import pairwise
from typing import Any

import pytest

import coord
from coord import AsyncCoordinator, Coordinator, LossReason, SlotsDiffer
from coord.core.lease import Lease
from coord.core.operations import Answer, Claim, Failure
from coord.election.elector import GIVE_UP_AFTER
from coord.errors import AccessDenied, CoordError, StoreUnavailable
from coord.recipes.slot_elector import change_slots, read_slots
from coord.stores.memory import MemoryStore
from coord.testing.clocks import Machine, run
from tests.support.waits import eventually, soon

Two = tuple[Coordinator, Coordinator]


def test_so_many_hold_the_role_and_a_released_slot_goes_to_one_that_waits(two: Two) -> None:
    events: list[tuple[str, int | None]] = []
    candidates = [
        two[number % 2].slots(
            "r",
            2,
            ttl=3,
            on_elected=lambda term: events.append(("elected", term.slot)),
            on_lost=lambda term, why: events.append((str(why), term.slot)),
        )
        for number in range(3)
    ]
    first, second, third = candidates
    item, other = first.acquire(timeout=20), second.acquire(timeout=20)
    assert item is not None
    assert other is not None
    assert {item.slot, other.slot} == {0, 1}
    assert (item.role, item.token, first.slots) == (f"r#{item.slot}", 1, 2)
    assert third.acquire(blocking=False) is None
    with third:
        assert not third.wait(0.3)
        assert not third.is_leader
        assert eventually(lambda: [w.id for w in two[0].candidates("r#")] == [third.candidate])
        first.stop()
        assert third.wait(20)
        assert (third.term.slot, third.term.token) == (item.slot, 2)
        assert first.held is None
        assert second.term is other
        assert {lease.role for lease in two[0].leaders()} == {"r#0", "r#1"}
    second.stop()
    assert two[0].leaders() == []
    elected = sorted(str(slot) for what, slot in events if what == "elected")
    assert elected == sorted(str(slot) for what, slot in events if what == "released")
    assert len(elected) == 3


def test_candidates_must_agree_on_the_number_until_it_is_changed(two: Two) -> None:
    with two[0].slots("r", 2, ttl=3) as two_slots:
        assert two_slots.wait(20)
        with pytest.raises(SlotsDiffer, match=r"3 slots of 'r': the role has 2.*coord slots r 3"):
            two[1].slots("r", 3).start()
        with pytest.raises(SlotsDiffer):
            two[1].slots("r", 3).acquire(timeout=5)
    with pytest.raises(SlotsDiffer):
        two[1].slots("r", 3).start()


def test_the_number_can_be_changed_after_a_process_died_while_it_changed_it() -> None:
    """Its row is then held by nobody who renews it or releases it."""

    async def main(machine: Machine) -> None:
        store = MemoryStore(now=lambda: machine.now().total)
        async with AsyncCoordinator(store=store, now=machine.now) as c:
            claim = Claim("r#", "died", 1, 5.0, info={"slots": 1})
            assert isinstance(await store.claim(claim, 1.0), Answer)
            assert await change_slots(c.session, "r", 2) == 1
            assert await read_slots(c.session, "r") == 2

    run(main)


def test_a_changed_number_reaches_the_candidates_and_fewer_slots_are_held(two: Two) -> None:
    def change(slots: int) -> int | None:
        session = two[1].session
        return two[1].portal.call(lambda: change_slots(session, "r", slots))

    assert change(2) is None
    leads = [two[number % 2].slots("r", 2, ttl=3) for number in range(3)]
    lost: list[LossReason] = []
    for lead in leads:
        lead.on_lost(lambda term, why: lost.append(why))
        lead.start()
    held = lambda: sorted(lead.held.slot for lead in leads if lead.held)  # type: ignore[type-var, misc] # noqa: E731
    assert eventually(lambda: held() == [0, 1])
    assert change(3) == 2
    assert eventually(lambda: held() == [0, 1, 2])
    assert change(1) == 3
    assert eventually(lambda: held() == [0])
    assert eventually(lambda: lost == [LossReason.STEPPED_DOWN] * 2)
    for lead in leads:
        lead.stop()


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (("", 2), {}),
        (("r" * 118, 2), {}),
        (("r", 0), {}),
        (("r", 65), {}),
        (("r", True), {}),
        (("r", 2), {"ttl": 0}),
        (("r", 2), {"on_elected": lambda: None}),
    ],
)
def test_invalid_arguments_are_refused(arguments: Any, settings: Any) -> None:
    with Coordinator("memory://") as c:
        with pytest.raises(coord.BadArgument):
            c.slots(*arguments, **settings)
        with pytest.raises(coord.CoordError, match="cannot transfer a slot of 'r'"):
            c.slots("r", 2).transfer("x")


def test_stepping_down_and_coming_back(two: Two) -> None:
    first, second = two[0].slots("r", 1, ttl=3), two[1].slots("r", 1, ttl=3)
    with first:
        assert first.wait(20)
        with second:
            assert not second.wait(0.2)
            first.step_down(cooldown=0.5)
            assert not first.is_leader
            assert second.wait(20)
            assert not first.wait(0.2)
        assert first.wait(20)
        assert first.term.token == 3
        first.update({"ready": True})
        assert two[1].leader("r#0").info["ready"]  # type: ignore[union-attr]


def test_a_request_to_step_down_costs_one_term_and_the_holder_rests() -> None:
    with Coordinator("memory://") as c, c.slots("r", 2, ttl=3) as lead:
        for token in (1, 2, 3):
            assert lead.wait(20)
            term = lead.term
            assert term.token == token
            c.request_step_down(term.role, cooldown=0 if token < 3 else 60)
            assert term.lost.wait(20)
            assert term.reason is LossReason.STEPPED_DOWN
        assert not lead.wait(0.3)
        assert [past.reason for past in c.history(term.role)] == ["stepped_down"] * 3
        assert c.leaders() == []


def test_each_free_slot_is_taken_and_kept() -> None:
    async def main(machine: Machine) -> None:
        store = MemoryStore(now=lambda: machine.now().total)
        async with AsyncCoordinator(store=store, now=machine.now) as c:
            # Each looks at another slot first, but so many look at the same.
            candidates = [c.slots("r", 12, ttl=10) for _ in range(12)]
            for candidate in candidates:
                await candidate.start()
            await soon(lambda: all(candidate.is_leader for candidate in candidates))
            terms = [candidate.term for candidate in candidates]
            assert {term.slot for term in terms} == set(range(12))
            await asyncio.sleep(100)
            assert [candidate.held for candidate in candidates] == terms

    run(main)


def test_an_unanswered_claim_is_settled_before_another_slot_is_claimed() -> None:
    class LosesAnswers(MemoryStore):
        """Applies the first claim for a slot without an answer, and then receives no release for a
        while, so that the candidate gives that slot up."""

        def __init__(self, now: Callable[[], float]) -> None:
            super().__init__(now=now)
            self.silent = 2 * GIVE_UP_AFTER
            self.claimed: list[str] = []
            self.unsettled: list[str] = []

        async def claim(self, claim: Any, timeout: float) -> Any:
            if claim.role == "r#":
                return await super().claim(claim, timeout)
            rows = await self.read(None, timeout)
            self.unsettled += [row.role for row in rows if row.led and row.role != claim.role]
            self.claimed.append(claim.role)
            result = await super().claim(claim, timeout)
            first = len(self.claimed) == 1
            return Failure(unknown=True, detail="no answer") if first else result

        async def release(self, release: Any, timeout: float) -> Any:
            if release.role != "r#" and self.silent:
                self.silent -= 1
                return Failure(unknown=True, detail="not received")
            return await super().release(release, timeout)

    async def main(machine: Machine) -> None:
        store = LosesAnswers(now=lambda: machine.now().total)
        async with AsyncCoordinator(store=store, now=machine.now) as c:
            async with c.slots("r", 4, ttl=10) as lead:
                await soon(lambda: lead.is_leader)
                assert len([lease for lease in await c.leaders() if "#" in lease.role]) == 1
            assert len(await c.leaders()) == 0
        assert not store.silent
        assert len(store.claimed) > 1
        assert not store.unsettled

    run(main)


def test_a_callback_that_fails_rests_for_a_ttl() -> None:
    async def main(machine: Machine) -> None:
        store = MemoryStore(now=lambda: machine.now().total)
        async with AsyncCoordinator(store=store, now=machine.now) as c:
            begun: list[int] = []

            def begin(term: coord.Term) -> None:
                begun.append(term.token)
                if len(begun) == 1:
                    raise RuntimeError("cannot begin")

            async with c.slots("r", 1, ttl=1, on_elected=begin) as lead:
                began = asyncio.get_running_loop().time()
                await soon(lambda: begun == [1, 2])
                assert asyncio.get_running_loop().time() - began > 0.9
                assert lead.is_leader

    run(main)


def test_a_slot_that_is_gone_is_left_after_an_outage() -> None:
    class Faulty(MemoryStore):
        silent = False
        refused = 0

        async def read(self, roles: Any, timeout: float) -> list[Lease]:
            if self.silent and roles is not None and "r#" in roles:
                self.refused += 1
                raise StoreUnavailable("no answer")
            return await super().read(roles, timeout)

    async def main(machine: Machine) -> None:
        store, faulty = MemoryStore(now=lambda: machine.now().total), Faulty()
        faulty.__dict__.update(vars(store))  # another connection to the same rows
        async with (
            AsyncCoordinator(store=store, now=machine.now) as c,
            AsyncCoordinator(store=faulty, timeout=0.1, now=machine.now) as apart,
        ):
            candidates = [apart.slots("r", 2), apart.slots("r", 2)]
            for candidate in candidates:
                await candidate.start()
                assert await candidate.wait(20)
            faulty.silent = True
            await change_slots(c.session, "r", 1)
            await soon(lambda: faulty.refused > 0)
            await asyncio.sleep(0.3)
            assert all(candidate.is_leader for candidate in candidates)
            faulty.silent = False
            await soon(lambda: sum(candidate.is_leader for candidate in candidates) == 1)

    run(main)


def test_a_candidate_that_cannot_read_the_number_of_slots_waits_with_jitter() -> None:
    """So that the candidates for a role do not read it at the same moments."""
    reads: list[float] = []

    class Store(MemoryStore):
        error: CoordError | None = None

        async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
            if self.error is not None:
                if roles is not None and "r#" in roles:
                    reads.append(asyncio.get_running_loop().time())
                raise self.error
            return await super().read(roles, timeout)

    async def main(machine: Machine) -> None:
        store = Store()
        store._now = lambda: machine.now().total
        async with AsyncCoordinator(store=store, now=machine.now) as c:
            lead = c.slots("r", 2, ttl=10)
            store.error = StoreUnavailable("silent")
            await lead.start()
            store.error = AccessDenied("no right to read")
            await asyncio.sleep(5)
            reads.clear()
            await asyncio.sleep(60)
            store.error = None
            assert await lead.wait(30)

    run(main, 86_400)
    pauses = [after - before for before, after in pairwise(reads)]
    assert len({round(pause, 3) for pause in pauses}) > 20
    assert 1.05 < max(pauses) < 2.1
