"""A group that shares shards: what its user sees."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

import coord
from coord import AsyncCoordinator, Coordinator, LossReason, SharesDiffer, Term
from coord.core import sharing
from coord.core.lease import Lease
from coord.core.operations import Claim, Result
from coord.recipes.agreement import change
from coord.stores.memory import MemoryStore
from coord.testing.clocks import Machine, run
from tests.support.waits import eventually, soon

Two = tuple[Coordinator, Coordinator]


def test_two_members_share_and_one_takes_what_the_other_leaves(two: Two) -> None:
    events: list[tuple[str, int, int]] = []
    first = two[0].share(
        "g",
        5,
        ttl=3,
        info={"name": "first"},
        on_gained=lambda shard, term: events.append(("gained", shard, term.token)),
        on_lost=lambda shard, term, reason: events.append((str(reason), shard, term.token)),
    )
    second = two[1].share("g", 5, ttl=3)
    assert (first.group, list(first.shards), first.mine, first.members) == (
        "g",
        [0, 1, 2, 3, 4],
        {},
        [],
    )
    with first:
        assert first.wait_settled(20)
        assert sorted(first.mine) == [0, 1, 2, 3, 4]
        with second:
            assert eventually(lambda: len(second.mine) == 2 and second.settled)
            assert len(first.mine) == 3
            assert not set(first.mine) & set(second.mine)
            assert eventually(lambda: len(first.members) == len(second.members) == 2)
            assert "first" in {member.info.get("name") for member in second.members}
            assert sorted(events)[:2] == sorted(
                ("stepped_down", shard, 1) for shard in second.mine
            ) or eventually(lambda: len([e for e in events if e[0] == "stepped_down"]) == 2)
            leads = {lease.role for lease in two[0].leaders()}
            assert leads == {f"g/00{shard}" for shard in range(5)}
            assert all(term.token == 2 for term in second.mine.values())
        assert eventually(lambda: len(first.mine) == 5 and first.settled)
    assert first.mine == {}
    assert not first.settled
    gained, lost = ([e for e in events if (e[0] == "gained") is which] for which in (True, False))
    assert sorted(e[1:] for e in gained) == sorted(e[1:] for e in lost)
    assert two[1].leaders() == []


def test_members_must_share_the_same_shards(two: Two) -> None:
    with two[0].share("g", 4):
        with pytest.raises(SharesDiffer, match=r"'g'.*4 shards.*5 shards"):
            two[1].share("g", 5).start()
        with pytest.raises(SharesDiffer):
            two[1].share("g", ["a", "b", "c", "d"]).start()
        with two[1].share("other", 5):
            pass
    with pytest.raises(SharesDiffer):
        two[1].share("g", 5).start()


def test_shards_may_have_names(two: Two) -> None:
    names = ["eu/west", "100%", "ü"]
    with two[0].share("g", names, ttl=3) as shares:
        assert shares.wait_settled(20)
        assert set(shares.mine) == set(names)
        roles = {lease.role for lease in two[1].leaders()}
        assert roles == {"g/eu%2Fwest", "g/100%25", "g/%C3%BC"}
    with pytest.raises(SharesDiffer, match="names"):
        two[0].share("g", [*names[:2], "x"]).start()


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (("", 4), {}),
        (("g", 0), {}),
        (("g", 5_000), {}),
        (("g", True), {}),
        (("g", "abc"), {}),
        (("g", []), {}),
        (("g", ["a", "a"]), {}),
        (("g", ["a", 1]), {}),
        (("g", 4), {"ttl": 0}),
        (("g", 4), {"grace": -1}),
        (("g", 4), {"on_gained": lambda shard: None}),
        (("g", 4), {"on_lost": 7}),
        (("g", 4), {"info": {"a": object()}}),
    ],
)
def test_invalid_arguments_are_refused(arguments: Any, settings: Any) -> None:
    with Coordinator("memory://") as c, pytest.raises(coord.BadArgument):
        c.share(*arguments, **settings)


def test_work_runs_in_a_thread_and_ends_before_the_shard_goes_on(two: Two) -> None:
    running: set[tuple[int, int]] = set()
    release = threading.Event()
    first, second = two[0].share("g", 2, ttl=3), two[1].share("g", 2, ttl=3)

    @first.work
    def work(shard: int, term: Term) -> None:
        assert coord.current_term() is term
        running.add((shard, term.token))
        term.lost.wait(30)
        release.wait(30)  # it cleans up
        running.discard((shard, term.token))

    with first:
        assert eventually(lambda: len(running) == 2)
        with second:
            assert eventually(lambda: len(first.mine) == 1)
            assert second.mine == {}
            assert len(running) == 2
            release.set()
            assert eventually(lambda: len(second.mine) == 1)
            assert len(running) == 1
    assert not running
    with pytest.raises(coord.BadArgument, match="work"):

        @first.work
        async def other(shard: int, term: Term) -> None: ...


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError])
def test_work_that_raises_gives_the_shard_up_for_a_ttl(error: type[BaseException]) -> None:
    async def main(machine: Machine) -> None:
        store = MemoryStore(now=lambda: machine.now().total)
        begun: list[int] = []
        reasons: list[LossReason] = []
        async with AsyncCoordinator(store=store, now=machine.now) as c:
            shares = c.share("g", 1, ttl=1, on_lost=lambda s, term, why: reasons.append(why))

            @shares.work
            async def work(shard: int, term: Term) -> None:
                begun.append(term.token)
                if term.token == 1:
                    raise error("cannot work")
                await asyncio.sleep(3600)

            async with shares:
                began = asyncio.get_running_loop().time()
                await soon(lambda: begun == [1, 2])
                assert asyncio.get_running_loop().time() - began > 0.9
                assert reasons == [LossReason.CALLBACK_FAILED]
                await soon(lambda: shares.settled)
            assert reasons[1:] == [LossReason.RELEASED]

    run(main)


def test_a_member_that_was_asked_to_step_down_from_a_shard_does_not_take_it_again_at_once() -> None:
    """Another member takes the shard, and gives another one for it."""

    async def main(machine: Machine) -> None:
        store = MemoryStore()
        store._now = lambda: machine.now().total
        async with (
            AsyncCoordinator(store=store, now=machine.now) as c,
            AsyncCoordinator(store=store, now=machine.now) as other,
            c.share("g", 4, ttl=10) as first,
        ):
            assert await first.wait_settled(20)
            await other.request_step_down("g/000", cooldown=15, by="ann")
            await asyncio.sleep(1.0)
            assert sorted(first.mine) == [1, 2, 3]
            await asyncio.sleep(12.0)  # nobody else can take it
            assert sorted(first.mine) == [1, 2, 3]
            await asyncio.sleep(3.0)
            assert sorted(first.mine) == [0, 1, 2, 3]
            async with other.share("g", 4, ttl=10) as second:
                await asyncio.sleep(5.0)
                assert second.settled
                shard = min(second.mine)
                assert shard < min(first.mine)
                await c.request_step_down(f"g/00{shard}", cooldown=60)
                await asyncio.sleep(5.0)
                assert shard in first.mine
                assert (len(first.mine), len(second.mine)) == (2, 2)
                assert first.settled
                held = sorted(second.mine)
                await asyncio.sleep(90.0)  # nothing moves when the cooldown is over
                assert sorted(second.mine) == held

    run(main)


def test_a_shard_whose_claim_was_refused_is_claimed_again_soon() -> None:
    """Somebody else takes it in the moment before the claim, and does not stay."""

    class Overtaking(MemoryStore):
        overtaken = False

        async def claim(self, op: Claim, timeout: float) -> Result:
            if op.role == "g/000" and not self.overtaken:
                self.overtaken = True
                await super().claim(replace(op, holder="somebody", ttl=0.5), timeout)
            return await super().claim(op, timeout)

    async def main(machine: Machine) -> None:
        store = Overtaking()
        store._now = lambda: machine.now().total
        async with (
            AsyncCoordinator(store=store, now=machine.now) as c,
            c.share("g", 2, ttl=10) as shares,
        ):
            assert await shares.wait_settled(30)
            assert store.overtaken
            assert sorted(shares.mine) == [0, 1]

    run(main)


@pytest.mark.parametrize("shards", [2, 3])
def test_a_member_that_was_frozen_checks_what_the_group_shares(
    shards: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Meanwhile the group may have been retired, and begun again with other shards."""

    async def main(machine: Machine) -> None:
        store = MemoryStore()
        store._now = lambda: machine.now().total
        async with AsyncCoordinator(store=store, now=machine.now) as c:
            shares = c.share("g", 2, ttl=10)
            await shares.start()
            assert await shares.wait_settled(30)
            await change(c.session, "g/", {"shards": shards})
            await asyncio.sleep(15)
            assert sorted(shares.mine) == [0, 1]  # it reads that only when it may have changed
            machine.pause(2 * 86_400)
            await asyncio.sleep(1)
            await asyncio.sleep(30)
            if shards == 2:
                assert sorted(shares.mine) == [0, 1]
            else:
                assert (shares.mine, shares.members) == ({}, [])
                assert await c.leaders() == []
                assert await c.announcements.read(["g/"], 5) == []
                with pytest.raises(SharesDiffer, match="its members share 3 shards"):
                    await shares.start()
            await shares.stop()

    run(main, 3 * 86_400)
    assert ("group.left" in caplog.text) is (shards == 3)


def test_a_member_that_cannot_check_what_the_group_shares_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It claims no shard meanwhile, and nobody would know why."""

    reads: list[float] = []

    class Store(MemoryStore):
        readable = True

        async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
            if not self.readable:
                if roles is not None and "g/" in roles:
                    reads.append(asyncio.get_running_loop().time())
                raise coord.AccessDenied("no right to read")
            return await super().read(roles, timeout)

    async def main(machine: Machine) -> None:
        store = Store()
        store._now = lambda: machine.now().total
        async with AsyncCoordinator(store=store, now=machine.now) as c:
            shares = c.share("g", 2, ttl=10)
            await shares.start()
            assert await shares.wait_settled(30)
            for count in (1, 2):
                store.readable = False
                machine.pause(100)
                await asyncio.sleep(160)  # 60 seconds after the pause
                assert shares.mine == {}
                assert caplog.text.count("group.not_confirmed") == count
                assert "no right to read" in caplog.text
                store.readable = True
                await asyncio.sleep(30)
                assert sorted(shares.mine) == [0, 1]

    run(main, 86_400)
    # With jitter, so that the members of a group do not read the row at the same moments.
    pauses = [after - before for before, after in pairwise(reads) if after - before < 10]
    assert len({round(pause, 3) for pause in pauses}) > 20
    assert 0.6 < max(pauses) < 2.1


def test_nobody_hands_a_shard_to_a_member_that_has_left() -> None:
    """It counts during its grace, so free shards wait for it, but it can take none."""
    owners = ["a", "a", "a", "b", "b", "b"]
    members = {"a", "b", "c"}
    assert sharing.plan(owners, members, "a").gives == ("c",)
    assert sharing.plan(owners, members, "a", departed={"c"}).gives == ()
    # A free shard waits for it.
    assert sharing.plan([*owners[:-1], None], members, "b", departed={"c"}).claims == ()


def test_a_member_that_has_left_takes_no_shard_of_one_that_rests() -> None:
    """It counts during its grace, and holds no shard, so it would be the first to take one."""

    async def main(machine: Machine) -> None:
        store = MemoryStore()
        store._now = lambda: machine.now().total
        async with AsyncCoordinator(store=store, now=machine.now) as c:
            members = [c.share("g", 6, ttl=10, grace=600) for _ in range(3)]
            for member in members:
                await member.start()
            await soon(lambda: all(member.settled for member in members))
            await members.pop().stop()
            await asyncio.sleep(2.0)
            shard = min(members[0].mine)
            await c.request_step_down(f"g/00{shard}", cooldown=100)
            await soon(lambda: shard in members[1].mine)

    run(main)


def test_work_that_exits_its_thread_gives_the_shard_up() -> None:
    reasons: list[LossReason] = []
    with Coordinator(store=MemoryStore()) as c:
        shares = c.share("g", 1, on_lost=lambda s, term, why: reasons.append(why))

        @shares.work
        def work(shard: int, term: Term) -> None:
            raise SystemExit(1)

        with shares:
            eventually(lambda: reasons == [LossReason.CALLBACK_FAILED])


def test_closing_the_coordinator_leaves_the_group() -> None:
    async def main() -> None:
        store = MemoryStore()
        async with AsyncCoordinator(store=store) as other:
            async with AsyncCoordinator(store=store) as c:
                shares = c.share("g", 3, ttl=30)
                await shares.start()
                await shares.start()
                assert await shares.wait_settled(20)
                assert not await other.share("g", 3).wait_settled(0.01)
            assert shares.mine == {}
            assert await other.leaders() == []
            with pytest.raises(coord.CoordinatorClosed):
                await shares.start()

    asyncio.run(main())


def test_a_start_while_leaving_joins_again() -> None:
    async def main() -> None:
        refused: list[coord.CoordError] = []
        async with AsyncCoordinator(store=MemoryStore()) as c:

            async def on_left(shard: int, term: Term, reason: LossReason) -> None:
                try:
                    await shares.start()
                except coord.CoordError as err:
                    refused.append(err)

            shares = c.share("g", 1, on_lost=on_left)
            await shares.start()
            assert await shares.wait_settled(20)
            leaving = asyncio.ensure_future(shares.stop())
            await asyncio.sleep(0)
            await shares.start()
            assert leaving.done()
            assert await shares.wait_settled(20)
            assert shares.mine[0].token == 2
            assert "cannot join the group 'g': this member is leaving it" in str(refused[0])

    asyncio.run(main())


def test_a_store_without_announcements_is_refused() -> None:
    class Plain(MemoryStore):
        announcements = None  # type: ignore[assignment]

    with Coordinator(store=Plain()) as c, pytest.raises(coord.BadArgument):
        c.share("g", 3)
