"""Leaders that change their info during their terms, and who follows them, on virtual time."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any, TypeVar

from coord import AsyncCoordinator, CoordError, Lease
from tests.verification.simulation.claimants import Broken, Claimant, Scene
from tests.verification.simulation.wire import ROLE, Server, Wire

T = TypeVar("T")


class InfoServer(Server):
    """Checks that the info of a term never goes back to an earlier one."""

    edits = 0

    def perform(self, work: Coroutine[Any, Any, T]) -> T:
        before = self.row
        outcome = super().perform(work)
        after = self.row
        if after.holder is not None and (after.holder, after.token) == (
            before.holder,
            before.token,
        ):
            earlier, now = before.info.get("n", 0), after.info.get("n", 0)
            if now < earlier and after.beat > 0:
                raise Broken(f"the info of {after} goes back from {earlier} to {now}")
        return outcome


class Follower:
    """Checks what one process is told of leaders and of their infos."""

    def __init__(self, scene: PublishingScene, name: str) -> None:
        self.scene, self.name = scene, name
        self.token = 0
        self.newest: dict[tuple[str | None, int], int] = defaultdict(int)
        self.changes = 0

    def sees(self, lease: Lease) -> None:
        number, by = lease.info.get("n"), lease.info.get("by")
        if number is None:
            return  # a feed may leave the info out
        if lease.token < self.token:
            raise Broken(f"{self.name} is told of token {lease.token} after {self.token}")
        self.token = lease.token
        if self.scene.holders.get(lease.holder) != by or number not in self.scene.said[by]:
            raise Broken(f"{self.name} is told what {lease.holder} has not said: {lease.info}")
        term = lease.holder, lease.token
        if number < self.newest[term]:
            raise Broken(f"{self.name} is told {number} after {self.newest[term]} of {term}")
        self.changes += number > self.newest[term] > 0
        self.newest[term] = number


class Publisher(Claimant):
    """One process that is a candidate for the role, changes its info while it leads, and follows the
    others."""

    scene: PublishingScene

    def __init__(self, scene: Scene, name: str, rate: float) -> None:
        self.watcher: Follower | None = None
        super().__init__(scene, name, rate)

    async def _stand(self) -> None:
        timing, scene = self.scene.timing, self.scene
        self.lead = self.coordinator.leadership(
            ROLE,
            ttl=timing.ttl,
            renew_every=timing.renew_every,
            attempt_timeout=timing.attempt_timeout,
            margin=timing.margin,
            info={"by": self.name, "n": scene.next_number(self.name)},
            on_elected=self._elected,
            on_lost=self._lost,
            on_info=self._hears,
        )
        self.heard = Follower(scene, f"on_info of {self.name}")
        await self.lead.start()
        scene.holders[self.lead.candidate] = self.name

    def _hears(self, lease: Lease) -> None:
        self.scene.guard(lambda: self.heard.sees(lease))

    def publish(self) -> None:
        """Say something new, if it leads when its process runs."""

        async def update() -> None:
            lead, term = self.lead, self.lead.held
            if term is None:
                return
            number = self.scene.next_number(self.name)
            with contextlib.suppress(CoordError):
                await lead.update({"by": self.name, "n": number})
                self.scene.guard(lambda: self._acknowledged(term.holder, term.token, number))

        if self.lead is not None:
            self.machine.spawn(update)

    def _acknowledged(self, holder: str, token: int, number: int) -> None:
        self.scene.acknowledged += 1
        row = self.scene.server.row
        if (row.holder, row.token) == (holder, token) and row.info["n"] < number:
            raise Broken(f"{number} was acknowledged, and the row says {row.info}")


class Watcher:
    """A process that is no candidate and watches who leads."""

    def __init__(self, scene: PublishingScene, name: str) -> None:
        self.machine = scene.world.machine(name, scene._rate())
        self.wire = Wire(scene.server, self.machine)
        self.follower = Follower(scene, name)
        self.present: Lease | None = None
        self.scene = scene
        self.machine.spawn(self._watch)

    async def _watch(self) -> None:
        coordinator = AsyncCoordinator(store=self.wire, now=self.machine.now)
        while True:
            try:
                async for lease in coordinator.watch_leader(ROLE):
                    self._is_told(lease)
            except CoordError:
                continue  # the store could not be reached

    def _is_told(self, lease: Lease | None) -> None:
        self.present = lease
        if lease is not None:
            self.scene.guard(lambda: self.follower.sees(lease))


class PublishingScene(Scene):
    """Publishers of one role, and a watcher."""

    server_type = InfoServer

    def __init__(
        self, claimants: int, seed: int, skew: float | None, ttl: float = 30.0, drift: float = 0.04
    ) -> None:
        self.said: dict[str, set[int]] = defaultdict(set)
        self.holders: dict[str | None, str] = {}
        self.numbers = self.acknowledged = 0
        self.broken: list[Broken] = []
        super().__init__(claimants, seed, skew, ttl, drift)
        self.watcher = Watcher(self, "watcher")

    def next_number(self, name: str) -> int:
        self.numbers += 1
        self.said[name].add(self.numbers)
        return self.numbers

    def guard(self, check: Any) -> None:
        """Run a check in the process of a candidate; `check` raises what it has found."""
        try:
            check()
        except Broken as err:
            self.broken.append(err)

    def check(self) -> None:
        super().check()
        if self.broken:
            raise self.broken[0]

    def _new(self) -> Publisher:
        self.names += 1
        publisher = Publisher(self, f"c{self.names}", self._rate())
        publisher.standing = True
        return publisher

    def join(self) -> Claimant:
        publisher = self._new()
        self.claimants.append(publisher)
        return publisher

    def replace(self, index: int) -> None:
        self.claimants[index] = self._new()

    def calm(self) -> None:
        self.watcher.machine.thaw()
        self.watcher.wire.cut = False
        super().calm()

    def everybody_knows(self) -> None:
        """What the leader says last is what the row says, and what the watcher was told last."""
        if not self.world.run(40 + 2 * self.timing.ttl, until=self._same):
            row, report = self.server.row, self.watcher.present
            raise Broken(f"{row} is in the store, and {report} was told")

    def _same(self) -> bool:
        leading = [claimant for claimant in self.claimants if claimant.believes()]
        if not leading or self.watcher.present is None:
            return False
        number = leading[0].lead.info["n"]
        return number == self.server.row.info["n"] == self.watcher.present.info["n"]  # type: ignore[no-any-return]
