"""Operators evict a leader, pause a role and resume it (rule 11)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest

import coord
from coord import (
    AcquireTimeout,
    AsyncCoordinator,
    BadArgument,
    Coordinator,
    LossReason,
    NotLeader,
    OutcomeUnknown,
)
from coord.api.leadership import AsyncLeadership
from coord.api.overview import load_overview
from coord.api.sync_leadership import Leadership
from coord.core.lease import Lease
from coord.core.operations import Claim, Failure, Override, Result
from coord.stores.memory import MemoryStore
from coord.stores.protocol import Overridable
from coord.testing import Fault, FaultyStore
from coord.testing.clocks import Machine, run
from tests.support.store_time import RealTime

TTL = 2.0


@pytest.fixture
def pair(two: tuple[Coordinator, Coordinator]) -> Iterator[tuple[Leadership, Leadership]]:
    """The leader of "r", and a candidate that waits for it, on two coordinators."""
    if not isinstance(two[0].store, Overridable):
        pytest.skip("operators cannot change the leases of this store")
    a = two[0].leadership("r", ttl=TTL, info={"name": "a"})
    b = two[1].leadership("r", ttl=TTL, info={"name": "b"})
    a.acquire(timeout=5)
    b.start()
    yield a, b
    a.stop()
    b.stop()


def operator(pair: tuple[Leadership, Leadership]) -> Coordinator:
    return pair[1].coordinator


def test_an_evicted_leader_loses_its_term_and_the_role_passes_when_its_lease_has_run_out(
    store_time: RealTime, pair: tuple[Leadership, Leadership]
) -> None:
    a, b = pair
    lost: list[LossReason] = []
    a.on_lost(lambda _, why: lost.append(why))
    first = a.term
    began = store_time.now()
    lease = operator(pair).evict("r", by="ann@desk")
    assert (lease.holder, lease.token) == (a.candidate, first.token)
    assert operator(pair).leader("r") is None
    with pytest.raises(NotLeader, match="was revoked already"):
        operator(pair).evict("r")
    assert store_time.until(lambda: (a.is_leader and a.term is not first) or b.is_leader)
    assert store_time.now() >= began + lease.remaining
    assert lost == [LossReason.EVICTED]
    newest, evicted = operator(pair).history("r")
    assert (evicted.token, evicted.reason, evicted.by) == (first.token, "evicted", "ann@desk")
    assert newest.token == first.token + 1


def test_a_paused_role_has_no_leader_until_it_is_resumed(
    store_time: RealTime, pair: tuple[Leadership, Leadership]
) -> None:
    a, b = pair
    c = operator(pair)
    lost: list[LossReason] = []
    a.on_lost(lambda _, why: lost.append(why))
    lease = c.pause("r", by="ann@desk")
    assert lease is not None
    assert lease.holder == a.candidate
    assert store_time.until(lambda: lost == [LossReason.PAUSED])
    assert c.leader("r") is None
    (term,) = c.history("r")
    assert (term.reason, term.by) == ("paused", "ann@desk")
    with (
        c.leadership("r", ttl=TTL) as late,
        pytest.raises(AcquireTimeout, match="paused by ann@desk; `coord resume r`"),
    ):
        late.acquire(timeout=1.2 * TTL)
    assert [a.is_leader, b.is_leader] == [False, False]
    assert all(role.paused for role in coord.health(c).roles)
    record = c.unique_service("r", {"id": "x", "ttl": TTL})
    assert record is not None
    assert (record["mine"], record["id"], record["paused"]) == (False, None, "ann@desk")
    assert c.unique_service("r") is None
    overview = c.portal.call(lambda: load_overview(c.inner, every=False))
    (row,) = overview.as_json()
    assert (row["paused"], row["holder"], row["info"]) == (True, None, {"by": "ann@desk"})
    c.pause("r", by="bob")  # it is paused already, and stays so
    assert c.resume("r") is True
    assert store_time.until(lambda: a.is_leader or b.is_leader)
    assert c.resume("r") is False
    assert c.history("r")[0].token == lease.token + 1
    assert c.unique_service("r", {"id": "x", "ttl": TTL})["mine"] is False  # type: ignore[index]
    assert not any(role.paused for role in coord.health(c).roles)


def test_a_leader_that_did_not_release_a_paused_role_keeps_its_lease(
    store_time: RealTime, pair: tuple[Leadership, Leadership]
) -> None:
    a, b = pair
    c, first = operator(pair), a.term
    began = store_time.now()
    lease = c.pause("r", timeout=0)
    assert lease is not None
    c.resume("r")
    assert store_time.until(lambda: (a.is_leader and a.term is not first) or b.is_leader)
    assert store_time.now() >= began + lease.remaining
    assert first.reason in (LossReason.PAUSED, LossReason.EVICTED)


def test_a_role_that_nobody_leads(
    store_time: RealTime, two: tuple[Coordinator, Coordinator]
) -> None:
    c = two[0]
    if not isinstance(c.store, Overridable):
        pytest.skip("operators cannot change the leases of this store")
    with pytest.raises(NotLeader, match="nobody leads"):
        c.evict("new")
    assert c.resume("new") is False
    assert c.pause("new", by="ann") is None
    with pytest.raises(NotLeader, match="is paused"):
        c.evict("new")
    with c.leadership("new", ttl=TTL) as lead:
        assert not lead.wait(1.0)
        assert two[1].resume("new")
        assert lead.wait(5)
        assert lead.term.token == 1


def test_arguments_of_operators() -> None:
    with Coordinator("memory://") as c:
        for call in (c.evict, c.pause, c.resume):
            with pytest.raises(BadArgument, match="invalid by"):
                call("r", by="x" * 201)  # type: ignore[operator]
            with pytest.raises(BadArgument, match="invalid role"):
                call("")  # type: ignore[operator]
            if call != c.resume:
                with pytest.raises(BadArgument, match="token -1: must be an int of at least 0"):
                    call("r", token=-1)  # type: ignore[operator]
        with pytest.raises(BadArgument, match="invalid timeout"):
            c.pause("r", timeout=-1)


@pytest.mark.parametrize(
    ("token", "detail"),
    [
        (0, "its present term has token 2, not 0"),
        (1, "the term with token 1 has ended, and another one has begun"),
        (3, "its present term has token 2, not 3"),
    ],
)
def test_a_token_that_is_not_that_of_the_present_term(token: int, detail: str) -> None:
    with Coordinator("memory://") as c, c.leadership("r", ttl=TTL) as lead:
        lead.acquire(timeout=5)
        lead.step_down(cooldown=0)
        assert lead.acquire(timeout=5).token == 2
        for call in (c.evict, c.pause, c.request_step_down):
            with pytest.raises(NotLeader) as error:
                call("r", token=token)  # type: ignore[operator]
            assert str(error.value) == f"not the leader of 'r': {detail}"
        assert lead.is_leader


class WithoutOverride(MemoryStore):
    override = None  # type: ignore[assignment]


def test_a_store_that_cannot_do_it() -> None:
    with Coordinator(store=WithoutOverride()) as c, c.leadership("r", ttl=TTL) as lead:
        lead.wait(5)
        for call in (c.evict, c.pause, c.resume):
            with pytest.raises(BadArgument, match="leases that operators can revoke"):
                call("r")  # type: ignore[operator]
        assert lead.is_leader


class ElectsMeanwhile(MemoryStore):
    """Lets a candidate be elected between the two looks of `pause`."""

    candidate: AsyncLeadership | None = None

    async def read(self, roles: Sequence[str] | None, timeout: float) -> list[Lease]:
        candidate, alone = self.candidate, roles is not None and list(roles) == ["r"]
        if candidate is not None and alone:
            self.candidate = None
            await candidate.acquire(timeout=5)
        return await super().read(roles, timeout)


def test_a_pause_with_a_token_ends_no_term_that_begins_meanwhile() -> None:
    async def main() -> None:
        store = ElectsMeanwhile()
        async with AsyncCoordinator(store=store) as a, AsyncCoordinator(store=store) as b:
            store.candidate = lead = a.leadership("r", ttl=TTL)
            with pytest.raises(NotLeader, match="its present term has token 1, not 0"):
                await b.pause("r", token=0)
            assert store.candidate is None
            assert lead.is_leader
            assert await b.resume("r") is False
            assert await b.pause("r", token=1) is not None

    asyncio.run(main())


class CountsOverrides(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.applied: list[Override] = []

    async def override(self, override: Override, timeout: float) -> Result:
        result = await super().override(override, timeout)
        if result.applied:  # type: ignore[union-attr]
            self.applied.append(override)
        return result


@pytest.mark.parametrize("fault", [Fault.UNKNOWN_DONE, Fault.UNKNOWN_NOT_DONE, Fault.NOT_DONE])
def test_an_override_whose_answer_is_lost_is_applied_once(fault: Fault) -> None:
    async def main() -> None:
        inner = CountsOverrides()
        store = FaultyStore(inner)
        async with AsyncCoordinator(store=store) as c, c.leadership("r", ttl=20) as lead:
            assert await lead.wait(5)
            store.fail("override", fault)
            assert (await c.evict("r")).holder == lead.candidate
            store.fail("override", fault)
            await c.pause("r")
            store.fail("override", fault)
            assert await c.resume("r") is True
        assert len(inner.applied) == 3

    asyncio.run(main())


def test_an_eviction_that_is_repeated_ends_no_later_term() -> None:
    """The first request is applied, its answer is lost, and another candidate leads before the
    second request."""

    async def main() -> None:
        inner = MemoryStore()

        class Slow(FaultyStore):
            async def override(self, override: Override, timeout: float) -> Result:
                await super().override(override, timeout)
                row = (await inner.read(["r"], 1))[0]
                await inner.claim(Claim("r", "b", 1, 30, row.revision, takeover=True), 1)
                return Failure(unknown=True)

        store = Slow(inner)
        async with AsyncCoordinator(store=store) as c:
            await inner.claim(Claim("r", "a", 1, 30), 1)
            assert (await c.evict("r")).holder == "a"
        (row,) = await inner.read(["r"], 1)
        assert (row.holder, row.token, store.calls.count("override")) == ("b", 2, 1)

    asyncio.run(main())


@pytest.mark.parametrize("ends", [True, False])
def test_a_pause_that_is_under_way_is_resumed_when_the_leader_has_ended_its_work(
    ends: bool,
) -> None:
    """`coord pause` was interrupted after it had asked the leader, which still ends its work."""

    async def main(machine: Machine) -> None:
        store = MemoryStore()
        store._now = lambda: machine.now().total
        done = asyncio.Event()

        async def work(*_: object) -> None:
            await done.wait()

        async with AsyncCoordinator(store=store, now=machine.now) as c:
            lead = c.leadership("a job", ttl=10, on_lost=work, drain_timeout=7200)
            await lead.acquire(timeout=5)
            pausing = asyncio.ensure_future(c.pause("a job", by="ann"))
            await asyncio.sleep(1)
            pausing.cancel()
            resuming = asyncio.ensure_future(c.resume("a job"))
            await asyncio.sleep(5)
            assert not resuming.done()
            if ends:
                done.set()
                assert await resuming is True
                assert await lead.wait(5)
                assert [term.reason for term in await c.history("a job")] == ["", "paused"]
                assert await c.resume("a job") is False
            else:
                with pytest.raises(coord.CoordError, match="cannot resume 'a job' yet: its leader"):
                    await resuming
                await asyncio.sleep(600)  # the work takes many ttls
                with pytest.raises(coord.CoordError, match="cannot resume 'a job' yet"):
                    await c.resume("a job")
                done.set()

    run(main)


def test_a_change_without_an_answer_says_that_it_may_have_been_applied() -> None:
    async def main(machine: Machine) -> None:
        store = FaultyStore(MemoryStore())
        async with AsyncCoordinator(store=store, now=machine.now) as c:
            assert await c.unique_service("a job", {"ttl": 30})
            store.fail("override", Fault.UNKNOWN_NOT_DONE, times=None)
            with pytest.raises(
                OutcomeUnknown, match=r"whether 'a job' was changed.*coord history 'a"
            ):
                await c.evict("a job")

    run(main)


def test_a_claimant_obeys_a_pause(
    store_time: RealTime, two: tuple[Coordinator, Coordinator]
) -> None:
    c = two[0]
    if not isinstance(c.store, Overridable):
        pytest.skip("operators cannot change the leases of this store")
    me = {"id": "x", "ttl": TTL}
    record = c.unique_service("u", me)
    assert record is not None
    assert record["mine"]
    two[1].pause("u", by="ann", timeout=0)
    record = c.unique_service("u", me)
    assert record is not None
    assert (record["mine"], record["paused"]) == (False, "ann")
    assert two[1].resume("u")
    assert store_time.until(lambda: (c.unique_service("u", me) or {}).get("mine"))
