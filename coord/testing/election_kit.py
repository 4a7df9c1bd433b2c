"""Elections under a test's control: an in-process coordinator, a rival who takes and leaves roles,
a manual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from coord.api.coordinator import Coordinator
from coord.api.default import default
from coord.core import validation
from coord.core.lease import LossReason
from coord.core.operations import Answer, Claim, Release
from coord.core.phases import HOLDING, Phase
from coord.election.callbacks import current_dispatcher
from coord.election.elector import Elector
from coord.errors import BadArgument
from coord.stores.memory.store import MemoryStore
from coord.testing.clocks import ManualClock
from coord.testing.faulty_store import FaultyStore

RIVAL = "somebody else"
DEADLINES = (LossReason.EXPIRED, LossReason.STORE_UNREACHABLE, LossReason.SUSPENDED)
HANDOVERS = (
    LossReason.STEPPED_DOWN,
    LossReason.CALLBACK_FAILED,
    LossReason.RELEASED,
    LossReason.NO_PROGRESS,
)
TRY_EVERY = 0.005
"""Real seconds between two tries of `win`."""
WAIT = 5.0
"""Real seconds that a helper waits for what it brought about before it raises AssertionError."""


class ElectionKit:
    """What the fixture `coord_election` gives.

    coordinator   a `coord.Coordinator` on memory; while `as_default()` lasts it is what
    `@leader_only` uses clock         a `ManualClock` that leases run by: nothing expires until the
    test says so store         the `FaultyStore` under it"""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.memory = MemoryStore(now=self.clock.total)
        self.store = FaultyStore(self.memory)
        self.coordinator = Coordinator(store=self.store)
        self.coordinator.session.now = self.clock.now
        self.clock.when_moved(self._look_at_the_clock)
        self._beat = 0

    @contextmanager
    def as_default(self) -> Iterator[ElectionKit]:
        """Be the default coordinator of this process for a while; closes at the end."""
        with default.replaced_by(self.coordinator):
            try:
                yield self
            finally:
                self.store.heal()
                self.coordinator.close()

    def occupy(self, role: str, info: Mapping[str, Any] | None = None) -> int:
        """Somebody else leads `role` from now on, until `vacate` or `win`. Returns their token.

        A candidate of this process that led it has lost it when this returns (`LossReason.TAKEN`).
        """
        return int(
            self._on_loop(
                self._occupy(
                    validation.role(role),
                    validation.info(info),
                    LossReason.TAKEN,
                    current_dispatcher.get(),
                )
            )
        )

    def vacate(self, role: str) -> None:
        """Somebody else leads no more; whoever stands may have it."""
        self._on_loop(self._vacate(validation.role(role)))

    def lose(self, role: str, reason: LossReason = LossReason.TAKEN) -> None:
        """Let this process lose `role`, for that reason. Somebody else leads it afterwards, until
        `win`.

        `on_lost` has been called when this returns, unless it is called from a callback of the same
        leadership. Raises `AssertionError` when this process does not lead the role. `FORKED`
        cannot be had: fork."""
        if reason not in (LossReason.TAKEN, *DEADLINES, *HANDOVERS):
            raise BadArgument("reason", reason, "must be a LossReason other than FORKED")
        if not self._on_loop(self._leading(validation.role(role))):
            raise AssertionError(
                f"no candidate of this process leads {role!r}: there is nothing to lose"
            )
        self._on_loop(self._occupy(role, {}, reason, current_dispatcher.get()))

    def win(self, role: str) -> None:
        """Let the candidate of this process lead `role`: somebody else gives way, and no rest is
        waited out.

        Where nobody stands yet, the next who does will be elected. Raises `AssertionError` when a
        candidate that stands does not get the role, for instance because the work of its last term
        has not ended."""
        self._on_loop(self._vacate(validation.role(role)))
        self._on_loop(self._win(role))

    def advance(self, seconds: float, step: float = 0.25) -> None:
        """Let time pass in small steps, in which leaders renew. `clock.advance` makes one jump of
        it instead."""
        validation.number(seconds, "seconds", low=0)
        validation.number(step, "step", low=0, above=True)
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            self._on_loop(_settle())

    # -- on the coordinator's loop
    # -----------------------------------------------------------------------------

    def _on_loop(self, work: Any) -> Any:
        async def bounded() -> Any:
            return await asyncio.wait_for(work, WAIT)

        try:
            return self.coordinator.portal.call(bounded)
        except (TimeoutError, asyncio.TimeoutError):
            raise AssertionError(f"it did not come about within {WAIT:g} s") from None

    def _electors(self, role: str) -> list[Elector]:
        return [
            member
            for member in self.coordinator.session.members
            if isinstance(member, Elector) and member.role == role and not member.task.done()
        ]

    async def _leading(self, role: str) -> bool:
        return any(one.election.phase is Phase.LEADING for one in self._electors(role))

    async def _occupy(
        self, role: str, info: Mapping[str, Any], reason: LossReason, caller: object
    ) -> int:
        self._beat += 1
        claim = Claim(role, RIVAL, self._beat, validation.MAX_TTL, takeover=True, info=info)
        answer = await self.memory.claim(claim, WAIT)
        assert isinstance(answer, Answer)  # memory does not fail
        for standing in self._electors(role):
            if standing.election.phase in HOLDING:
                await self._dethrone(standing, reason, caller)
        return answer.lease.token

    async def _dethrone(self, standing: Elector, reason: LossReason, caller: object) -> None:
        election, term, now = standing.election, standing.term, self.clock.now()
        if reason is LossReason.TAKEN:
            standing.try_now()  # the next renewal is answered with the rival's row
        elif reason in HANDOVERS:
            standing.resign(reason, election.timing.ttl)
        elif election.phase is Phase.LEADING:
            standing.lose(reason)
        if now.total < election.deadline:
            await standing.wait_until(
                lambda: election.phase not in HOLDING or term is None or term.lost.is_set()
            )
        await (
            _settle()
        )  # the loss is on its way to the dispatcher: what is put there now comes after it
        called = asyncio.Event()
        loop = asyncio.get_running_loop()
        dispatcher = standing.lifecycle.dispatcher

        async def after_on_lost() -> None:
            loop.call_soon_threadsafe(called.set)

        if caller is not dispatcher:  # a callback does not wait for the one that comes after it
            dispatcher.put(after_on_lost)
            await called.wait()

    async def _vacate(self, role: str) -> None:
        for row in await self.memory.read([role], WAIT):
            if row.holder == RIVAL:
                self._beat += 1
                await self.memory.release(Release(role, RIVAL, row.token, self._beat), WAIT)

    async def _win(self, role: str) -> None:
        electors = self._electors(role)
        while electors and not self._led(role):
            # Each time anew: a claim that was under way may fail only now, and its backoff would
            # last forever on a clock that stands still.
            for elector in electors:
                elector.try_now(skip_cooldown=True)
            await asyncio.sleep(TRY_EVERY)

    def _led(self, role: str) -> bool:
        return any(one.term is not None and one.term.held for one in self._electors(role))

    def _look_at_the_clock(self) -> None:
        if self.coordinator.portal.running:
            self._on_loop(self._wake_all())

    async def _wake_all(self) -> None:
        for standing in tuple(self.coordinator.session.members):
            standing.wake()
        await _settle()


async def _settle() -> None:
    """Let what can happen without waiting happen: a few turns of the loop are enough for a store in
    memory."""
    for _ in range(25):
        await asyncio.sleep(0)
