"""Processes that call `unique_service`, among claimants that run a `Leadership`, on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

from coord import CoordError, Term
from coord.core.announcements import HandoverRequest
from coord.core.timing import Timing
from coord.errors import CoordinatorClosed
from coord.stores.protocol import Announcements
from coord.testing.history.checkers import BadHistory, fenced_resources
from coord.testing.history.linearizability import Undecided
from tests.verification.simulation.claimants import Broken, Claimant, Scene
from tests.verification.simulation.wire import ROLE, Wire

MAX_OPERATIONS = 150
"""The longest history for which an order of the operations is searched."""


class AnnouncingWire(Wire):
    """A wire to a store with announcements, so that leaders can be asked to step down."""

    def announcements(self) -> Announcements:
        return self.server.memory.announcements()


class Belief:
    """What a caller believes by its last record that said `mine`, on its own clock.

    While a call is under way, the caller does no work.
    """

    def __init__(self, record: dict[str, Any], until: float) -> None:
        self.token, self.holder, self.until = record["token"], record["holder"], until


class Caller(Claimant):
    """One process that calls `unique_service` for one or two candidates, each in a loop."""

    scene: MixedScene

    closing = False
    """Whether it has closed its coordinator: it cannot go on with it."""

    def __init__(self, scene: Scene, name: str, rate: float) -> None:
        self.beliefs: dict[str, Belief | None] = {}
        self.period = scene.timing.ttl / 3
        self.patience: float | None = None
        self.count = self.releasing = 0
        super().__init__(scene, name, rate)

    async def _stand(self) -> None:
        for name in ["x", "y"][: 1 + self.scene.random.randrange(2)]:
            asyncio.get_running_loop().create_task(self._loop(name))

    def candidate(self, name: str) -> dict[str, Any]:
        """One of the two has an id and a field that changes, the other has neither."""
        self.count += 1
        ttl = self.scene.timing.ttl
        return (
            {"id": name, "ttl": ttl, "n": self.count} if name == "x" else {"ttl": ttl, "at": name}
        )

    async def _loop(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        while self.standing and loop is self.machine.loop:
            await self.call(name)
            await asyncio.sleep(self.period)

    async def call(self, name: str) -> None:
        """Make one pass of the caller's loop. What it raises beyond the errors of coord breaks a
        promise."""
        loop = asyncio.get_running_loop()
        try:
            await self._call(name)
        except Exception as err:
            # The tasks of a dead process end together with the scene.
            if loop is self.machine.loop and not self.machine.dead:
                self.scene.defects.append(f"{self.name}: a call raised {err!r}")

    async def _call(self, name: str) -> None:
        """Do what the how-to page describes."""
        timing, before = Timing.of(self.scene.timing.ttl), self.beliefs.get(name)
        self.beliefs[name] = None
        began = self.machine.now().total
        try:
            call = self.coordinator.unique_service(ROLE, self.candidate(name))
            record = await asyncio.wait_for(call, self.patience)
        except CoordError as err:
            if isinstance(err, CoordinatorClosed) and self.standing:
                raise
            self.beliefs[name] = before  # an exception leaves the term as it was
            return
        except asyncio.TimeoutError:
            return  # a call that was cancelled may have ended the term
        if record is not None and record["mine"] and not self.releasing:
            self.beliefs[name] = Belief(record, began + timing.ttl - timing.margin)

    def _works_under(self) -> int | None:
        belief = self.trusts()
        return None if belief is None else belief.token

    def call_once_more(self, name: str) -> None:
        """Call for a candidate although another call for it may be under way, as a second thread
        of the program would."""
        if self.coordinator is not None and self.standing:
            self.machine.spawn(lambda: self.call(name))

    def look_up(self) -> None:
        """Call without a candidate."""

        async def look_up() -> None:
            with contextlib.suppress(CoordError):
                record = await self.coordinator.unique_service(ROLE)
                if record is not None and record["mine"]:
                    self.scene.defects.append(f"{self.name}: a lookup says that the caller leads")

        if self.coordinator is not None:
            self.machine.spawn(look_up)

    def close(self) -> None:
        """End in good order: close the coordinator, while calls may be under way."""

        async def close() -> None:
            self.releasing += 1
            self.beliefs.clear()
            await self.coordinator.close()

        if self.coordinator is not None:
            self.standing, self.closing = False, True
            self.machine.spawn(close)

    def release(self) -> None:
        """Give the role back, between two passes."""

        async def release() -> None:
            self.releasing += 1
            self.beliefs.clear()
            with contextlib.suppress(CoordError):  # then the lease runs out
                await self.coordinator.release(ROLE)
            self.releasing -= 1

        self.machine.spawn(release)

    def candidates(self) -> list[Any]:
        """The candidates that coord knows of in this process."""
        if self.machine.dead or self.coordinator is None:
            return []
        return list(self.coordinator.unique_services._roles.get(ROLE, {}).values())

    def believes(self) -> Term | None:
        """The term that coord holds for one of the candidates."""
        held = [claimant.term for claimant in self.candidates() if claimant.leads]
        if len(held) > 1 and not self.scene.server.edits:
            raise Broken(f"{self.name}: two candidates of one coordinator lead: {held}")
        return max(held, key=lambda term: term.token, default=None)

    def trusts(self) -> Belief | None:
        """What the callers believe, by their own clock."""
        if self.machine.dead or self.coordinator is None:
            return None
        now = self.machine.now().total
        held = [belief for belief in self.beliefs.values() if belief and now < belief.until]
        if len(held) > 1 and not self.scene.server.edits:
            raise Broken(f"{self.name}: two callers in one process believe that they lead")
        return max(held, key=lambda belief: belief.token, default=None)

    def fork(self) -> None:
        """Go on as a forked child, which calls for the same candidates."""
        parents = {claimants.candidate for claimants in self.candidates()}
        super().fork()
        if self.coordinator is None:
            return
        claimants = self.coordinator.unique_services._roles.get(ROLE, {})  # what a call would use
        if any(candidate.candidate in parents for candidate in claimants.values()):
            raise Broken("a forked child has a candidate of its parent")

    def go_on_as_a_child(self) -> None:
        """The parent forks and dies, and its child calls for the same candidates with the same
        coordinator. No task of the parent's runs in the child."""
        self.fork()
        if self.coordinator is None:
            return
        rate, self.scene.names = self.machine.rate, self.scene.names + 1
        self.name = f"c{self.scene.names}"
        self.machine = self.wire.machine = self.scene.world.machine(self.name, rate)
        self.coordinator.session.now = self.machine.now
        self.coordinator.store.process = self.name
        self.beliefs, self.releasing = {}, 0
        self.machine.spawn(self._stand)


class MixedScene(Scene):
    """Claimants and callers of one role."""

    wire = AnnouncingWire

    def __init__(self, claimants: int, seed: int, skew: float | None, ttl: float = 30.0) -> None:
        self._kinds = random.Random(seed + 2)
        self._holders: dict[int, str] = {}
        self.defects: list[str] = []
        self.requests = 0
        super().__init__(claimants, seed, skew, ttl)
        if not self.callers():
            self.claimants[0].machine.kill()
            self.replace(0, Caller)

    def _new(self, kind: type[Claimant] | None = None) -> Claimant:
        self.names += 1
        kind = kind or (Caller if self._kinds.random() < 0.7 else Claimant)
        claimant = kind(self, f"c{self.names}", self._rate())
        claimant.standing = True
        return claimant

    def join(self) -> Claimant:
        claimant = self._new()
        self.claimants.append(claimant)
        return claimant

    def replace(self, index: int, kind: type[Claimant] | None = None) -> None:
        self.claimants[index] = self._new(kind)

    def callers(self) -> list[Caller]:
        return [claimant for claimant in self.claimants if isinstance(claimant, Caller)]

    def ask(self, to: bool, cooldown: float | None) -> None:
        """An operator asks the leader to step down, or to hand the role to a candidate."""
        row = self.server.row
        if row.holder is None:
            return
        ids = [claimant.candidate for caller in self.callers() for claimant in caller.candidates()]
        ids += [lead.candidate for claimant in self.claimants if (lead := claimant.lead)]
        ids += [row.holder for row in self.server.past[-5:]]  # some of them have died
        ids = [name for name in ids if name]
        successor = self.random.choice(ids) if to and ids else None
        self.requests += 1
        key = f"request {self.requests}"
        request = HandoverRequest(ROLE, row.token, successor, "ops", cooldown, key)
        posting = self.server.memory.announcements().post([request.announcement(row.ttl)], 5)
        try:
            posting.send(None)
        except StopIteration:
            return
        raise AssertionError("the memory store waited")

    def check(self) -> None:
        super().check()
        if self.defects:
            raise Broken(self.defects[0])
        if self.server.edits:
            return
        terms = {
            claimant.name: term for claimant in self.claimants if (term := claimant.believes())
        }
        for caller in self.callers():
            belief = caller.trusts()
            if belief is None:
                continue
            holder = self._holders.setdefault(belief.token, belief.holder)
            if holder != belief.holder:
                raise Broken(f"token {belief.token} was given to two candidates")
            for name, term in terms.items():
                if term.token != belief.token:
                    raise Broken(
                        f"at {self.world.time:.6f} {caller.name} works under {belief.token}, "
                        f"and {name} leads under {term.token}"
                    )
            others = [item for item in self.callers() if item is not caller and item.trusts()]
            if others:
                raise Broken(f"{caller.name} and {others[0].name} both work")

    def calm(self) -> None:
        for caller in self.callers():
            caller.period, caller.patience = self.timing.ttl / 3, None
        super().calm()

    def judge(self) -> None:
        """Long histories would take seconds each: for them, what `check` sees is all."""
        operations = self.history.operations()
        if violations := list(fenced_resources(operations)):
            raise BadHistory(violations)
        if len(operations) <= MAX_OPERATIONS:
            with contextlib.suppress(Undecided):
                super().judge()

    def bound(self) -> float:
        """A caller looks only when it calls, and one that stepped down rests for a ttl."""
        return super().bound() + 3 * self.timing.ttl / (1 - self.drift)
