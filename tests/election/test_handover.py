"""Moving a role on purpose: stepping down, handing over, orders from outside, and candidates that
are preferred."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from coord import AsyncCoordinator, BadArgument, Coordinator, LossReason, NotLeader
from coord.api.sync_leadership import Leadership
from coord.election.term import Term
from coord.stores.memory.store import MemoryStore
from coord.testing.clocks import Machine
from coord.testing.clocks import run as virtual_time
from tests.support.store_time import RealTime

Two = tuple[Coordinator, Coordinator]


def waiting(store_time: RealTime, coordinator: Coordinator, lead: Leadership) -> str:
    """Its id, once it is listed."""
    assert store_time.until(
        lambda: lead.candidate in {candidate.id for candidate in coordinator.candidates(lead.role)}
    )
    assert lead.candidate is not None
    return lead.candidate


@pytest.fixture
def three(store_time: RealTime, two: Two) -> Iterator[tuple[Leadership, Leadership, Leadership]]:
    """A leader and two that wait, the last of them in the leader's own process."""
    leads = [
        two[0].leadership("r", ttl=2, info={"name": "a"}),
        two[1].leadership("r", ttl=2, info={"name": "b"}),
        two[0].leadership("r", ttl=2, info={"name": "c"}),
    ]
    leads[0].acquire(timeout=5)
    for lead in leads[1:]:
        lead.start()
        waiting(store_time, two[1], lead)
    yield leads[0], leads[1], leads[2]
    for lead in leads:
        lead.stop()


def test_a_role_is_handed_to_whom_the_leader_names(
    store_time: RealTime, two: Two, three: tuple[Leadership, ...]
) -> None:
    a, b, c = three
    lost: list[tuple[Term, LossReason]] = []
    a.on_lost(lambda term, why: lost.append((term, why)))
    for named, winner, loser in ((c.candidate, c, b), ("b", b, a), (str(a.candidate)[:8], a, c)):
        holder = next(lead for lead in three if lead.is_leader)
        assert store_time.until(
            lambda item=winner: item.candidate in {w.id for w in two[0].candidates("r")}
        )
        token = holder.term.token
        holder.transfer(str(named))
        assert winner.wait(5)
        assert not loser.is_leader
        assert winner.term.token == token + 1
        assert not holder.is_leader
    assert [why for _, why in lost] == [LossReason.STEPPED_DOWN]
    assert [term.holder for term in two[0].history("r")] == [
        a.candidate,
        b.candidate,
        c.candidate,
        a.candidate,
    ]


def test_only_a_candidate_that_waits_can_be_named_and_only_by_the_leader(
    three: tuple[Leadership, ...],
) -> None:
    a, b, _ = three
    for nobody in ("", "x", "nobody", str(a.candidate), 3):
        with pytest.raises(BadArgument, match="invalid to "):
            a.transfer(nobody)  # type: ignore[arg-type]
    with pytest.raises(NotLeader):
        b.transfer("c")
    assert a.is_leader


def test_an_order_from_outside_moves_the_role_and_says_who_asked(
    store_time: RealTime, two: Two, three: tuple[Leadership, ...]
) -> None:
    a, b, c = three
    request = two[1].request_transfer("r", to="c", by="ann@desk")
    assert (request.holder, request.token) == (a.candidate, 1)
    assert c.wait(5)
    assert [(item.reason, item.by) for item in two[1].history("r")] == [
        ("", ""),
        ("stepped_down", "ann@desk"),
    ]
    request = two[1].request_step_down("r", by="bob", cooldown=60)
    assert request.holder == c.candidate
    assert store_time.until(lambda: a.is_leader or b.is_leader)
    assert [(item.reason, item.by) for item in two[1].history("r")][:2] == [
        ("", ""),
        ("stepped_down", "bob"),
    ]
    assert not c.is_leader
    assert store_time.until(
        lambda: all(
            item.kind == "candidate"
            for item in two[1].portal.call(lambda: two[1].inner.announcements.read(None, 5))
        )
    )


def test_an_order_that_cannot_be_given(two: Two) -> None:
    with pytest.raises(NotLeader, match="nobody leads"):
        two[0].request_step_down("r")
    for to in ("", "x" * 201, None):
        with pytest.raises(BadArgument, match="invalid to "):
            two[0].request_transfer("r", to)  # type: ignore[arg-type]
        with pytest.raises(BadArgument, match="invalid to "):
            two[0].leadership("r").transfer(to)  # type: ignore[arg-type]
    with two[1].leadership("r", ttl=2) as lead:
        assert lead.wait(5)
        with pytest.raises(BadArgument, match="waits for 'r'"):
            two[0].request_transfer("r", to="somebody")
        with pytest.raises(BadArgument, match="invalid by "):
            two[0].request_step_down("r", by="x" * 201)
        with pytest.raises(BadArgument, match="invalid cooldown "):
            two[0].request_step_down("r", cooldown=-1)
        assert lead.is_leader


def test_a_step_down_costs_one_term(store_time: RealTime, two: Two) -> None:
    with two[0].leadership("r", ttl=2) as lead:
        for token in range(1, 7):
            assert lead.wait(5)
            assert lead.term.token == token
            lost = lead.term.lost
            if token % 2:
                two[1].request_step_down("r", cooldown=0)
            else:
                lead.step_down(cooldown=0)
            assert lost.wait(5)
    assert [term.reason for term in two[1].history("r")[1:]] == ["stepped_down"] * 6


def test_an_order_for_an_earlier_term_is_not_carried_out(store_time: RealTime, two: Two) -> None:
    from coord.core.announcements import HandoverRequest

    order = HandoverRequest("r", 1, None, "late", 60.0)
    with two[0].leadership("r", ttl=2) as lead:
        assert lead.wait(5)
        lead.step_down(cooldown=0)
        assert lead.wait(5)
        assert lead.term.token == 2
        two[1].portal.call(lambda: two[1].inner.announcements.post([order.announcement(5)], 5))
        store_time.sleep(0.7)
        assert lead.is_leader
        assert lead.term.token == 2


def test_an_order_waits_for_a_leader_that_does_not_listen_for_a_while(
    store_time: RealTime, two: Two
) -> None:
    wishes = two[0].session._requests
    with two[0].leadership("r", ttl=0.6) as lead:
        assert lead.wait(5)
        assert store_time.until(lambda: wishes._task is not None)
        two[0].portal.post(wishes.stop)
        two[1].request_step_down("r", by="takeover_delay", cooldown=0)
        store_time.sleep(1.3)  # two ttls
        two[0].portal.post(wishes.start)
        # Where the machine was so slow that the term had ended by itself, the order was for a term
        # that is over.
        assert store_time.until(
            lambda: (
                (past := two[1].history("r"))[-1].until and past[-1].by in ("takeover_delay", "")
            )
        )
        first = two[1].history("r")[-1]
        assert first.by == "takeover_delay" or first.reason != "stepped_down"


def test_who_is_preferred_gets_the_role_and_not_before_the_term_has_lasted(
    store_time: RealTime, two: Two
) -> None:
    low = two[0].leadership(
        "r", ttl=1, min_tenure=1.5, on_elected=lambda _: began.append(store_time.now())
    )
    high = two[1].leadership("r", ttl=1, priority=5, min_tenure=0)
    began: list[float] = []
    with low:
        assert low.wait(5)
        with high:
            assert high.wait(10)
            assert store_time.now() - began[0] > 1.3
            assert two[0].history("r")[1].by == "priority 5"
            store_time.sleep(1.5)
            assert high.is_leader  # no flapping: the other one does not ask for it back
            assert [term.token for term in two[0].history("r")] == [2, 1]
        assert low.wait(5)


def test_leaders_give_way_once_to_a_preferred_candidate_that_does_not_come() -> None:
    """Otherwise each new leader would hand the role to a dead candidate, for a second each time,
    until the announcement of that candidate expires."""

    async def main(machine: Machine) -> None:
        store = MemoryStore(now=lambda: machine.now().total, wall=lambda: machine.now().total)
        own, other = AsyncCoordinator(store=store), AsyncCoordinator(store=store)
        own.session.now = other.session.now = machine.now
        low = [own.leadership("r", ttl=30, min_tenure=tenure) for tenure in (5, 0)]
        for lead in low:
            await lead.start()
        await asyncio.sleep(1)
        high = other.leadership("r", ttl=30, priority=5)
        await high.start()
        await asyncio.sleep(2)
        assert low[0].is_leader
        await high.stop()
        await asyncio.sleep(20)
        (leader,) = (lead for lead in low if lead.is_leader)
        assert leader.term.token == 2
        assert [term.by for term in await own.history("r")][1:] == ["priority 5"]
        await own.close()
        await other.close()

    virtual_time(main)


@pytest.mark.parametrize("bad", [-1, float("nan"), "1", True])
def test_a_minimum_that_is_none(two: Two, bad: object) -> None:
    with pytest.raises(BadArgument, match="invalid min_tenure "):
        two[0].leadership("r", min_tenure=bad)


def test_a_role_that_nobody_comes_for_goes_to_somebody_else(
    store_time: RealTime, two: Two, three: tuple[Leadership, ...]
) -> None:
    a, b, c = three
    target = str(c.candidate)
    two[0].portal.call(lambda: _silence(c))
    a.transfer(target)
    assert store_time.until(lambda: a.is_leader or b.is_leader)
    assert target not in {term.holder for term in two[1].history("r")}


async def _silence(lead: Leadership) -> None:
    """As if its process had died: it neither claims nor says farewell."""
    standing = lead.inner._elector
    assert standing is not None
    standing._unfollow()
    standing.task.cancel()
