"""What can be asked about roles without standing for one: who leads, who led, and what changes. Nothing here writes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import queue
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from coord.api.leadership import AsyncLeadership, Leadership
from coord.core import validation
from coord.core.announcements import Announcement, Candidate, HandoverRequest, by_priority
from coord.core.history import PastTerm
from coord.core.lease import Lease
from coord.core.operations import Failure, Operation, Renew, Result
from coord.core.timing import Instant
from coord.election.announcements import CandidateAnnouncer, RequestListener
from coord.election.elector import Elector, new_candidate_id
from coord.election.observe import LeaderCache, LeaderChange, watch_leader, watch_leaders
from coord.election.session import SuspendDetector
from coord.election.unique_service import UniqueServices
from coord.errors import BadArgument, NotLeader
from coord.runtime import clock, log, process
from coord.runtime.portal import Portal
from coord.runtime.retry import retry_until
from coord.runtime.timers import LightSemaphore
from coord.stores import urls
from coord.stores.batching import MAX_SINGLE_REQUESTS, RenewalBatcher, SwapBatcher
from coord.stores.feeds import SharedFeed
from coord.stores.protocol import Bulk
from coord.stores.requests import ImmediateRequests, PendingResult, send, send_all

if TYPE_CHECKING:
    from coord.election.session import Surroundings
    from coord.services.heartbeat import Heartbeat
    from coord.services.registry import AsyncServiceRegistry, ServiceRegistry
    from coord.stores.protocol import Announcements, Records, Store

T = TypeVar("T")


class AsyncLookups:
    """The questions, over a store that whoever inherits this brings along. Each is one query, retried within the
    coordinator's timeout; then it raises `StoreUnavailable`, or at once `StoreRefused`."""

    store: Store
    known: LeaderCache
    _watcher: SharedFeed
    _timeout: float

    async def leader(self, role: str) -> Lease | None:
        """Who leads `role` by the store's clock: holder, token, info, remaining seconds. None for nobody.

        One query; none while the role is being watched (`watch_leader`): then the answer is what the feed last showed.
        """
        if self.known.has(role):
            return self.known.leader(role)
        rows = await self.read([validation.role(role)])
        return next((row for row in rows if row.led), None)

    async def leaders(self) -> list[Lease]:
        """All the roles that somebody leads, by name."""
        rows = await self.read(None)
        return sorted((row for row in rows if row.led), key=lambda row: row.role)

    async def history(self, role: str | None = None) -> list[PastTerm]:
        """The last terms of `role` (None: of every role), newest first: who led, when, under which token, why it ended.

        The store keeps some of them for each role (`coord.core.history.KEPT`), written by the swaps that began and ended them.
        """
        roles = None if role is None else [validation.role(role)]
        past = await self._retried(lambda timeout: self.store.past(roles, timeout))
        return sorted(past, key=lambda term: (term.role, -term.token))

    async def candidates(self, role: str | None = None) -> list[Candidate]:
        """Who waits for `role` (None: for any role): the highest priority first, then who has waited longest.

        For people: it may be a ttl old, and nothing is decided by it. One query. Raises `NotSetUp` where an older coord
        set up the database.
        """
        roles = None if role is None else [validation.role(role)]
        return by_priority(await self._retried(lambda timeout: self.board.read(roles, timeout)))

    def watch_leader(self, role: str) -> AsyncIterator[Lease | None]:
        """Who leads now, then each change, as it happens; None for nobody. Goes on through outages of the store."""
        return watch_leader(self, validation.role(role))

    def watch_leaders(self) -> AsyncIterator[LeaderChange]:
        """Each role that somebody leads now, then each change of any role's leader, as it happens; through outages.

        Roles that appear later are among them. A change has the fields `role` and `leader`, which is None for nobody.
        """
        return watch_leaders(self)

    # -- what they stand on --------------------------------------------------------------------------------------

    @functools.cached_property
    def board(self) -> Announcements:
        """The board beside the leases (`coord.stores.protocol`); `BadArgument` where the store has none.

        Nothing on it ever decides who leads.
        """
        return urls.make_board(self.store)

    def follow(self, role: str, listener: Callable[[Lease], None]) -> Callable[[], None]:
        """Hear the feed's hints about `role`; returns what ends that."""
        return self._watcher.add(role, listener)

    async def read(self, roles: list[str] | None) -> list[Lease]:
        """The rows, retried within the coordinator's timeout."""
        return await self._retried(lambda timeout: self.store.read(roles, timeout))

    async def _retried(self, ask: Callable[[float], Awaitable[T]]) -> T:
        return await retry_until(ask, self._timeout)


# -- Asking the leader of a role, wherever it is, to step down or to hand over (`coord/core/announcements.py`).

SHORTEST = 4
"""Characters of a candidate's id that are enough to name it, where they name only one."""


class AsyncOrders(AsyncLookups):
    """Each posts an order on the board, and the leader carries it out by itself; none of them writes a lease."""

    async def request_step_down(
        self, role: str, *, by: str = "", cooldown: float | None = None
    ) -> Lease:
        """Ask the leader of `role` to step down; the lease of whom was asked. Returns before it has been done.

        by: who asks, for the role's history; at most 200 characters.
        cooldown: seconds for which the leader then does not stand for the role (None: its ttl).
        Raises `NotLeader` when nobody leads, `StoreUnavailable`, or `StoreRefused`.
        """
        by = _asker(by)
        cooldown = None if cooldown is None else validation.number(cooldown, "cooldown", low=0)
        return await self._order(await self._led(role), None, by, cooldown)

    async def request_transfer(self, role: str, to: str, *, by: str = "") -> Lease:
        """Ask the leader of `role` to hand it to a candidate that waits; the lease of whom was asked.

        to: the candidate: its id, the first four or more characters of it, or the `name` in its info.
        Raises what `request_step_down` raises, and `BadArgument` where `to` names nobody that waits, or several.
        """
        by = _asker(by)
        lease = await self._led(role)
        return await self._order(
            lease, (await self.waiting_candidate(role, to)).candidate, by, None
        )

    async def waiting_candidate(self, role: str, to: str) -> Candidate:
        """The one candidate waiting for `role` that `to` names, as in `request_transfer`."""
        validation.name(to, "to", 200, "a candidate: its id, or its name; at most 200 bytes")
        waiting = await self.candidates(role)
        named = [one for one in waiting if one.candidate == to] or [
            one
            for one in waiting
            if one.info.get("name") == to or (len(to) >= SHORTEST and one.candidate.startswith(to))
        ]
        if len(named) != 1:
            there = ", ".join(one.candidate for one in (named or waiting)[:5]) or "nobody"
            how = "names several of those that wait" if named else "waits"
            raise BadArgument("to", to, f"one candidate that waits for {role!r} ({there} {how})")
        return named[0]

    async def _led(self, role: str) -> Lease:
        rows = await self.read([validation.role(role)])
        lease = next((row for row in rows if row.led), None)
        if lease is None:
            raise NotLeader(role, "nobody leads it")
        return lease

    async def _order(self, lease: Lease, to: str | None, by: str, cooldown: float | None) -> Lease:
        key = f"order {new_candidate_id()}"
        notice = HandoverRequest(lease.role, lease.token, to, by, cooldown, key).notice(lease.ttl)
        await self._retried(lambda timeout: self.board.post([notice], timeout))
        return lease


def _asker(by: str) -> str:
    return by and validation.name(by, "by", 200, "who asks: a string of at most 200 bytes")


# -- `AsyncCoordinator`: a connection to a store on the running loop, and everything that can be done with it.

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
        self._timeout = validation.number(timeout, "timeout", low=0, above=True)
        self.store: Store = store if store is not None else urls.open_url(urls.resolve(url))
        self.now = now
        self.trouble = ""
        """What kept the store from answering last, for messages to people; "" when it answered."""
        self._begin()
        process.reset_after_fork(self)
        _living.add(self)

    def _begin(self) -> None:
        self.closing: set[Callable[[], Awaitable[None]]] = set()
        """What is to be done before the store is let go of: heartbeats end, publications are taken back."""
        self._standings: set[Elector] = set()
        self._renewals = RenewalBatcher(self.store.renew, self._heard)
        self._prompting = ImmediateRequests(self._heard)
        bulk = isinstance(self.store, Bulk)
        self._turns = LightSemaphore(MAX_SINGLE_REQUESTS if bulk else CLAIMS_AT_ONCE)
        self._batches = (
            SwapBatcher(functools.partial(send_all, self.store), self._heard) if bulk else None
        )
        self.context = contextvars.copy_context()
        self.known = LeaderCache()
        self._watcher = SharedFeed(lambda: self.store, self.known.forget)
        self._unique = UniqueServices(self)
        self._waiting = CandidateAnnouncer(lambda: self.board)
        self._wishes = RequestListener(lambda: self.board, self._wished)
        self._suspend_watch = SuspendDetector(self._standings, self.now)

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
            longest = max(
                one.tenure.drain_timeout + 2 * one.election.timing.attempt_timeout
                for one in standing_yet
            )
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

    async def unique_service(
        self, role: str, candidate: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """The one service of that role, after claiming or keeping it for `candidate` when one is given.

        `candidate` is a dict with at least `ttl` (seconds); the rest is what others see, and is kept as given. It
        claims a free role, or renews the hold of an earlier call, in one query; call it again within the ttl, for
        instance on each pass of a loop. Either way the answer is the record of who has the role (the fields of its
        candidate with `role`, `ttl`, `holder`, `token`, `last_heartbeat`, and `mine`), or None when nobody has.
        Raises `StoreUnavailable` or `StoreRefused`; then the role may or may not have been had (rule 8).
        """
        return await self._unique.call(validation.role(role), candidate)

    @functools.cached_property
    def services(self) -> AsyncServiceRegistry:
        """The service registry of the table `services`; `AsyncServiceRegistry(coordinator, table)` for another."""
        from coord.services.registry import AsyncServiceRegistry

        return AsyncServiceRegistry(self)

    def records(self, table: str) -> Records:
        """What keeps the service records of that table, for a registry."""
        return urls.make_records(self.store, table)

    # -- what leaderships and lookups need -------------------------------------------------------------------------

    def ask(
        self, operation: Operation, timeout: float, going: Callable[[], None] = lambda: None
    ) -> Awaitable[Result]:
        """Put one operation to the store, bounded by `timeout` seconds. Never raises for a store's trouble.

        It may have to wait for its turn before that, for longer than a ttl; `going` is called when it has come.
        """
        if isinstance(operation, Renew):
            return self._renewals.renew(
                operation, timeout
            )  # no coroutine of its own: ten thousand wait at a time
        if (
            self._batches is not None
            and self._turns.busy
            and (asked := self._batches.add(operation, timeout, going))
        ):
            return asked
        return self._ask_alone(operation, timeout, going)

    async def _ask_alone(
        self, operation: Operation, timeout: float, going: Callable[[], None]
    ) -> Result:
        turn = self._turns.take()
        try:
            if turn is not None:
                await turn
            going()
            result = await send(self.store, operation, timeout)
        finally:
            self._turns.give_back(turn)
        self._heard(result)
        return result

    def _heard(self, result: Result) -> None:
        self.trouble = result.detail if isinstance(result, Failure) else ""

    def begin(self, operation: Operation, timeout: float) -> PendingResult:
        """Put it to the store in this very turn of the loop, to be awaited as `ask` is. None: that cannot be done."""
        return self._prompting.begin(self.store, operation, timeout)

    def list_waiting(
        self, candidate: Candidate, ttl: float, heard: Callable[[int], None]
    ) -> Callable[[], None]:
        """Show it on the board, if there is one; `heard` is told how many wait. Returns what ends that."""
        return self._waiting.add(candidate, ttl, heard)

    def posted(self, role: str) -> list[Announcement]:
        """What was posted loudly about the role, as far as this process has heard."""
        return self._wishes.about(role)

    def heeded(self, role: str, key: str) -> None:
        """The notice `key` was acted upon: it is taken off the board."""
        self._wishes.heeded(role, key)

    def _wished(self, role: str) -> None:
        for standing in tuple(self._standings):
            if standing.election.role == role:
                standing.heed()

    def _stand(self, begin: Callable[[Surroundings], Elector]) -> Elector:
        process.exit_on_sigterm()  # `async with` and the cancelled loop release; SIGTERM alone would skip both
        standing = begin(self)
        self._standings.add(standing)
        self._suspend_watch.begin()
        self._wishes.begin()
        return standing

    def stands_no_more(self, standing: Elector) -> None:
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


# -- `AsyncLookups` for threads.


class Lookups:
    """The questions of `AsyncLookups`, asked on the coordinator's thread."""

    engine: Portal

    @property
    def _asked(self) -> AsyncLookups:
        raise NotImplementedError

    def leader(self, role: str) -> Lease | None:
        """Who leads `role` by the store's clock: holder, token, info, remaining seconds. None for nobody.

        One query; none while the role is being watched (`watch_leader`): then the answer is what the feed last showed.
        """
        known = self._asked.known
        return (
            known.leader(role)
            if known.has(role)
            else self.engine.call(functools.partial(self._asked.leader, role))
        )

    def leaders(self) -> list[Lease]:
        """All the roles that somebody leads, by name."""
        return self.engine.call(self._asked.leaders)

    def history(self, role: str | None = None) -> list[PastTerm]:
        """The last terms of `role` (None: of every role), newest first: who led, when, under which token, why it ended.

        The store keeps some of them for each role (`coord.core.history.KEPT`), written by the swaps that began and ended them.
        """
        return self.engine.call(functools.partial(self._asked.history, role))

    def candidates(self, role: str | None = None) -> list[Candidate]:
        """Who waits for `role` (None: for any role): the highest priority first, then who has waited longest.

        For people: it may be a ttl old, and nothing is decided by it. One query. Raises `NotSetUp` where an older coord
        set up the database.
        """
        return self.engine.call(functools.partial(self._asked.candidates, role))

    def watch_leader(self, role: str) -> Iterator[Lease | None]:
        """Who leads now, then each change, as it happens; None for nobody. Goes on through outages of the store."""
        validation.role(role)
        return self.iterate(lambda: self._asked.watch_leader(role))

    def watch_leaders(self) -> Iterator[LeaderChange]:
        """Each role that somebody leads now, then each change of any role's leader, as it happens; through outages.

        Roles that appear later are among them. A change has the fields `role` and `leader`, which is None for nobody.
        """
        return self.iterate(self._asked.watch_leaders)

    def iterate(self, begin: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
        """What an async iterator of this coordinator brings, for the calling thread; ends when this is closed."""
        brought: queue.SimpleQueue[tuple[T] | BaseException] = queue.SimpleQueue()

        async def pump() -> None:
            try:
                async for item in begin():
                    brought.put((item,))
            except BaseException as err:
                brought.put(err)
                raise
            brought.put(StopIteration())

        task = asyncio.run_coroutine_threadsafe(pump(), self.engine.loop())
        try:
            while True:
                item = brought.get()
                if isinstance(item, (StopIteration, asyncio.CancelledError)):
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item[0]
        finally:
            task.cancel()


# -- `AsyncOrders` for threads.


class Orders(Lookups):
    """Asking the leader of a role to give way, on the coordinator's thread."""

    @property
    def _asked(self) -> AsyncOrders:
        raise NotImplementedError

    def request_step_down(self, role: str, *, by: str = "", cooldown: float | None = None) -> Lease:
        """Ask the leader of `role` to step down; the lease of whom was asked. Returns before it has been done.

        by: who asks, for the role's history; at most 200 bytes.
        cooldown: seconds for which the leader then does not stand for the role (None: its ttl).
        Raises `NotLeader` when nobody leads, `StoreUnavailable`, or `StoreRefused`.
        """
        return self.engine.call(
            functools.partial(self._asked.request_step_down, role, by=by, cooldown=cooldown)
        )

    def request_transfer(self, role: str, to: str, *, by: str = "") -> Lease:
        """Ask the leader of `role` to hand it to a candidate that waits; the lease of whom was asked.

        to: the candidate: its id, the first four or more characters of it, or the `name` in its info.
        Raises what `request_step_down` raises, and `BadArgument` where `to` names nobody that waits, or several.
        """
        return self.engine.call(functools.partial(self._asked.request_transfer, role, to, by=by))


# -- `Coordinator`: a store and everything that can be done with it, for threaded programs.

EXIT_DRAIN = 5.0
"""Seconds that the end of a process waits for work to end; what does not end keeps its lease until it runs out."""


class Coordinator(Orders):
    """Everything about roles on one store, from plain threads. One background thread, whatever the number of roles.

    Takes what `AsyncCoordinator` takes. Makes no connection until something is asked; `coord.connect` checks at once.
    """

    def __init__(
        self, url: str | None = None, *, timeout: float = 5.0, store: Store | None = None
    ) -> None:
        self.inner = AsyncCoordinator(url, timeout=timeout, store=store)
        self.engine = Portal("coord")
        self.closing: set[Heartbeat] = set()
        """What ends before the store is let go of."""
        self._shared: dict[str, Leadership] = {}
        self._lock = threading.Lock()
        process.reset_after_fork(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    @property
    def _asked(self) -> AsyncCoordinator:
        return self.inner

    @property
    def url(self) -> str:
        """Where it is, without secrets."""
        return self.inner.url

    def __enter__(self) -> Coordinator:
        self.check()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def check(self, timeout: float | None = None) -> None:
        """See that the store can be reached and used. Raises `StoreUnavailable`, `NotSetUp` or `AccessDenied`."""
        self.engine.call(functools.partial(self.inner.check, timeout))

    def close(self) -> None:
        """Stop every leadership (drain, release) and heartbeat, then let go of the store and of the thread."""
        heartbeats = tuple(self.closing)
        for one in heartbeats:
            one.halt()
        for one in heartbeats:
            one.join()
        if heartbeats:
            self.engine.call(lambda: _together(one.farewell() for one in heartbeats))
        with self._lock:
            self._shared.clear()
        if self.engine.running:
            self.engine.call(self.inner.close)
            self.engine.stop()
        process.cancel_close_at_exit(self)

    def leave(self) -> None:
        """What the end of the process does: `close`, but in a few seconds, and raising nothing."""
        for standing in tuple(self.inner._standings):
            standing.tenure.drain_timeout = min(standing.tenure.drain_timeout, EXIT_DRAIN)
        with contextlib.suppress(Exception):
            self.close()

    def leadership(self, role: str, **settings: Any) -> Leadership:
        """A candidate for `role`, not started. The settings are `AsyncLeadership`'s."""
        return Leadership(self, validation.role(role), **settings)

    def shared_leadership(self, role: str, ttl: float) -> Leadership:
        """The one candidate by which this whole process stands for `role` (`@leader_only`), started or not."""
        with self._lock:
            lead = self._shared.get(role)
            if lead is None:
                lead = self._shared[role] = self.leadership(role, ttl=ttl)
        if lead.timing.ttl != ttl:
            raise BadArgument(
                "ttl",
                ttl,
                f"this process already stands for {role!r} with a ttl of {lead.timing.ttl:g} s",
            )
        return lead

    def unique_service(
        self, role: str, candidate: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """The one service of that role, after claiming or keeping it for `candidate` when one is given.

        `candidate` is a dict with at least `ttl` (seconds); the rest is what others see, and is kept as given. It
        claims a free role, or renews the hold of an earlier call, in one query; call it again within the ttl, for
        instance on each pass of a loop. Either way the answer is the record of who has the role (the fields of its
        candidate with `role`, `ttl`, `holder`, `token`, `last_heartbeat`, and `mine`), or None when nobody has.
        Raises `StoreUnavailable` or `StoreRefused`; then the role may or may not have been had (rule 8).
        """
        if candidate is not None:
            process.close_at_exit(self)
        return self.engine.call(functools.partial(self.inner.unique_service, role, candidate))

    @functools.cached_property
    def services(self) -> ServiceRegistry:
        """The service registry of the table `services`; `ServiceRegistry(coordinator, table)` for another."""
        from coord.services.registry import ServiceRegistry

        return ServiceRegistry(self)

    def after_fork(self) -> None:
        """In a forked child: the thread is not here, and nothing is ours (rule 9)."""
        self.engine = Portal("coord")
        self.closing = set()
        self._shared = {}
        self._lock = threading.Lock()


async def _together(steps: Iterable[Awaitable[None]]) -> None:
    await asyncio.gather(*steps)


class _Default:
    def __init__(self) -> None:
        self.coordinator: Coordinator | None = None
        self.lock = threading.Lock()
        process.reset_after_fork(self)

    def after_fork(self) -> None:
        self.lock = threading.Lock()


_default = _Default()


def default() -> Coordinator:
    """The coordinator of this process for `COORD_URL`, else the embedded SQLite file; made when first asked for."""
    with _default.lock:
        if _default.coordinator is None:
            _default.coordinator = Coordinator()
            log.debug("coordinator.default", url=_default.coordinator.url)
        return _default.coordinator


def resolve_url(url: str | None = None) -> str:
    """The full URL, secrets included: what a child process must be given to reach the same store."""
    return urls.resolve(url)
