"""Operators that evict, pause, resume and retire a role while candidates claim it, on virtual time,
and what the store must refuse."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from coord import AsyncCoordinator, CoordError, StoreUnavailable
from coord.core.lease import Lease
from coord.core.operations import Answer, Failure, Override, Result, Retire
from coord.testing.clocks import World
from coord.testing.history import History
from coord.testing.history.checkers import BadHistory, fenced_resources
from tests.verification.simulation.callers import AnnouncingWire, Caller, MixedScene
from tests.verification.simulation.claimants import Broken, Claimant
from tests.verification.simulation.wire import ROLE, Server

T = TypeVar("T")
PREFIXES = ("", "ro", ROLE)
Term = tuple[str, int]
"""The holder and the token of a term."""


class WithheldServer(Server):
    """Checks each change of the row against rules 11 and 12. Nobody edits rows by hand here."""

    def __init__(
        self, world: World, history: History, seed: int, max_clock_skew: float | None
    ) -> None:
        super().__init__(world, history, seed, max_clock_skew)
        self.ended: set[Term] = set()
        """The terms that an operator has ended."""
        self.highest = 0
        self.evictions = self.pauses = self.retirements = 0

    def perform(self, work: Coroutine[Any, Any, T]) -> T:
        before = self.row
        outcome = super().perform(work)
        after = self.row
        if after.revision != before.revision:
            self._check(before, after)
        return outcome

    def _check(self, before: Lease, after: Lease) -> None:
        if ROLE not in self.memory._rows:  # its row was deleted
            self.retirements += 1
            if not before.vacant:
                raise Broken(f"a row was deleted that is not vacant: {before}")
            return
        if after.token < self.highest:
            raise Broken(f"the token of the row falls from {self.highest} to {after.token}")
        term, last = _term(after), _term(before)
        if term in self.ended:
            raise Broken(f"the term {term} goes on, which an operator has ended")
        if term is not None and term != last and term[1] <= self.highest:
            raise Broken(f"a new term has token {term[1]} after {self.highest}")
        self.highest = after.token
        if term is not None and before.paused:
            raise Broken(f"a paused role was given to {term}")
        if after.withheld and last is not None:
            self.ended.add(last)
        self.evictions += after.revoked and not before.withheld
        self.pauses += after.paused and not before.paused


def _term(row: Lease) -> Term | None:
    """Return the term that a row is of; None if no candidate holds it."""
    if row.holder is None or row.withheld or row.beat == 0:
        return None
    return row.holder, row.token


class OperatedWire(AnnouncingWire):
    """A wire to a store in which operators revoke leases, pause roles and retire rows."""

    evicted: set[Term] | None = None
    """The terms that the present command has ended; None for a command that is no eviction."""

    async def override(self, override: Override, timeout: float) -> Result:
        evicted = self.evicted

        async def apply() -> Result:
            before = self.server.row
            result = await self.server.memory.override(override, 0)
            if isinstance(result, Answer) and result.applied:
                if before.revision != override.expected:
                    raise Broken(f"an override of {override.expected} has replaced {before}")
                if evicted is not None and (term := _term(before)) is not None:
                    evicted.add(term)
                    if len(evicted) > 1:
                        raise Broken(f"one eviction has ended several terms: {evicted}")
            return result

        return await self._request(apply, timeout)

    async def retire(self, requests: Sequence[Retire], timeout: float) -> Sequence[bool]:
        done = await self._request(lambda: self.server.memory.retire(requests, 0), timeout)
        if isinstance(done, Failure):
            raise StoreUnavailable(done.detail)
        return done


class Operated(Protocol):
    """Where operators work."""

    world: World
    server: Server


class Operator:
    """One process of an operator, which runs one command after the other."""

    def __init__(self, scene: Operated, name: str) -> None:
        self.machine = scene.world.machine(name)
        self.wire = OperatedWire(scene.server, self.machine)
        self.coordinator = AsyncCoordinator(store=self.wire, now=self.machine.now)
        self.done = 0

    def run(self, command: Callable[[AsyncCoordinator], Coroutine[Any, Any, object]]) -> None:
        async def attempt() -> None:
            try:
                await command(self.coordinator)
            except CoordError:
                return  # the store cannot be reached, or nobody leads
            self.done += 1

        self.machine.spawn(attempt)

    def evict(self) -> None:
        async def command(c: AsyncCoordinator) -> None:
            self.wire.evicted = set()
            await c.evict(ROLE, by="ops")

        self.run(command)

    def pause(self, timeout: float | None) -> None:
        async def command(c: AsyncCoordinator) -> None:
            self.wire.evicted = None
            await c.pause(ROLE, by="ops", timeout=timeout)

        self.run(command)

    def resume(self) -> None:
        async def command(c: AsyncCoordinator) -> None:
            self.wire.evicted = None
            await c.resume(ROLE, by="ops")

        self.run(command)

    def retire(self, prefix: str) -> None:
        self.run(lambda c: c.retire(prefix, unused=0.0))


class OperatedScene(MixedScene):
    """Claimants, callers and operators of one role."""

    wire = OperatedWire
    server_type = WithheldServer
    server: WithheldServer

    def __init__(self, claimants: int, seed: int, skew: float | None, ttl: float = 30.0) -> None:
        self._operators: list[Operator] = []
        super().__init__(claimants, seed, skew, ttl)

    def operator(self) -> Operator:
        """Return an operator that was not killed: each of its commands has a process of its own,
        as on the command line."""
        self._operators.append(Operator(self, f"operator {len(self._operators)}"))
        return self._operators[-1]

    def kill_operators(self) -> None:
        """End all commands. What they have sent still arrives."""
        for operator in self._operators:
            operator.machine.kill()

    def everybody_leaves(self) -> None:
        """All candidates stop, so that the role is vacant as soon as their work has ended."""
        for claimant in self.claimants:
            if not claimant.alive:
                continue
            claimant.standing = False
            if isinstance(claimant, Caller):
                if claimant.coordinator is not None:
                    claimant.release()
            elif claimant.lead is not None:
                claimant.machine.spawn(claimant.lead.stop)

    def everybody_returns(self) -> None:
        """Who has left starts again: some in the same process, others as new candidates."""
        for index, claimant in enumerate(self.claimants):
            if claimant.alive and not claimant.standing:
                closing = isinstance(claimant, Caller) and claimant.closing
                usable = claimant.coordinator is not None and not closing
                if usable and self.random.random() < 0.5:
                    claimant.standing = True
                    claimant.machine.spawn(_start_again(claimant))
                else:
                    claimant.machine.kill()
                    self.replace(index)

    def calm(self) -> None:
        self.kill_operators()
        super().calm()
        operator = self.operator()
        operator.resume()
        assert self.world.run(2 * self.timing.ttl, until=lambda: operator.done == 1)

    def judge(self) -> None:
        """The server has checked each change of the row."""
        if violations := list(fenced_resources(self.history.operations())):
            raise BadHistory(violations)

    def bound(self) -> float:
        """A candidate notices within a tenth more than its ttl that a role was resumed, and the
        lease of an evicted leader runs for one more ttl."""
        return super().bound() + 2.2 * self.timing.ttl / (1 - self.drift)


def _start_again(claimant: Claimant) -> Callable[[], Coroutine[Any, Any, object]]:
    if isinstance(claimant, Caller):
        return claimant._stand
    return lambda: claimant.lead.start()  # type: ignore[no-any-return]
