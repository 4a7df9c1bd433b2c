"""`AsyncCoordinator`: a connection to a store on the running loop, and everything that can be done with it."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from coord import checks, clock, forking, leaving, urls
from coord.asking import Prompting, Sent
from coord.async_leadership import AsyncLeadership
from coord.async_orders import AsyncOrders
from coord.candidate import Candidate
from coord.known import Known
from coord.notice import Notice
from coord.operations import Failure, Operation, Renew, Result
from coord.putting import put, put_all
from coord.renewals import Renewals
from coord.standing import Standing
from coord.stores.protocol import Bulk
from coord.suspend import SuspendWatch
from coord.timing import Instant
from coord.together import ALONE_AT_ONCE, Batches
from coord.turns import Turns
from coord.unique import UniqueServices
from coord.waiting import Waiting
from coord.watcher import Watcher
from coord.wishes import Wishes

if TYPE_CHECKING:
    from coord.async_registry import AsyncServiceRegistry
    from coord.records.protocol import Records
    from coord.stores.protocol import Store
    from coord.surroundings import Surroundings

T = TypeVar("T")
CLAIMS_AT_ONCE = 128
"""Swaps other than renewals that are under way together, on a store that has each put by itself. Ten thousand claims at
once would all wait past their time."""


_living: weakref.WeakSet[AsyncCoordinator] = weakref.WeakSet()


def living() -> list[AsyncCoordinator]:
    """All that this process has, those inside of sync ones included."""
    while True:
        try:
            return list(_living)
        except RuntimeError:  # another thread made one meanwhile
            continue


class AsyncCoordinator(AsyncOrders):
    """Everything about roles on one store. Makes no connection until something is asked.

    url: `sqlite:///path`, `rethinkdb://[user[:password]@]host[:port][,host…]/database`, `memory://`; without one,
        `COORD_URL`, else a SQLite file in the user's state directory. A bad one raises `BadArgument` at once.
    timeout: seconds that a lookup may take, retries included, before it raises `StoreUnavailable`.
    store: a store of your own instead of a URL (`coord.stores.protocol.Store`).
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout: float = 5.0,
        store: Store | None = None,
        now: Callable[[], Instant] = clock.system_now,
    ) -> None:
        self._timeout = checks.number(timeout, "timeout", low=0, above=True)
        self.store: Store = store if store is not None else urls.make_store(urls.resolve(url))
        self.now = now
        self.trouble = ""
        """What kept the store from answering last, for messages to people; "" when it answered."""
        self._begin()
        forking.watch(self)
        _living.add(self)

    def _begin(self) -> None:
        self.closing: set[Callable[[], Awaitable[None]]] = set()
        """What is to be done before the store is let go of: heartbeats end, publications are taken back."""
        self._standings: set[Standing] = set()
        self._renewals = Renewals(self.store.renew, self._heard)
        self._prompting = Prompting(self._heard)
        bulk = isinstance(self.store, Bulk)
        self._turns = Turns(ALONE_AT_ONCE if bulk else CLAIMS_AT_ONCE)
        self._batches = Batches(functools.partial(put_all, self.store), self._heard) if bulk else None
        self.context = contextvars.copy_context()
        self.known = Known()
        self._watcher = Watcher(lambda: self.store, self.known.forget)
        self._unique = UniqueServices(self)
        self._waiting = Waiting(lambda: self.board)
        self._wishes = Wishes(lambda: self.board, self._wished)
        self._suspend_watch = SuspendWatch(self._standings, self.now)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    @property
    def url(self) -> str:
        """Where it is, without secrets."""
        return self.store.url

    @property
    def ticked(self) -> float | None:
        """When the loop turned last, on the awake clock, to half a second; None while nobody stands for anything."""
        return self._suspend_watch.ticked

    @property
    def max_clock_skew(self) -> float | None:
        return self.store.max_clock_skew

    async def __aenter__(self) -> AsyncCoordinator:
        await self.check()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def check(self, timeout: float | None = None) -> None:
        """See that the store can be reached and used. Raises `StoreUnavailable`, `NotSetUp` or `AccessDenied`."""
        await self.store.open(self._timeout if timeout is None else timeout)

    async def close(self) -> None:
        """Stop every leadership (drain, release) and heartbeat, then let go of the store."""
        await asyncio.gather(*(end() for end in tuple(self.closing)))
        standing_yet = [standing for standing in self._standings if not standing.task.done()]
        for standing in standing_yet:
            standing.stand_down()
        if standing_yet:
            longest = max(one.tenure.drain_timeout + 2 * one.election.timing.attempt_timeout for one in standing_yet)
            await asyncio.wait({one.task for one in standing_yet}, timeout=longest)
        await self._unique.close()
        await asyncio.gather(self._waiting.close(), self._wishes.close())
        self._suspend_watch.end()
        await self._watcher.close()
        await self.store.close()

    # -- leadership ----------------------------------------------------------------------------------------------

    def leadership(self, role: str, **settings: Any) -> AsyncLeadership:
        """A candidate for `role`, not started. The settings are `AsyncLeadership`'s."""
        return AsyncLeadership(self, role, **settings)

    async def unique_service(self, role: str, candidate: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """The one service of that role, after claiming or keeping it for `candidate` when one is given.

        `candidate` is a dict with at least `ttl` (seconds); the rest is what others see, and is kept as given. It
        claims a free role, or renews the hold of an earlier call, in one query; call it again within the ttl, for
        instance on each pass of a loop. Either way the answer is the record of who has the role (the fields of its
        candidate with `role`, `ttl`, `holder`, `token`, `last_heartbeat`, and `mine`), or None when nobody has.
        Raises `StoreUnavailable` or `StoreRefused`; then the role may or may not have been had (rule 8).
        """
        return await self._unique.call(checks.role(role), candidate)

    @functools.cached_property
    def services(self) -> AsyncServiceRegistry:
        """The service registry of the table `services`; `AsyncServiceRegistry(coordinator, table)` for another."""
        from coord.async_registry import AsyncServiceRegistry

        return AsyncServiceRegistry(self)

    def records(self, table: str) -> Records:
        """What keeps the service records of that table, for a registry."""
        return urls.make_records(self.store, table)

    # -- what leaderships and lookups need -------------------------------------------------------------------------

    def ask(self, operation: Operation, timeout: float, going: Callable[[], None] = lambda: None) -> Awaitable[Result]:
        """Put one operation to the store, bounded by `timeout` seconds. Never raises for a store's trouble.

        It may have to wait for its turn before that, for longer than a ttl; `going` is called when it has come.
        """
        if isinstance(operation, Renew):
            return self._renewals.renew(operation, timeout)  # no coroutine of its own: ten thousand wait at a time
        if self._batches is not None and self._turns.busy and (asked := self._batches.add(operation, timeout, going)):
            return asked
        return self._ask_alone(operation, timeout, going)

    async def _ask_alone(self, operation: Operation, timeout: float, going: Callable[[], None]) -> Result:
        turn = self._turns.take()
        try:
            if turn is not None:
                await turn
            going()
            result = await put(self.store, operation, timeout)
        finally:
            self._turns.give_back(turn)
        self._heard(result)
        return result

    def _heard(self, result: Result) -> None:
        self.trouble = result.detail if isinstance(result, Failure) else ""

    def begin(self, operation: Operation, timeout: float) -> Sent:
        """Put it to the store in this very turn of the loop, to be awaited as `ask` is. None: that cannot be done."""
        return self._prompting.begin(self.store, operation, timeout)

    def list_waiting(self, candidate: Candidate, ttl: float, heard: Callable[[int], None]) -> Callable[[], None]:
        """Show it on the board, if there is one; `heard` is told how many wait. Returns what ends that."""
        return self._waiting.add(candidate, ttl, heard)

    def posted(self, role: str) -> list[Notice]:
        """What was posted loudly about the role, as far as this process has heard."""
        return self._wishes.about(role)

    def heeded(self, role: str, key: str) -> None:
        """The notice `key` was acted upon: it is taken off the board."""
        self._wishes.heeded(role, key)

    def _wished(self, role: str) -> None:
        for standing in tuple(self._standings):
            if standing.election.role == role:
                standing.heed()

    def _stand(self, begin: Callable[[Surroundings], Standing]) -> Standing:
        leaving.end_on_sigterm()  # `async with` and the cancelled loop release; SIGTERM alone would skip both
        standing = begin(self)
        self._standings.add(standing)
        self._suspend_watch.begin()
        self._wishes.begin()
        return standing

    def stands_no_more(self, standing: Standing) -> None:
        """It is done."""
        self._standings.discard(standing)
        if not self._standings:
            self._wishes.end()

    def after_fork(self) -> None:
        """In a forked child: nothing of this is ours (rule 9)."""
        for standing in self._standings:
            if standing.term is not None:
                standing.term._forked()
        self.store.abandon()
        self._begin()
