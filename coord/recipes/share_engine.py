"""`ShareEngine`: runs one member of a group that shares shards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from coord.core import sharing
from coord.core.lease import LossReason
from coord.election.callbacks import Callbacks, Dispatcher
from coord.election.candidate_options import CandidateOptions
from coord.election.elector import Elector
from coord.election.session import Session
from coord.election.term import Term
from coord.errors import CoordError, SharesDiffer
from coord.recipes.agreement import agree
from coord.recipes.membership import GroupMember, Membership, candidate_of, new_member_id
from coord.recipes.shard_rows import ShardRows
from coord.recipes.shard_work import Shard
from coord.recipes.shards import ShardNames
from coord.runtime import log, process
from coord.runtime.retry import Backoff, restart_on_failure
from coord.runtime.timers import within

FIRST_LOOK = 0.2
"""Seconds, at most, from joining to the first claim, so that members that start together know each
other and move less."""
RETRY_FIRST, RETRY_MAX = 0.5, 2.0
"""Seconds, at most, until the group is read again if the store did not answer: after the first
failure, and after any."""
REFUSED_PAUSE = 0.5
"""Seconds, at most, until a shard is claimed again that somebody else has."""

Begin = Callable[[Shard, Callable[[], None]], tuple[Callbacks, Dispatcher]]
"""Takes a shard and what to call when the work on it fails."""


class _Holding:
    """One shard that this member holds, claims or gives away.

    Attributes:
        elector: Its candidate.
        giving: Whether it is being handed to another member.
        settled: Whether its first claim was answered.
    """

    __slots__ = ("elector", "giving", "settled", "task")

    def __init__(self, elector: Elector) -> None:
        self.elector = elector
        self.giving = self.settled = False
        self.task: asyncio.Task[None] | None = None

    @property
    def term(self) -> Term | None:
        term = self.elector.term
        return term if term is not None and term.held else None


class ShareEngine:
    """Runs one member from joining to leaving. It lives on one loop.

    It decides with `coord.core.sharing`, and looks again on any change and several times in a ttl.
    It is a member of the session, which stops it when it is closed.

    Args:
        session: The session whose store it uses.
        names: The shards of the group.
        options: The settings of the candidates for shards.
        grace: Seconds for which a member that has left is counted.
        begin: Returns the callbacks of the candidate for a shard, and what calls them.
        owner: Kept alive while it runs.
    """

    def __init__(
        self,
        session: Session,
        names: ShardNames,
        options: CandidateOptions,
        grace: float,
        *,
        begin: Begin,
        owner: object,
    ) -> None:
        self._session, self._names, self._options = session, names, options
        self._begin, self._owner = begin, owner
        self._loop = asyncio.get_running_loop()
        self.role = names.role
        self.id = new_member_id()
        me = GroupMember(self.id, {**process.identity(), **options.info})
        self._membership = Membership(session, names.role, me, options.timing, grace)
        self._rows = ShardRows(session, names.roles, self.id, self._row_changed)
        self._holdings: dict[Shard, _Holding] = {}
        self._rest_until: dict[Shard, float] = {}
        self._stepped_down: set[Shard] = set()
        """The shards that rest because somebody has asked this member to step down."""
        self._positions = {shard: position for position, shard in enumerate(names.shards)}
        self._dirty = asyncio.Event()
        self._waiters: list[asyncio.Future[None]] = []
        self._stopping = False
        self._began_at = self._loop.time()
        self._ready = False
        self._unconfirmed = False
        self._backoff = Backoff(RETRY_FIRST, RETRY_MAX)
        self.settled = False
        work = restart_on_failure(self._run, "share")
        self.task: asyncio.Task[None] = self._loop.create_task(work, name=f"coord {names.role}")
        self.task.add_done_callback(self._done, context=session.context)

    @property
    def mine(self) -> dict[Any, Term]:
        """The shards that it holds, with their terms. From any thread."""
        held = [(shard, holding.term) for shard, holding in list(self._holdings.items())]
        return {shard: term for shard, term in sorted(held, key=_first) if term is not None}

    @property
    def members(self) -> list[GroupMember]:
        """The members that it knows, by id."""
        return [member for _, member in sorted(self._membership.present.items())]

    @property
    def stop_timeout(self) -> float:
        """Seconds that it may take from `stop` until it is done."""
        return self._options.stop_timeout_of_several

    @property
    def stopping(self) -> bool:
        """Whether it leaves the group."""
        return self._stopping

    def wake(self) -> None:
        """Look again: the machine was suspended."""
        self._changed()

    def check_requests(self) -> None:
        """A member has joined."""
        self._membership.look_soon()
        self._changed()

    def stop(self) -> None:
        """Leave the group."""
        self._stopping = True
        self._changed()

    def is_calling(self) -> bool:
        """Whether the calling code is a callback or the work of a shard."""
        return any(holding.elector.is_calling() for holding in self._holdings.values())

    def after_fork(self) -> None:
        """In a forked child: the session informs the candidate of each shard itself."""

    async def until_settled(self) -> None:
        """Wait until it is settled or done."""
        while not self.settled and not self.task.done():
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def _row_changed(self) -> None:
        self._membership.look_soon()
        self._changed()

    def _changed(self) -> None:
        self._dirty.set()

    def _done(self, _task: asyncio.Task[None]) -> None:
        self._session.leave(self)
        self._rows.close()
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _run(self) -> None:
        while not self._stopping:
            self._dirty.clear()
            if self._membership.forgotten and not await self._confirm():
                continue
            await self._membership.refresh()
            if not self._ready:
                if not await self._look_first():
                    continue
                first_look = min(FIRST_LOOK, self._options.timing.ttl / 10)
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(self._until_stopping(), first_look)
                self._membership.look_soon()
                self._ready = True
                continue
            await self._rows.check_expired()
            if not self._stopping and not self._membership.forgotten:
                self._act()
                await self._pause()
        await self._leave()

    async def _confirm(self) -> bool:
        """Check what the group shares, as `start` does, and leave it if that has changed.

        Without members the row of the group may have been retired, and others may have begun a
        group of that name with other shards.
        """
        names = self._names
        try:
            there = await within(
                agree(self._session, names.role, names.agreement),
                self._options.timing.attempt_timeout,
            )
        except (CoordError, asyncio.TimeoutError) as err:
            if not (self._unconfirmed or self._stopping):
                because = str(err) or "the store does not answer"
                log.warning("group.not_confirmed", role=names.role, because=because)
            self._unconfirmed = True
            await self._rest_after_failure()
            return False
        self._unconfirmed = False
        self._backoff.reset()
        if names.agrees(there):
            self._membership.confirmed()
            return True
        differs = SharesDiffer(names.group, names.describe(there), names.describe(names.agreement))
        log.error("group.left", role=names.role, because=str(differs))
        self._stopping = True
        return False

    async def _look_first(self) -> bool:
        try:
            await self._rows.open()
        except CoordError:  # `start` has reached the store, so this passes
            await self._rest_after_failure()
            return False
        self._backoff.reset()
        return True

    async def _rest_after_failure(self) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._until_stopping(), self._backoff.next())

    async def _until_stopping(self) -> None:
        while not self._stopping:
            self._dirty.clear()
            await self._dirty.wait()

    async def _pause(self) -> None:
        now = self._loop.time()
        times = [self._membership.due - now, self._rows.due]
        times += [until - now for until in self._rest_until.values()]
        if not self.settled:
            times.append(self._options.timing.renew_every / 4)
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._dirty.wait(), max(min(times), 0.001))

    def _act(self) -> None:
        """Decide once more, and begin what should be done."""
        names, rows = self._names, self._rows
        now = self._loop.time()
        self._rest_until = {k: until for k, until in self._rest_until.items() if until > now}
        self._stepped_down &= self._rest_until.keys()
        self._membership.rest_from(frozenset(self._positions[k] for k in self._stepped_down))
        for shard in names.shards:
            candidate = rows.reserved(names.role_of(shard))
            if candidate is not None and candidate.startswith(self.id):
                self._claim(shard, candidate)
        owners = [rows.owner(role) for role in names.roles]
        members, resting = self._membership.counted | {self.id}, self._membership.resting
        present = self._membership.present  # a member that has left takes no shard, in no grace
        plan = sharing.plan(owners, members, self.id, members - present.keys())
        claiming = sum(not holding.settled for holding in self._holdings.values())
        room = plan.missing - claiming
        patience = self._options.timing.renew_every
        late = (
            shard
            for shard, owner in enumerate(owners)
            if owner is None and rows.free_for(names.roles[shard]) > patience
        )
        for position in (*plan.claims, *late):
            if room > 0 and self._claim(names.shards[position], candidate_of(self.id)):
                room -= 1
        for position in sharing.substitutes(owners, present, resting, self.id):
            self._claim(names.shards[position], candidate_of(self.id))
        self._give(plan.gives[0] if plan.gives else None)
        quiet = all(item.settled and not item.giving for item in self._holdings.values())
        self.settled = plan.settled and quiet
        if self.settled:
            self._wake_waiters()

    def _give(self, taker: str | None) -> None:
        """Give one shard after the other: first the work ends, then it is handed over."""
        giving = next((shard for shard, item in self._holdings.items() if item.giving), None)
        resting = self._membership.resting.get(taker or "", ())
        if giving is not None:
            # Who needs a shard may have changed while the work ends; if nobody does, it stays here.
            to = self.id if taker is None or self._positions[giving] in resting else taker
            self._holdings[giving].elector.election.redirect(candidate_of(to))
        elif taker is not None:
            for position, shard in enumerate(self._names.shards):
                holding = self._holdings.get(shard)
                if position in resting or holding is None:
                    continue
                if holding.term is not None and holding.settled:
                    holding.giving = True
                    elector = holding.elector
                    elector.resign(LossReason.STEPPED_DOWN, 0.0, candidate_of(taker))
                    elector.stop()
                    return

    def _claim(self, shard: Shard, candidate: str) -> bool:
        """Begin to claim a shard, unless that has begun or it rests; return whether it began."""
        if shard in self._holdings or self._rest_until.get(shard, 0.0) > self._loop.time():
            return False
        role = self._names.role_of(shard)
        self._session.observations.keep(role, self._rows.observation(role))

        def failed() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._work_failed, shard)

        callbacks, dispatcher = self._begin(shard, failed)
        elector = Elector(
            self._session,
            role,
            self._options,
            callbacks=callbacks,
            dispatcher=dispatcher,
            owner=self._owner,
            candidate=candidate,
        )
        # The members have agreed who claims, so nobody needs to let others go first.
        elector.election.takeover_delay = elector.election.release_delay = 0.0
        self._session.join(elector)
        holding = self._holdings[shard] = _Holding(elector)
        holding.task = self._loop.create_task(self._hold(shard, holding), name=f"coord {role}")
        return True

    async def _hold(self, shard: Shard, holding: _Holding) -> None:
        """Follow one candidate from its claim to its end."""
        elector = holding.elector
        try:
            await elector.wait_until(lambda: elector.first_result_seen or holding.term is not None)
            holding.settled = True
            self._take_row(elector)
            self._changed()
            term = elector.term
            if term is None:
                self._rest(shard, min(REFUSED_PAUSE, self._options.timing.ttl / 20))
            else:
                await term.lost
                if term.reason in (LossReason.CALLBACK_FAILED, LossReason.NO_PROGRESS):
                    self._rest(shard, self._options.timing.ttl)
                cooldown = elector.election.cooldown(self._session.now())
                if term.reason is LossReason.STEPPED_DOWN and not holding.giving and cooldown > 0:
                    self._stepped_down.add(shard)
                    self._rest(shard, cooldown)
            elector.stop()
            await asyncio.wait({elector.task})
            self._take_row(elector)
        finally:
            elector.stop()
            self._holdings.pop(shard, None)
            self._changed()

    def _take_row(self, elector: Elector) -> None:
        if elector.election.observed is not None:
            self._rows.take(elector.election.observed)

    def _rest(self, shard: Shard, seconds: float) -> None:
        self._rest_until[shard] = self._loop.time() + seconds

    def _work_failed(self, shard: Shard) -> None:
        holding = self._holdings.get(shard)
        if holding is not None and holding.term is not None:
            ttl = self._options.timing.ttl
            holding.elector.resign(LossReason.CALLBACK_FAILED, ttl)

    async def _leave(self) -> None:
        """Leave: nobody hands this member anything any more, then it gives everything back."""
        await self._membership.leave()
        holdings = list(self._holdings.values())
        for holding in holdings:
            holding.elector.stop()
        tasks = {holding.task for holding in holdings if holding.task is not None}
        if tasks:
            await asyncio.wait(tasks)


def _first(pair: tuple[Any, object]) -> Any:
    return pair[0]
