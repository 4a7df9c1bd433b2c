"""`AsyncShares`: a member of a group that shares shards fairly, on the running event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, Union

from coord.core import validation
from coord.core.lease import LossReason
from coord.core.timing import Timing
from coord.election.callbacks import Callbacks, Dispatcher, TaskDispatcher
from coord.election.candidate_options import CandidateOptions
from coord.election.session import HasSession
from coord.election.term import Term
from coord.errors import BadArgument, CoordError, SharesDiffer
from coord.recipes.agreement import agree
from coord.recipes.membership import GroupMember
from coord.recipes.shard_work import Shard, TaskWork, Work
from coord.recipes.shards import ShardNames
from coord.recipes.share_engine import ShareEngine
from coord.runtime.facade import PublicDir
from coord.runtime.timers import within

Function = TypeVar("Function", bound=Callable[..., Any])
OnGained = Union[Callable[[Any, Term], object], None]
"""`on_gained`: a function, plain or async, that takes the shard and the term."""
OnLostShard = Union[Callable[[Any, Term, LossReason], object], None]
"""`on_lost`: a function, plain or async, that takes the shard, the term and the reason."""


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
            self._engine = ShareEngine(
                self._session, names, self._options, self._grace, begin=self.begin, owner=self
            )
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

        Raises:
            CoordinatorClosed: The coordinator was closed.
        """
        timeout = validation.timeout(timeout)
        engine = self.engine
        if engine is None:
            self._session.check_open("wait for the members of the group", self.group)
        else:
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
