"""`SlotElector`: one candidate for a role that several may hold at a time.

Each slot is a role of its own, `role#0`, `role#1`, …. The candidate claims one free slot after the
other, from a random first. It sends no claim for another slot before it knows what became of the
last one, so it never takes up two. How many slots there are is kept in the row `role#`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from coord.core import validation
from coord.core.announcements import Candidate
from coord.core.lease import Lease, LossReason
from coord.core.operations import Failure
from coord.core.validation import SLOTS_ROW
from coord.election import jitter
from coord.election.callbacks import Callbacks, Dispatcher, current_dispatcher
from coord.election.candidate_options import CandidateOptions, new_candidate_id
from coord.election.elector import Elector
from coord.election.kept import KeptText
from coord.election.session import Session
from coord.election.term import Term, is_inside
from coord.errors import CoordError, NotLeader, SlotsDiffer, StoreRefused
from coord.recipes.agreement import agree, change
from coord.recipes.shard_rows import ShardRows
from coord.runtime import process
from coord.runtime.retry import Backoff, restart_on_failure, rng
from coord.runtime.timers import within

REFUSED_PAUSE = 0.2
"""Seconds until a slot is claimed again whose claim was refused though it seemed to be free."""
RETRY_FIRST, RETRY_MAX = 1.0, 2.0
"""Seconds, at most, until the number of slots is read again if the store did not answer: after the
first failure, and after any."""


def slot_role(role: str, slot: int) -> str:
    """Return the role of a slot."""
    return f"{role}#{slot}"


async def agree_on_slots(session: Session, role: str, slots: int, *, refresh: bool = True) -> int:
    """Return how many slots `role` has: `slots`, if this is its first candidate. `refresh` is that
    of `agree`.

    Raises:
        StoreUnavailable: The store did not answer within the timeout of the session.
        StoreRefused: The store will go on refusing.
    """
    row = role + SLOTS_ROW
    there = (await agree(session, row, {"slots": slots}, refresh=refresh)).get("slots")
    return validation.slots(there)


async def read_slots(session: Session, role: str) -> int | None:
    """Return how many slots `role` has; None if it has none.

    Raises:
        StoreUnavailable: The store did not answer within the timeout of the session.
        StoreRefused: The store will go on refusing.
    """
    rows = await session.read([validation.role(role) + SLOTS_ROW])
    slots = rows[0].info.get("slots") if rows else None
    return slots if isinstance(slots, int) else None


async def change_slots(session: Session, role: str, slots: int) -> int | None:
    """Give `role` another number of slots, and return the old one; None if it had none.

    Raises:
        BadArgument: The role or the number is invalid.
        StoreUnavailable: The store did not answer within the timeout of the session.
        StoreRefused: The store will go on refusing.
    """
    validation.role(slot_role(validation.role(role), validation.MAX_SLOTS))
    before = (await change(session, role + SLOTS_ROW, {"slots": validation.slots(slots)})).get(
        "slots"
    )
    return before if isinstance(before, int) else None


class SlotElector:
    """Runs one incarnation of a candidate for one of several slots. It lives on one event loop.

    `AsyncLeadership` uses it as it uses an `Elector`. It runs an `Elector` for one slot at a time.

    Args:
        session: The session that it shares with other elections.
        role: The role, without the number of a slot.
        slots: How many slots the role has, as this candidate was told.
        options: Its settings.
        callbacks: What it calls when something happens.
        dispatcher: Where it calls them.
        owner: Kept alive while it runs; None means nothing.
        verified: Whether the role was seen to have so many slots. If not, it verifies that before
            its first claim; later it follows each change.

    Attributes:
        role: The row that keeps the number of slots.
        slots: How many slots the role has.
        candidate: Its id while it waits.
        first_result_seen: Whether it knows that no slot is free, or holds one.
        refusal: The refusal of the store, if it refuses the last request, or of the role, if it
            has another number of slots; None if nothing is refused.
        task: The task that runs it.
    """

    def __init__(
        self,
        session: Session,
        role: str,
        slots: int,
        *,
        options: CandidateOptions,
        callbacks: Callbacks,
        dispatcher: Dispatcher,
        owner: object = None,
        verified: bool = False,
    ) -> None:
        self._session, self._options, self._owner = session, options, owner
        self._callbacks, self._dispatcher = callbacks, dispatcher
        self._name, self.role = role, role + SLOTS_ROW
        self.slots = slots
        self.candidate = new_candidate_id()
        self.first_result_seen = False
        self.refusal: Failure | None = None
        self._inner: _SlotHolder | None = None
        self._last_term: Term | None = None
        self._stopping = False
        self._linger = 0.0
        self._agreed, self._verified = False, verified
        self._backoff = Backoff(RETRY_FIRST, RETRY_MAX)
        self._news = 0
        self._rest_until = 0.0
        self._refused_until: dict[int, float] = {}
        self._waiting = 0
        self._loop = asyncio.get_running_loop()
        self._first = rng.randrange(slots)
        self._rows = self._new_rows()
        self._dirty = asyncio.Event()
        self._waiters: list[asyncio.Future[None]] = []
        self._withdraw: Callable[[], None] | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._checking: asyncio.Task[None] | None = None
        work = restart_on_failure(self._run, "slots")
        self.task: asyncio.Task[None] = self._loop.create_task(work, name=f"coord {self.role}")
        self.task.add_done_callback(self._done, context=session.context)

    @property
    def term(self) -> Term | None:
        """Its last term, held or over; None before the first."""
        inner = self._inner
        return self._last_term if inner is None or inner.term is None else inner.term

    @property
    def seen(self) -> Lease | None:
        """None: it waits for several leases."""
        return None

    @property
    def stop_timeout(self) -> float:
        """Seconds that it may take from `stop` until it is done."""
        return self._options.stop_timeout_of_several

    @property
    def stopping(self) -> bool:
        """Whether it was stopped and has not been resumed."""
        return self._stopping

    def stop(self, linger: float = 0.0) -> None:
        """Hand the slot over, and be done. Nobody gets the slot before `linger` seconds have
        passed."""
        self._stopping = True
        if self._inner is not None:
            self._inner.stop(linger)
        self._changed()

    def resume(self) -> None:
        """Go on as a candidate, after a `stop` whose work has not ended yet."""
        self._stopping = False
        self._changed()

    def resign(
        self,
        reason: LossReason,
        cooldown: float,
        to: str | None = None,
        by: str = "",
        hold: float | None = None,
    ) -> None:
        """Hand the slot to anybody, and be a candidate again after the cooldown."""
        if self._inner is not None:
            self._inner.resign(reason, cooldown, to, by, hold)
        else:
            self.rest(cooldown)

    def rest(self, cooldown: float) -> None:
        """Claim no slot for so many seconds."""
        self._rest_until = self._loop.time() + cooldown
        self._changed()

    async def update_info(self, info: Mapping[str, Any]) -> None:
        """Say something else, and wait for the answer of the store, as `Elector` does."""
        if self._inner is None:
            raise NotLeader(self._name)
        await self._inner.update_info(info)
        self._options = self._options._replace(info=dict(info))

    @property
    def kept_text(self) -> KeptText:
        """What the role of the slot keeps, under the last term. There must have been one."""
        assert self._inner is not None
        return self._inner.kept_text

    async def wait_until(self, predicate: Callable[[], bool], timeout: float | None = None) -> None:
        """Wait until `predicate()` holds, this is done, or `timeout` seconds have passed (None:
        never)."""

        async def holds() -> None:
            while not predicate() and not self.task.done():
                waiter = self._loop.create_future()
                self._waiters.append(waiter)
                await waiter

        with contextlib.suppress(asyncio.TimeoutError):
            await within(holds(), timeout)

    async def wait_until_stopped(self) -> None:
        """Wait until what `stop` began is over, for `stop_timeout` seconds at most."""
        await self.wait_until(lambda: not (self._stopping or self._handing_over), self.stop_timeout)

    async def wait_until_handed_over(self) -> None:
        """Wait until the work of the last term has ended and its lease was released or left to
        expire."""
        await self.wait_until(lambda: not self._handing_over)

    @property
    def _handing_over(self) -> bool:
        return self._inner is not None and self._inner.stopping

    def is_calling(self) -> bool:
        """Return whether the calling code is a callback or a job of this candidate."""
        return current_dispatcher.get() is self._dispatcher or is_inside(self.term)

    def callback_added(self) -> None:
        """Call the `on_elected` callbacks that were added since its term began. From any thread."""
        if self._inner is not None:
            self._inner.callback_added()

    def wake(self) -> None:
        """Look again: the machine was suspended."""
        self._changed()

    def check_requests(self) -> None:
        """Do nothing: requests are about the role of a slot."""

    def after_fork(self) -> None:
        """In a forked child: the session informs the candidate of the slot itself."""

    def _changed(self) -> None:
        self._dirty.set()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _done(self, _task: asyncio.Task[None]) -> None:
        self._session.leave(self)
        self._stop_waiting()
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._checking is not None:
            self._checking.cancel()
        for slot in range(self.slots):
            role = slot_role(self._name, slot)
            self._session.observations.keep(role, self._rows.observation(role))
        self._rows.close()
        self._changed()

    def _new_rows(self) -> ShardRows:
        roles = [slot_role(self._name, slot) for slot in range(self.slots)]
        return ShardRows(self._session, roles, "", self._changed)

    async def _run(self) -> None:
        while not self._stopping:
            self._dirty.clear()
            if not await self._agree():
                continue
            rest = self._rest_until - self._loop.time()
            slot = await self._free_slot() if rest <= 0 else None
            if slot is not None:
                await self._try(slot)
            elif not self._stopping:
                await self._pause(rest if rest > 0 else self._until_next_look())

    def _until_next_look(self) -> float:
        """Return the seconds until a slot may have become free without any news."""
        now = self._loop.time()
        refused = [until - now for until in self._refused_until.values() if until > now]
        return min([self._rows.due, *refused])

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._dirty.wait(), max(seconds, 0.001))

    async def _agree(self) -> bool:
        """Learn how many slots there are, and follow their rows."""
        if self._agreed:
            return True
        if self._unsubscribe is None:
            self._unsubscribe = self._session.subscribe(self.role, self._number_changed)
        news = self._news
        try:
            await self._session.observations.load()
            slots = await agree_on_slots(
                self._session, self._name, self.slots, refresh=not self._verified
            )
            if self._verified or slots == self.slots:
                await self._follow(slots)
                self._agreed = news == self._news  # it may have been written meanwhile
                return self._agreed
            detail = str(SlotsDiffer(self._name, slots, self.slots))
            self.refusal = Failure(unknown=False, detail=detail, refusal=StoreRefused)
        except StoreRefused as err:
            self.refusal = Failure.of_refusal(err)
        except CoordError:  # the store does not answer, and will be asked again
            pass
        self.first_result_seen = True
        self._changed()
        self._dirty.clear()
        await self._pause(self._backoff.next())
        return False

    async def _follow(self, slots: int) -> None:
        """Follow the rows of so many slots."""
        if slots != self.slots:
            self._rows.close()
            self.slots = slots
            self._rows = self._new_rows()
        await self._rows.open()
        self._verified, self.refusal = True, None
        self._backoff.reset()

    def _number_changed(self, row: Lease) -> None:
        """The row that keeps the number was written, or a feed has shown it first."""
        self._agreed, self._news = False, self._news + 1
        if self._checking is not None:
            self._checking.cancel()
        self._checking = self._loop.create_task(self._check_slot(), name=f"coord {self.role}")
        self._checking.add_done_callback(lambda _: self._changed())

    async def _check_slot(self) -> None:
        """Step down if the slot that is held is no longer one."""
        backoff = Backoff(RETRY_FIRST, RETRY_MAX)
        while not self._stopping:
            try:
                slots = await agree_on_slots(self._session, self._name, self.slots, refresh=False)
            except CoordError:  # the store does not answer, and will be asked again
                await asyncio.sleep(backoff.next())
                continue
            term = self.term
            if term is not None and term.held and term.slot is not None and term.slot >= slots:
                self.resign(LossReason.STEPPED_DOWN, 0.0)
            return

    async def _free_slot(self) -> int | None:
        """Return a slot that seems to be free; None if there is none now."""
        await self._rows.check_expired()
        now = self._loop.time()
        for number in range(self.slots):
            slot = (self._first + number) % self.slots
            free = self._rows.owner(slot_role(self._name, slot)) is None
            if free and self._refused_until.get(slot, 0.0) <= now:
                _, delay = jitter.draw(self._options.timing.ttl, self._waiting)
                if self._withdraw is None or delay <= 0:
                    return slot
                await asyncio.sleep(delay)  # with many candidates, others go first
                taken = self._rows.owner(slot_role(self._name, slot)) is not None
                return None if taken else slot
        self.first_result_seen = True
        self._wait_openly()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        return None

    def _wait_openly(self) -> None:
        """Announce this candidate while it waits, so that people and other candidates see it."""
        if self._withdraw is None:
            info = {**process.identity(), **self._options.info}
            candidate = Candidate(self.role, self.candidate, info, 0, time.time())
            self._withdraw = self._session.announce(
                candidate, self._options.timing.ttl, self._count_waiting
            )

    def _count_waiting(self, waiting: int) -> None:
        self._waiting = waiting

    def _stop_waiting(self) -> None:
        withdraw, self._withdraw = self._withdraw, None
        if withdraw is not None:
            withdraw()

    async def _try(self, slot: int) -> None:
        """Claim a slot, and hold it as long as possible. It returns when nothing of the claim is
        left: an unanswered one is settled first."""
        role = slot_role(self._name, slot)
        self._session.observations.keep(role, self._rows.observation(role))
        options = self._options._replace(slot=slot)
        inner = self._inner = _SlotHolder(
            self._session,
            role,
            options,
            callbacks=self._callbacks,
            dispatcher=self._dispatcher,
            owner=self._owner,
        )
        inner.slots = self
        inner.election.takeover_delay = inner.election.release_delay = 0.0
        self._session.join(inner)
        try:
            await inner.wait_until(lambda: inner.first_result_seen or inner.term is not None)
            self.refusal = inner.refusal
            if inner.term is None:
                self._refused_until[slot] = self._loop.time() + REFUSED_PAUSE
            else:
                self.first_result_seen = True
                self._last_term = inner.term
                self._stop_waiting()
                self._changed()
                await inner.term.lost
                if inner.term.reason in (LossReason.CALLBACK_FAILED, LossReason.NO_PROGRESS):
                    self._rest_until = self._loop.time() + self._options.timing.ttl
                self._changed()
            inner.stop()
            await asyncio.wait({inner.task})
        finally:
            if inner.seen is not None:
                self._rows.take(inner.seen)
            self._inner = None
            self._changed()


class _SlotHolder(Elector):
    """Claims one slot, and holds it for one term.

    Attributes:
        slots: The candidate for all slots, which rests after a handover.
    """

    __slots__ = ("slots",)
    slots: SlotElector

    def resign(
        self,
        reason: LossReason,
        cooldown: float,
        to: str | None = None,
        by: str = "",
        hold: float | None = None,
    ) -> None:
        """Hand the slot over, and do not claim it again: `slots` decides which one is claimed
        next, and when."""
        super().resign(reason, 0.0, to, by, hold)
        self.stop()
        self.slots.rest(cooldown)
