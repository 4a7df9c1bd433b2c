"""`AsyncShares`: a member of a group that shares shards fairly, on the running event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, Union

from coord.core import sharing, validation
from coord.core.lease import LossReason
from coord.core.timing import Timing
from coord.election.callbacks import Callbacks, Dispatcher, TaskDispatcher
from coord.election.candidate_options import CandidateOptions
from coord.election.elector import Elector
from coord.election.session import HasSession, Session
from coord.election.term import Term
from coord.errors import BadArgument, CoordError, SharesDiffer
from coord.recipes.agreement import agree
from coord.recipes.membership import GroupMember, Membership, candidate_of, new_member_id
from coord.recipes.shard_rows import ShardRows
from coord.recipes.shard_work import Shard, TaskWork, Work
from coord.recipes.shards import ShardNames
from coord.runtime import log, process
from coord.runtime.facade import PublicDir
from coord.runtime.retry import restart_on_failure
from coord.runtime.timers import within

Function = TypeVar("Function", bound=Callable[..., Any])
OnGained = Union[Callable[[Any, Term], object], None]
"""`on_gained`: a function, plain or async, that takes the shard and the term."""
OnLostShard = Union[Callable[[Any, Term, LossReason], object], None]
"""`on_lost`: a function, plain or async, that takes the shard, the term and the reason."""

FIRST_LOOK = 0.2
"""Seconds, at most, from joining to the first claim, so that members that start together know each
other and move less."""
RETRY_FIRST_LOOK = 0.5
"""Seconds until the shards are read again, if the store did not answer."""
REFUSED_PAUSE = 0.5
"""Seconds, at most, until a shard is claimed again that somebody else has."""


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


class AsyncShares(PublicDir, internal=("begin", "engine", "stop_soon")):
    """A member of a group. The group shares its shards fairly: each shard is worked on by one
    member at a time.

    `coordinator.share(group, shards)` makes one. Each shard is a role of its own, with its own
    fencing tokens. All durations are in seconds.

    Args:
        coordinator: The `AsyncCoordinator` whose store and event loop it uses.
        group: The name of the group: a string of 1 to 100 bytes.
        shards: How many shards there are, 1 to 4,096, which are then called 0, 1, 2, …; or the
            names of the shards. All members must give the same.
        on_gained: Called as `on_gained(shard, term)`.
        on_lost: Called as `on_lost(shard, term, reason)`, exactly once for each `on_gained`.
        ttl: Lease duration of a shard. If a member crashes, the others take its shards after at
            most this time.
        info: What others see of this member: a dict that JSON can hold.
        drain_timeout: Time that the work on a shard has to end before its lease is left to run out;
            None means the ttl.
        grace: Time for which a member that has left still counts. A rolling restart then moves
            fewer shards. After a crash its shards wait for so long.
        dispatcher: Makes what runs the callbacks of a shard; None means tasks on the loop.
        run_work: Starts the work on a shard; None means tasks on the loop.
        owner: Kept alive while it is a member; None means nothing.

    Raises:
        BadArgument: The group, the shards or a setting is invalid, or the store keeps no
            announcements.
        CoordinatorClosed: The coordinator was closed.
    """

    def __init__(
        self,
        coordinator: HasSession,
        group: str,
        shards: int | Sequence[str],
        *,
        on_gained: OnGained = None,
        on_lost: OnLostShard = None,
        ttl: float = 30.0,
        info: Mapping[str, Any] | None = None,
        drain_timeout: float | None = None,
        grace: float = 0.0,
        dispatcher: Callable[[str], Dispatcher] | None = None,
        run_work: Work | None = None,
        owner: object = None,
    ) -> None:
        self._names = ShardNames(group, shards)
        self._options = CandidateOptions.validated(
            Timing.of(ttl),
            info=info,
            drain_timeout=drain_timeout,
            at_most=None,
            token_floor=0,
            priority=0,
            min_tenure=None,
        )
        self._grace = validation.number(grace, "grace", low=0, high=validation.MAX_TTL)
        self._on_gained = [] if on_gained is None else [_callback(on_gained, "on_gained", 2)]
        self._on_lost = [] if on_lost is None else [_callback(on_lost, "on_lost", 3)]
        self._session = coordinator.session
        self._session.check_open("be a member of the group", group)
        self._session.announcements  # noqa: B018 # raises if the store keeps none
        self._new_dispatcher = dispatcher or (lambda _: TaskDispatcher())
        self._work = run_work or TaskWork()
        self._functions: list[Callable[..., Any]] = []
        self._owner = owner
        self._engine: ShareEngine | None = None

    def __repr__(self) -> str:
        state = f"{len(self.mine)} of {len(self._names)} shards"
        return f"<{type(self).__name__} {self.group!r}, {state}>"

    @property
    def group(self) -> str:
        """The name of the group."""
        return self._names.group

    @property
    def shards(self) -> Sequence[Shard]:
        """All shards of the group."""
        return self._names.shards

    @property
    def mine(self) -> dict[Any, Term]:
        """The shards that this member holds, by the clock, each with its term."""
        return {} if self.engine is None else self.engine.mine

    @property
    def members(self) -> list[GroupMember]:
        """The members of the group as this one knows them, by id; empty while it is stopped."""
        return [] if self.engine is None else self.engine.members

    @property
    def settled(self) -> bool:
        """Whether every shard is held, and every member has what it should, as this one knows."""
        return self.engine is not None and self.engine.settled

    @property
    def engine(self) -> ShareEngine | None:
        """What runs it; None while it is stopped."""
        engine = self._engine
        return None if engine is None or engine.task.done() else engine

    def work(self, function: Function) -> Function:
        """Run `function(shard, term)` for each shard while this member holds it; a decorator.

        It starts when the shard is gained. A coroutine function runs in a task, which is cancelled
        when the term is lost. With `Shares` a plain function runs in a thread, and learns of the
        loss from `term.lost` or `term.check()`. The shard goes on only when the function has
        returned, or when its lease has run out. If it raises, the shard is given up, and this
        member does not claim it again for a ttl.

        Raises:
            BadArgument: It is no function, or of the wrong kind.
        """
        coroutine = inspect.iscoroutinefunction(_callback(function, "work", 2))
        if coroutine is not isinstance(self._work, TaskWork):
            kind = "a plain function" if coroutine else "a coroutine function"
            raise BadArgument("work", function, f"must be {kind}, called as work(shard, term)")
        self._functions.append(function)
        return function

    async def start(self) -> None:
        """Join the group. It holds its first shards a moment later. Does nothing if it is a member.
        If it is just leaving the group, it waits for the end of that and joins again.

        Raises:
            CoordError: A callback or the work of this member has called it while it is leaving.
            SharesDiffer: The members share other shards.
            StoreUnavailable: The store did not answer within the timeout of the coordinator.
            StoreRefused: The store will go on refusing.
            CoordinatorClosed: The coordinator was closed, or belongs to another event loop.
        """
        self._session.check_usable(f"join the group {self.group!r}")
        while (engine := self.engine) is not None:
            if not engine.stopping:
                return
            if engine.is_calling():
                raise CoordError(
                    f"cannot join the group {self.group!r}: this member is leaving it, and waits "
                    "for the callback or the work that has called start(); call it elsewhere"
                )
            await asyncio.wait({engine.task})
            self._session.check_usable(f"join the group {self.group!r}")
        names = self._names
        there = await agree(self._session, names.role, names.agreement)
        if not names.agrees(there):
            raise SharesDiffer(self.group, names.describe(there), names.describe(names.agreement))
        self._session.check_usable(f"join the group {self.group!r}")
        if self.engine is None:
            self._engine = ShareEngine(self._session, names, self._options, self._grace, self)
            self._session.join(self._engine)

    async def stop(self) -> None:
        """Leave the group: end the work on every shard and give all of them to the others."""
        engine = self.engine
        if engine is not None:
            engine.stop()
            if not engine.is_calling():
                await asyncio.wait({engine.task}, timeout=engine.stop_timeout)

    def stop_soon(self) -> None:
        """Do what `stop` does, and do not wait for it. Called on the loop."""
        if self.engine is not None:
            self.engine.stop()

    async def wait_settled(self, timeout: float | None = None) -> bool:
        """Wait until `settled`, and return whether it is.

        Args:
            timeout: Seconds to wait; None means no limit.
        """
        timeout = validation.timeout(timeout)
        engine = self.engine
        if engine is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await within(engine.until_settled(), timeout)
        return self.settled

    async def __aenter__(self) -> AsyncShares:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    def begin(self, shard: Shard, failed: Callable[[], None]) -> tuple[Callbacks, Dispatcher]:
        """Return the callbacks of the candidate for a shard, and what calls them."""

        def work(term: Term) -> None:
            for function in self._functions:
                self._work.start(function, shard, term, failed)

        elected = [functools.partial(function, shard) for function in self._on_gained]
        lost = [functools.partial(function, shard) for function in self._on_lost]
        role = self._names.role_of(shard)
        return Callbacks.of([*elected, work], lost, None, None), self._new_dispatcher(role)


class ShareEngine:
    """Runs one member from joining to leaving. It lives on one loop.

    It decides with `coord.core.sharing`, and looks again on any change and several times in a ttl.
    It is a member of the session, which stops it when it is closed.
    """

    def __init__(
        self,
        session: Session,
        names: ShardNames,
        options: CandidateOptions,
        grace: float,
        shares: AsyncShares,
    ) -> None:
        self._session, self._names, self._options = session, names, options
        self._shares = shares
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
        return self._options.drain_timeout + 3 * self._options.timing.attempt_timeout

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
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._until_stopping(), RETRY_FIRST_LOOK)
            return False
        self._unconfirmed = False
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
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._until_stopping(), RETRY_FIRST_LOOK)
            return False
        return True

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

        callbacks, dispatcher = self._shares.begin(shard, failed)
        elector = Elector(
            self._session,
            role,
            self._options,
            callbacks=callbacks,
            dispatcher=dispatcher,
            owner=self._shares,
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


def _callback(function: Any, argument: str, count: int) -> Any:
    """Return `function` if it can be called with so many arguments.

    Raises:
        BadArgument: It is no function, or takes other arguments.
    """
    names = ("shard", "term", "reason")[:count]
    allowed = f"must be a function called as {argument}({', '.join(names)})"
    if not callable(function):
        raise BadArgument(argument, function, allowed)
    try:
        inspect.signature(function).bind(*names)
    except TypeError:
        raise BadArgument(argument, function, allowed) from None
    except ValueError:  # some functions written in C have no signature
        pass
    return function
