"""Members of a group on virtual time: the production code, with members that join, leave, are
killed, frozen, slow to end their work, and cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from coord import LossReason, StoreUnavailable, Term
from coord.recipes.membership import MEMBER
from coord.stores.memory.store import MemoryStore
from tests.recipes.worlds import NETS, PHASES, SEEDS, Link, Net, Peer, SeededWorld, perform
from tests.support.levels import by_level, deeper
from tests.verification.simulation.drive import quiet

SHARDS, TTL = 7, 10.0
MOST = 5


class Member(Peer):
    """A process with one member."""

    def __init__(self, group: Group, rate: float) -> None:
        super().__init__(group.world, group.store, group.skew, rate)
        self.drain = 0.0
        self.fails = False
        self.begun: dict[int, int] = {}
        self.shares = self.coordinator.share(
            "g", SHARDS, ttl=TTL, on_gained=self.gained, on_lost=self.lost, grace=group.grace
        )
        self._group = group

    async def start(self) -> None:
        while True:
            try:
                return await self.shares.start()
            except StoreUnavailable:
                await asyncio.sleep(1.0)

    def gained(self, shard: int, term: Term) -> None:
        if self.fails:
            raise RuntimeError("cannot begin")
        # An exception that is raised here would only be logged: `judge` raises it.
        key = (shard, term.token)
        if self._group.tokens.setdefault(key, self) is not self:
            self._group.twice.append(key)

    async def lost(self, shard: int, term: Term, reason: LossReason) -> None:
        await asyncio.sleep(self.drain)

    @property
    def held(self) -> list[int]:
        return list(self.shares.mine) if self.alive else []


class Group(RuleBasedStateMachine):
    @initialize(
        seed=SEEDS,
        skew=st.sampled_from([0.0, None, 30.0]),
        grace=st.sampled_from([0.0, 3.0]),
        size=st.integers(1, 3),
    )
    def begin(self, seed: int, skew: float | None, grace: float, size: int) -> None:
        self.world, self.grace, self.skew = SeededWorld(seed), grace, skew
        self.offset = 0.0
        self.store = MemoryStore(now=lambda: self.world.time + self.offset, wall=self.world.wall)
        self.tokens: dict[tuple[int, int], Member] = {}
        self.twice: list[tuple[int, int]] = []
        self.members: list[Member] = []
        self.links: list[Link] = []  # of all members, also of those that were killed
        self.world.watchers.append(self.judge)
        for _ in range(size):
            self.join(1.0)

    def judge(self) -> None:
        """No shard has two at any moment, and no token comes twice."""
        assert not self.twice, self.twice
        held = [shard for member in self.members for shard in member.held]
        assert len(held) == len(set(held)), sorted(held)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        with quiet():
            return self.world.run(seconds, until)

    @precondition(lambda self: len(self.members) < MOST)
    @rule(rate=st.sampled_from([1.0, 1.02, 0.99]))
    def join(self, rate: float) -> None:
        member = Member(self, rate)
        self.members.append(member)
        self.links.append(member.link)
        member.machine.spawn(member.start)

    @rule(seconds=st.sampled_from([0.05, 0.5, 3.0, 12.0]))
    def wait(self, seconds: float) -> None:
        self.run(seconds)

    @precondition(lambda self: self.members)
    @rule(data=st.data(), seconds=st.sampled_from([0.0, 2.0, 15.0]))
    def leave(self, data: Any, seconds: float) -> None:
        member = data.draw(st.sampled_from(self.members))
        member.drain = seconds
        member.machine.spawn(member.shares.stop)
        self.run(25.0)
        self.members.remove(member)
        member.machine.kill()

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def kill(self, data: Any) -> None:
        member = data.draw(st.sampled_from(self.members))
        member.machine.kill()
        self.members.remove(member)

    @precondition(lambda self: self.members)
    @rule(data=st.data(), seconds=st.sampled_from([2.0, 8.0, 30.0]))
    def freeze(self, data: Any, seconds: float) -> None:
        data.draw(st.sampled_from(self.members)).machine.pause(seconds)
        self.run(seconds / 2)

    @precondition(lambda self: self.members)
    @rule(
        data=st.data(), how=st.sampled_from(["cut", "deaf"]), seconds=st.sampled_from([3.0, 20.0])
    )
    def cut(self, data: Any, how: str, seconds: float) -> None:
        member = data.draw(st.sampled_from(self.members))
        setattr(member.link, how, True)
        self.run(seconds)
        setattr(member.link, how, False)

    @precondition(lambda self: self.members)
    @rule(data=st.data(), net=NETS, seconds=st.sampled_from([3.0, 20.0]))
    def net_is_bad(self, data: Any, net: Net, seconds: float) -> None:
        data.draw(st.sampled_from(self.members)).link.net = net
        self.run(seconds)

    @precondition(lambda self: self.members)
    @rule(data=st.data(), seconds=st.sampled_from([2.0, 30.0]))
    def machine_sleeps(self, data: Any, seconds: float) -> None:
        data.draw(st.sampled_from(self.members)).machine.suspend(seconds)
        self.run(seconds / 2)

    @rule(part=st.sampled_from([-0.4, 0.0, 0.4]))
    def the_stores_clock_steps(self, part: float) -> None:
        self.offset = part * (self.skew or 0.0)

    @precondition(lambda self: self.members)
    @rule(data=st.data(), seconds=st.sampled_from([0.0, 1.0, 15.0]))
    def work_ends_slowly(self, data: Any, seconds: float) -> None:
        data.draw(st.sampled_from(self.members)).drain = seconds

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def work_fails(self, data: Any) -> None:
        member = data.draw(st.sampled_from(self.members))
        member.fails = True
        self.run(5.0)
        member.fails = False

    def fair(self) -> bool:
        counts = [len(member.held) for member in self.members]
        return sum(counts) == SHARDS and max(counts) - min(counts) <= 1

    def settled(self) -> bool:
        """Whether the group has come to rest: it is fair, each member says that it is settled, and
        exactly the members that live are announced and known to each.

        What the members hold may be fair by chance before that: one member holds everything, and is
        about to hand shards to a member that was killed, whose announcement has not expired. A
        request of a member that was killed may arrive late, and announces it once more.
        """
        if not self.fair() or not all(member.shares.settled for member in self.members):
            return False
        if any(link.last_arrival > self.world.time for link in self.links):
            return False
        # A lease that was not renewed since the faults ended runs out within a ttl, by a clock that
        # may be slow.
        if self.world.time < self.calm_at + 1.05 * TTL:
            return False
        announced = perform(self.store.announcements().read(["g/"], 1.0))
        lists = [[item.body["id"] for item in announced if item.kind == MEMBER]]
        lists += [[other.id for other in member.shares.members] for member in self.members]
        # Each member knows itself, so equal lists of this length have no other member.
        return all(len(ids) == len(self.members) and set(ids) == set(lists[0]) for ids in lists)

    def holdings(self) -> list[dict[int, int]]:
        return [
            {shard: term.token for shard, term in member.shares.mine.items()}
            for member in self.members
        ]

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            if self.members:
                for member in self.members:
                    member.calm()
                    member.drain = 0.0
                self.calm_at = self.world.time
                # Faults have ended. Slow work may end late, each lease of a member that was
                # killed once, and each member gives one shard after the other.
                outcome = self.run(8 * TTL, self.settled)
                counts = [
                    (len(member.held), member.shares.members, member.shares)
                    for member in self.members
                ]
                assert outcome, counts
                before = self.holdings()
                moved = self.run(TTL, lambda: self.holdings() != before)
                assert not moved, f"a shard moves without need: {before}, {self.holdings()}"
                assert self.settled(), "it does not stay fair"
        finally:
            self.world.close()


@deeper
class TestGroup(Group.TestCase):  # type: ignore[misc, name-defined]
    settings = settings(
        max_examples=by_level(6, 100, 300),
        stateful_step_count=by_level(12, 25, 25),
        deadline=None,
        phases=PHASES,
        suppress_health_check=list(HealthCheck),
    )
