"""Elections under the control of a test: a coordinator on memory, another candidate that takes and
leaves roles, and a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from coord.api.default import default
from coord.api.sync_coordinator import Coordinator
from coord.core import validation
from coord.core.lease import LossReason
from coord.core.operations import Answer, Claim, Release
from coord.core.phases import HOLDING, Phase
from coord.election.callbacks import current_dispatcher
from coord.election.elector import Elector
from coord.errors import BadArgument
from coord.runtime.timers import within
from coord.stores.memory.store import MemoryStore
from coord.testing.clocks import ManualClock
from coord.testing.faulty_store import FaultyStore

RIVAL = "somebody else"
DEADLINES = (LossReason.EXPIRED, LossReason.STORE_UNREACHABLE, LossReason.SUSPENDED)
HANDOVERS = (
    LossReason.STEPPED_DOWN,
    LossReason.CALLBACK_FAILED,
    LossReason.RELEASED,
    LossReason.PAUSED,
    LossReason.NO_PROGRESS,
)
TRY_EVERY = 0.005
"""Time between two tries of `win`, in real seconds."""
WAIT = 5.0
"""Time that a method waits for its effect before it raises AssertionError, in real seconds."""


class ElectionKit:
    """Wins and loses roles on demand. The fixture `coord_election` returns one.

    Attributes:
        coordinator: A `coord.Coordinator` on memory. While `as_default()` lasts, `@leader_only` and
            `coord.unique_service` use it.
        clock: The `ManualClock` of the leases. Nothing expires until the test moves it.
        store: The `FaultyStore` below the coordinator.
        memory: The store in memory below that one.
    """

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
        """Make the coordinator the default one of this process for the duration of the block, and
        close it at the end."""
        with default.replaced_by(self.coordinator):
            try:
                yield self
            finally:
                self.store.heal()
                self.coordinator.close()

    def occupy(self, role: str, info: Mapping[str, Any] | None = None) -> int:
        """Let another candidate lead `role` until `vacate` or `win`.

        If this process leads the role, it has lost it when the call returns (`LossReason.TAKEN`).

        Args:
            role: The role.
            info: What the other candidate says about itself; None means nothing.

        Returns:
            The fencing token of the other candidate.

        Raises:
            BadArgument: An argument is invalid.
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
        """Let the other candidate release `role`. Any candidate can claim it.

        Raises:
            BadArgument: The role is invalid.
        """
        self._on_loop(self._vacate(validation.role(role)))

    def lose(self, role: str, reason: LossReason = LossReason.TAKEN) -> None:
        """Let this process lose `role`. Another candidate leads it afterwards, until `win`.

        When the call returns, `on_lost` has been called, unless a callback of the same leadership
        makes the call.

        Args:
            role: The role.
            reason: The reason of the loss. `FORKED` is impossible here: fork instead.

        Raises:
            AssertionError: This process does not lead the role.
            BadArgument: An argument is invalid.
        """
        if reason not in (LossReason.TAKEN, LossReason.EVICTED, *DEADLINES, *HANDOVERS):
            raise BadArgument("reason", reason, "must be a LossReason other than FORKED")
        if not self._on_loop(self._leading(validation.role(role))):
            raise AssertionError(
                f"no candidate of this process leads {role!r}: there is nothing to lose"
            )
        self._on_loop(self._occupy(role, {}, reason, current_dispatcher.get()))

    def win(self, role: str) -> None:
        """Let the candidate of this process lead `role`. It does not wait for a cooldown.

        If this process has no candidate for the role, the next one is elected.

        Raises:
            AssertionError: The candidate does not get the role, for instance because the work of
                its last term has not ended.
            BadArgument: The role is invalid.
        """
        self._on_loop(self._vacate(validation.role(role)))
        self._on_loop(self._win(role))

    def advance(self, seconds: float, step: float = 0.25) -> None:
        """Let time pass in small steps, in which leaders renew. `clock.advance` makes one jump.

        Args:
            seconds: The time that passes, in seconds.
            step: The length of a step, in seconds.

        Raises:
            BadArgument: An argument is invalid.
        """
        validation.number(seconds, "seconds", low=0)
        validation.number(step, "step", low=0, above=True)
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            self._on_loop(_settle())

    def _on_loop(self, work: Any) -> Any:
        async def bounded() -> Any:
            return await within(work, WAIT)

        try:
            return self.coordinator.portal.call(bounded)
        except (TimeoutError, asyncio.TimeoutError):
            raise AssertionError(f"it did not happen within {WAIT:g} s") from None

    def _electors(self, role: str) -> list[Elector]:
        return [
            member
            for member in self.coordinator.session.members
            if isinstance(member, Elector) and member.role == role and not member.task.done()
        ]

    async def _leading(self, role: str) -> bool:
        return any(elector.election.phase is Phase.LEADING for elector in self._electors(role))

    async def _occupy(
        self, role: str, info: Mapping[str, Any], reason: LossReason, caller: object
    ) -> int:
        self._beat += 1
        claim = Claim(role, RIVAL, self._beat, validation.MAX_TTL, takeover=True, info=info)
        answer = await self.memory.claim(claim, WAIT)
        assert isinstance(answer, Answer)  # memory does not fail
        for elector in self._electors(role):
            if elector.election.phase in HOLDING:
                await self._take_role(elector, reason, caller)
        return answer.lease.token

    async def _take_role(self, elector: Elector, reason: LossReason, caller: object) -> None:
        election, term, now = elector.election, elector.term, self.clock.now()
        if reason is LossReason.TAKEN:
            elector.try_now()  # the next renewal is answered with the rival's row
        elif reason in HANDOVERS:
            elector.resign(reason, election.timing.ttl)
        elif election.phase is Phase.LEADING:
            elector.lose(reason)
        if now.total < election.deadline:
            await elector.wait_until(
                lambda: election.phase not in HOLDING or term is None or term.lost.is_set()
            )
        await _settle()  # what the dispatcher gets from here on comes after the loss
        called = asyncio.Event()
        loop = asyncio.get_running_loop()
        dispatcher = elector.lifecycle.dispatcher

        async def after_on_lost() -> None:
            loop.call_soon_threadsafe(called.set)

        if caller is not dispatcher:  # a callback must not wait for the next one
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
            # In each round: a claim that was under way may fail only now, and its backoff would
            # never end on a clock that stands still.
            for elector in electors:
                elector.try_now(skip_cooldown=True)
            await asyncio.sleep(TRY_EVERY)

    def _led(self, role: str) -> bool:
        return any(
            elector.term is not None and elector.term.held for elector in self._electors(role)
        )

    def _look_at_the_clock(self) -> None:
        if self.coordinator.portal.running:
            self._on_loop(self._wake_all())

    async def _wake_all(self) -> None:
        for elector in tuple(self.coordinator.session.members):
            elector.wake()
        await _settle()


async def _settle() -> None:
    """Let everything happen that needs no waiting: a few turns of the loop are enough for a store
    in memory."""
    for _ in range(25):
        await asyncio.sleep(0)
