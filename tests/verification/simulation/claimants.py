"""Concurrent claimants, each the production code in a process of its own, on virtual time; and what
must hold."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

from coord import AsyncCoordinator, Fence, LossReason, StaleToken, Term
from coord.core.timing import Timing
from coord.runtime.retry import rng
from coord.testing.clocks import Machine, World
from coord.testing.history import History, judge
from coord.testing.history.checkers import BadHistory, fenced_resources, lease_register
from coord.testing.history.linearizability import Undecided
from coord.testing.history.recording import RecordingStore
from tests.verification.simulation.wire import ROLE, Server, Weather, Wire


class Broken(AssertionError):
    """A promise was broken, at that time."""


class Claimant:
    """One process that is a candidate. Killed and started again, it is another claimant on
    another machine."""

    def __init__(self, scene: Scene, name: str, rate: float) -> None:
        self.scene, self.name = scene, name
        self.machine: Machine = scene.world.machine(name, rate)
        self.told: list[tuple[str, Term, LossReason | None]] = []
        self.fail_elected = False
        self.drain = 0.0
        self.standing = False
        self.coordinator: Any = None
        self.lead: Any = None
        self.generation = 0
        self.wire = scene.wire(scene.server, self.machine)
        self.machine.spawn(self._begin)

    async def _begin(self) -> None:
        store = RecordingStore(self.wire, self.scene.history, self.name)
        self.coordinator = AsyncCoordinator(store=store, now=self.machine.now)
        await self._stand()

    async def _stand(self) -> None:
        timing = self.scene.timing
        self.lead = self.coordinator.leadership(
            ROLE,
            ttl=timing.ttl,
            renew_every=timing.renew_every,
            attempt_timeout=timing.attempt_timeout,
            margin=timing.margin,
            on_elected=self._elected,
            on_lost=self._lost,
        )
        await self.lead.start()

    async def _elected(self, term: Term) -> None:
        self.told.append(("elected", term, None))
        if self.fail_elected:
            raise RuntimeError("told to fail")

    async def _lost(self, term: Term, reason: LossReason) -> None:
        self.told.append(("lost", term, reason))
        end = self.scene.world.time + self.drain
        while self.drain and self.scene.world.time < end:  # noqa: ASYNC110  # `calm` cuts it short from outside
            await asyncio.sleep(0.5)

    @property
    def alive(self) -> bool:
        return not self.machine.dead

    def believes(self) -> Term | None:
        """What its clock and its memory say at this very moment, whether or not it runs."""
        term: Term | None = None if self.machine.dead or self.lead is None else self.lead.held
        return term

    def act(self, pause: float) -> None:
        """Check, be stopped for `pause` seconds, then write at the fenced resource."""

        def check() -> None:
            token = self._works_under()
            if token is not None:
                self.machine.pause(pause)
                self.machine.do(lambda: self._write(token))

        self.machine.do(check)

    def _works_under(self) -> int | None:
        term = None if self.lead is None else self.lead.held
        return None if term is None else term.token

    def _write(self, token: int) -> None:
        def arrive() -> None:
            key = self.scene.history.invoke(self.name, "write", "file", token=token)
            try:
                self.scene.fence(lambda: None, term=token)
                self.scene.history.ok(key, accepted=True)
            except StaleToken:
                self.scene.history.ok(key, accepted=False)

        self.scene.world.after(self.scene.server.weather.delay, arrive)

    def fork(self) -> None:
        """Go on as a forked child: no task of the parent's is here, and the hooks have run."""
        term = self.believes()
        self.machine.kill()
        coordinator, lead = self.coordinator, self.lead
        if coordinator is None:
            return
        coordinator.session.after_fork()
        coordinator.unique_services.after_fork()
        if lead is not None and (
            lead.is_leader or (term is not None and (term.held or not term.lost.is_set()))
        ):
            raise Broken("a forked child believes that it leads")
        if term is not None and term.reason is not LossReason.FORKED:
            raise Broken(f"a forked child's term is over for {term.reason}")


class Scene:
    """The world, the server, and the claimants. `check` looks at everything that must hold at every
    moment."""

    wire: type[Wire] = Wire
    server_type: type[Server] = Server

    def __init__(
        self, claimants: int, seed: int, skew: float | None, ttl: float = 30.0, drift: float = 0.04
    ) -> None:
        rng.seed(seed)
        self.random = random.Random(seed + 1)
        self.timing = Timing.of(ttl)
        self.drift = drift
        self.world = World()
        self.history = History(now=lambda: self.world.time)
        self.server = self.server_type(self.world, self.history, seed, skew)
        self.server.rate = self._rate()
        self.fence = Fence("file")
        self.claimants: list[Claimant] = []
        self.names = 0
        self._believing: dict[str, tuple[Term, tuple[str, int]]] = {}
        self._over: set[Term] = set()
        self.terms = 0
        self.newest = 0
        self.waited = 0.0
        self.world.watchers.append(self.check)
        for _ in range(claimants):
            self.join()

    def _rate(self) -> float:
        return 1.0 + self.random.uniform(-self.drift, self.drift)

    def join(self) -> Claimant:
        self.names += 1
        claimant = Claimant(self, f"c{self.names}", self._rate())
        claimant.standing = True
        self.claimants.append(claimant)
        return claimant

    def replace(self, index: int) -> None:
        """Another process in the place of one that is gone."""
        self.names += 1
        claimant = Claimant(self, f"c{self.names}", self._rate())
        claimant.standing = True
        self.claimants[index] = claimant

    def check(self) -> None:
        now: dict[str, Term] = {}
        for claimant in self.claimants:
            term = claimant.believes()
            if term is not None:
                now[claimant.name] = term
        for name, (term, key) in tuple(self._believing.items()):
            if now.get(name) is not term:
                self.history.ok(key)
                self._over.add(term)
                del self._believing[name]
        for name, term in now.items():
            if name not in self._believing:
                self._begins(name, term)
        promised = [term for term in now.values() if self._promised(term)]
        if len(promised) > 1:
            raise Broken(f"at {self.world.time:.6f} all of these lead: {promised}")

    def _promised(self, term: Term) -> bool:
        """Whether exclusion is promised for it: no hand has edited the row since it was won."""
        return self.server.epochs.get((term.holder, term.token)) == self.server.edits

    def _begins(self, name: str, term: Term) -> None:
        if term in self._over:
            raise Broken(f"{term} was over, and is held again")
        if self.server.edits == 0 and term.token <= self.newest:
            raise Broken(f"token {term.token} after {self.newest}")
        self.terms += 1
        self.newest = max(self.newest, term.token)
        self._believing[name] = (term, self.history.invoke(name, "believe", ROLE, token=term.token))

    def check_callbacks(self) -> None:
        for claimant in self.claimants:
            for (what, term, _), (then, after, _) in zip(
                claimant.told[::2], claimant.told[1::2], strict=False
            ):
                if (what, then) != ("elected", "lost") or term is not after:
                    raise Broken(
                        f"{claimant.name} was told {[(w, t.token) for w, t, _ in claimant.told]}"
                    )
            if len(claimant.told) % 2 and claimant.told[-1][0] != "elected":
                raise Broken(f"{claimant.name} was told of a loss without a term")

    def judge(self) -> None:
        """The whole history, by the public judges. After an edit by hand, only what is still
        promised."""
        if self.server.edits:
            operations = self.history.operations()
            violations = list(fenced_resources(operations))
            with contextlib.suppress(
                Undecided
            ):  # after an edit anything that was left open may come back
                violations += lease_register(operations)
        else:
            violations = judge(self.history)
        if violations:
            raise BadHistory(violations)

    def calm(self) -> None:
        """No fault any more: the net is well, everybody runs and stands, and what was delayed has
        arrived."""
        self.server.weather = Weather()
        for index, first in enumerate(self.claimants):
            first.machine.thaw()
            first.fail_elected = False
            first.drain = 0.0
            first.wire.cut = False
            if not first.alive or not first.standing:
                self.replace(index)
        self.world.run(300, until=lambda: self.server.under_way == 0)
        self.world.run(0.6)  # the work has ended (`Claimant._lost`)

    def somebody_leads(self) -> None:
        """Within the bound from now on: raises `Broken` otherwise."""
        began = self.world.time
        if not self.world.run(self.bound(), until=self.leads):
            raise Broken(f"nobody has led for {self.world.time - began:.3f} s without a fault")
        self.waited = self.world.time - began

    def leads(self) -> bool:
        return any(claimant.believes() is not None for claimant in self.claimants)

    def bound(self) -> float:
        """Within how many seconds somebody leads, by the slowest clock.

        One ttl and two attempts where the store's clock is trusted. Where it is not (or less than a
        ttl after the lease has run out), one more ttl: renewals are not told by feeds, so the last
        one may be seen only at the end of a wait that began before it."""
        ttls = 1 if self.server.max_clock_skew == 0 else 2
        return (ttls * self.timing.ttl + 2 * self.timing.attempt_timeout) / (1 - self.drift)

    def close(self) -> None:
        self.world.watchers.clear()
        for claimant in self.claimants:
            claimant.machine.thaw()
        self.world.close()
