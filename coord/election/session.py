"""A session: one store on one event loop, and everything that the elections on it share."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any, Protocol, TypeVar

from coord.core import validation
from coord.core.announcements import Announcement, Candidate, Handover, by_priority
from coord.core.kept import Kept
from coord.core.lease import Lease
from coord.core.operations import Failure, Operation, Renew, Result
from coord.core.sharing import is_agreement, with_agreements
from coord.core.timing import Instant
from coord.election.announcements import CandidateAnnouncer, RequestListener
from coord.election.observations import Observations
from coord.election.observe import LeaderCache
from coord.election.suspend import SuspendDetector
from coord.election.turns import Turns
from coord.errors import BadArgument, CoordError, CoordinatorClosed
from coord.runtime import clock, process
from coord.runtime.retry import retry_until
from coord.runtime.threads import Latch, items_until, require_real_threads
from coord.runtime.timers import LightSemaphore, SharedTimer
from coord.stores import requests
from coord.stores.batching import MAX_SINGLE_REQUESTS, RenewalBatcher, SwapBatcher
from coord.stores.feeds import SharedFeed
from coord.stores.protocol import Announcements, Bulk, Records, Store
from coord.stores.requests import (
    ImmediateRequests,
    PendingResult,
    announcements_of,
    kept_of,
    records_of,
)

T = TypeVar("T")

MAX_CONCURRENT_CLAIMS = 128
"""Limits claims in flight on a store without batches: with more, each would wait in the store until
its own deadline had passed."""
WAITING_TIMEOUT = 1.0
"""Seconds that the question may take whether another candidate waits."""
MIN_ID_PREFIX = 4
"""Characters of a candidate's id that are enough to name it, if they name only one candidate."""


class Member(Protocol):
    """What a session knows about a candidate that runs on it."""

    @property
    def task(self) -> asyncio.Future[None]:
        """Done when the candidate is done, or no member of the session any more."""

    @property
    def role(self) -> str:
        """The role that it is a candidate for."""

    @property
    def stop_timeout(self) -> float:
        """Seconds that it may take from `stop` until it is done."""

    def wake(self) -> None:
        """Look at the clock again: the machine was suspended."""

    def check_requests(self) -> None:
        """Look at the announcements for the role again: one has arrived."""

    def stop(self) -> None:
        """Resign, and be done when the work of the term has ended."""

    def is_calling(self) -> bool:
        """Whether the calling code is a callback or a job of this candidate."""

    def after_fork(self) -> None:
        """In a forked child: nothing of this candidate belongs to this process."""


class HasSession(Protocol):
    """An object that elections can run on, such as a coordinator."""

    @property
    def session(self) -> Session:
        """The session that its elections share."""


class Session:
    """One store on one event loop, and what all elections on it share: requests, feeds,
    announcements, clocks.

    It makes no connection before the first request. It knows its members only by the `Member`
    protocol.

    Attributes:
        store: The store that requests go to.
        now: Reads the clocks.
        timeout: Seconds that a lookup may take, retries included.
        last_error: Why the last request failed, for messages to people; "" when the store answered
            it.
        leaders: What the feed last showed of the leaders that somebody watches.
        observations: What the candidates that have ended had observed.
        turns: The roles that candidates have just given back.
        members: The candidates that run on this session.
        on_close: Called before the members stop: heartbeats end, published leaders are withdrawn.
        context: Timers run in this context. Otherwise each of thousands of timers would copy its
            own.
        timer: Wakes the candidates that sleep.
        closing: Set when somebody begins to close the session.
        closed: Set when the session has been closed.
    """

    def __init__(
        self,
        store: Store,
        *,
        timeout: float = 5.0,
        now: Callable[[], Instant] = clock.system_now,
    ) -> None:
        require_real_threads()
        self.store = store
        self.timeout = validation.number(timeout, "timeout", low=0, above=True)
        self.now = now
        self.closed = Latch()
        self.closing = Latch()
        self._start()
        process.reset_after_fork(self)
        _sessions.add(self)

    def _start(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._close_task: asyncio.Task[None] | None = None
        self.last_error = ""
        self._identity = process.identity()
        self.leaders = LeaderCache()
        self.observations = Observations(self.store.url, lambda: self.now is clock.system_now)
        self.members: dict[Member, None] = {}  # in the order in which they joined
        self._by_role: dict[str, tuple[Member, ...]] = {}
        self.on_close: set[Callable[[], Awaitable[None]]] = set()
        self.context = contextvars.copy_context()
        self.timer = SharedTimer(self.context)
        self._renewals = RenewalBatcher(self.store.renew, self._on_result)
        self._immediate = ImmediateRequests(self._on_result)
        bulk = isinstance(self.store, Bulk)
        self._semaphore = LightSemaphore(MAX_SINGLE_REQUESTS if bulk else MAX_CONCURRENT_CLAIMS)
        self._batches = (
            SwapBatcher(functools.partial(requests.send_all, self.store), self._on_result)
            if bulk
            else None
        )
        self._feed = SharedFeed(lambda: self.store, self.leaders.invalidate)
        self._announcer = CandidateAnnouncer(lambda: self.announcements)
        self._requests = RequestListener(
            lambda: self.announcements, self._by_role.keys(), self._request_arrived
        )
        self.turns = Turns(self.store, lambda: self.now(), self._others_wait)  # noqa: PLW0108 # tests replace `now` later
        self._suspends = SuspendDetector(self.members, lambda: self.now())  # noqa: PLW0108 # tests replace `now` later
        self.__dict__.pop("announcements", None)  # the child of a fork makes its own

    def check_open(self, purpose: str, role: str = "") -> None:
        """Check that nobody has closed the session. From any thread, also without an event loop.

        Args:
            purpose: What the caller is about to do, for the message: "cannot PURPOSE: …".
            role: The role that follows the purpose in the message, if there is one.

        Raises:
            CoordinatorClosed: It was closed.
        """
        if self.closing:
            purpose = f"{purpose} {role!r}" if role else purpose
            raise CoordinatorClosed(
                f"cannot {purpose}: the coordinator of {self.store.url} is closed; create a new one"
            )

    def check_usable(self, purpose: str, role: str = "") -> None:
        """Check that the session is open and belongs to the running event loop.

        Args:
            purpose: What the caller is about to do, for the message: "cannot PURPOSE: …".
            role: The role that follows the purpose in the message, if there is one.

        Raises:
            CoordinatorClosed: It was closed, or it belongs to another event loop.
        """
        loop = asyncio.get_running_loop()
        if loop is self._loop and not self.closing:
            return  # each call of `unique_service` comes here
        self.check_open(purpose, role)
        purpose = f"{purpose} {role!r}" if role else purpose
        if self._loop is None:
            self._loop = loop
        else:
            state = "has ended" if self._loop.is_closed() else "is another one"
            raise CoordinatorClosed(
                f"cannot {purpose}: the coordinator of {self.store.url} belongs to the event loop "
                f"in which it was first used, which {state}; create an AsyncCoordinator in each "
                "event loop (asyncio.run)"
            )

    @property
    def max_clock_skew(self) -> float | None:
        """Seconds that the store's clock may be off; None: leases never run out by the store's
        clock."""
        return self.store.max_clock_skew

    @property
    def last_tick(self) -> float | None:
        """When the loop turned last, on the awake clock, to half a second; None while there are no
        members."""
        return self._suspends.last_tick

    @functools.cached_property
    def announcements(self) -> Announcements:
        """The store's announcements.

        Raises:
            BadArgument: The store keeps no announcements.
        """
        return announcements_of(self.store)

    def records(self, table: str) -> Records:
        """Return the service records in `table` of the store.

        Raises:
            BadArgument: The store keeps no service records.
        """
        return records_of(self.store, table)

    def described(self, info: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return `info` with the host and the process id, unless it has them. Candidates without
        an info share one mapping."""
        return {**self._identity, **info} if info else self._identity

    async def open(self, timeout: float | None = None) -> None:
        """Check that the store can be reached and used.

        Args:
            timeout: Seconds to wait; None means the timeout of the session.

        Raises:
            StoreUnavailable: The store did not answer in time.
            StoreRefused: The store is not set up (`NotSetUp`) or denies access (`AccessDenied`).
            CoordinatorClosed: The session is closed, as for every other request.
        """
        self.check_usable("check the store")
        try:
            await self.store.open(self.timeout if timeout is None else timeout)
        except CoordError:
            if self.closing:
                self.check_usable("check the store")
            raise

    def submit(
        self, operation: Operation, timeout: float, on_sent: Callable[[], None] = lambda: None
    ) -> Awaitable[Result]:
        """Send one operation to the store. It never raises: what a store raises becomes a
        `Failure`.

        Args:
            operation: What the store is to do.
            timeout: Seconds that the store may take once the operation was sent.
            on_sent: Called when the operation is sent. It may have waited in turn for longer than a
                ttl before.
        """
        if isinstance(operation, Renew) and operation.keep is None:
            # No coroutine of its own: ten thousand renewals wait at a time.
            return self._renewals.renew(operation, timeout)
        # A renewal with a text to keep goes alone: somebody waits for it, and the others in a batch
        # would wait for the disk.
        if self._batches is not None and self._semaphore.locked:
            queued = self._batches.add(operation, timeout, on_sent)
            if queued is not None:
                return queued
        return self._submit_alone(operation, timeout, on_sent)

    def submit_call(
        self, operation: Operation, timeout: float, on_sent: Callable[[], None]
    ) -> Awaitable[Result]:
        """Send one operation for a caller that awaits its result at once. It is as `submit`, but a
        renewal does not wait for others while none is under way."""
        if isinstance(operation, Renew) and operation.keep is None and self._renewals.idle:
            return self._renewals.renew_alone(operation, timeout)
        return self.submit(operation, timeout, on_sent)

    async def _submit_alone(
        self, operation: Operation, timeout: float, on_sent: Callable[[], None]
    ) -> Result:
        turn = self._semaphore.acquire()
        try:
            if turn is not None:
                await turn
            on_sent()
            result = await requests.send(self.store, operation, timeout)
        finally:
            self._semaphore.release(turn)
        self._on_result(result)
        return result

    def _on_result(self, result: Result) -> None:
        self.last_error = result.detail if isinstance(result, Failure) else ""

    def send_now(self, operation: Operation, timeout: float) -> PendingResult:
        """Send one operation in this very iteration of the loop, and return what to await for its
        result.

        Returns:
            None if the store cannot do that, or too many such requests are under way.
        """
        return self._immediate.send(self.store, operation, timeout)

    async def read(self, roles: Collection[str] | None) -> list[Lease]:
        """Return the leases of `roles` (None: of all roles), retried within the timeout of the
        session.

        Raises:
            StoreUnavailable: The store did not answer in time.
            StoreRefused: The store will go on refusing.
        """
        self.check_usable("read leases")
        names = None if roles is None else list(roles)
        return await self.retry(lambda timeout: self.store.read(names, timeout))

    async def kept(self, role: str) -> Kept:
        """Return the text that `role` keeps, retried within the timeout of the session.

        Raises:
            BadArgument: The store keeps no texts.
            StoreUnavailable: The store did not answer in time.
            StoreRefused: The store will go on refusing.
        """
        self.check_usable(f"read what {role!r} keeps")
        store = kept_of(self.store)
        return await self.retry(lambda timeout: store.kept(role, timeout))

    async def held(self, role: str) -> tuple[Lease, float] | None:
        """Return the lease of `role`, and for how many seconds at most it keeps others from the
        role unless it is renewed; None if nobody holds the role.

        Raises:
            StoreUnavailable: The store did not answer in time.
            StoreRefused: The store will go on refusing.
        """
        rows = await self.read([validation.role(role)])
        lease = next((row for row in rows if not row.vacant), None)
        if lease is None:
            return None
        now, observation, skew = self.now(), self.observations.get(role), self.max_clock_skew
        seconds = lease.ttl
        if observation is not None and observation.revision == lease.revision:
            seconds += observation.since - now.awake
        if skew is not None:
            seconds = min(seconds, lease.remaining + skew)
        return lease, max(0.0, seconds)

    async def leader(self, role: str) -> Lease | None:
        """Return the lease of the leader of `role`, from the feed if somebody watches it; None if
        nobody leads.

        Raises:
            StoreUnavailable: The store did not answer in time.
            StoreRefused: The store will go on refusing.
        """
        self.check_usable(f"look up the leader of {role!r}")
        now = time.monotonic()
        observed = self.leaders.known(role, now) if isinstance(role, str) else None
        if observed is not None:
            return observed.leader(now)
        rows = await self.read([validation.role(role)])
        for row in rows:
            self.leaders.refresh(row)
        return next((row for row in rows if row.led and not is_agreement(row)), None)

    async def retry(self, ask: Callable[[float], Awaitable[T]]) -> T:
        """Return what `ask(seconds left)` returns, retried within the timeout of the session.

        Raises:
            StoreUnavailable: Every try raised it, until the time was over.
            CoordinatorClosed: The session was closed before, or meanwhile.
        """

        async def attempt(timeout: float) -> T:
            if self.closed:  # a store that was closed would connect again, and nobody closes it
                self.check_usable("use the store")
            return await ask(timeout)

        try:
            return await retry_until(attempt, self.timeout)
        except CoordError:
            if self.closed:
                self.check_usable("use the store")
            raise

    def until_closed(self, items: AsyncIterator[T]) -> AsyncIterator[T]:
        """Yield what `items` yields, until the session is closed."""
        return items_until(self.closing, items)

    def subscribe(self, role: str, listener: Callable[[Lease], None]) -> Callable[[], None]:
        """Call `listener` with each row of `role` that the feed shows. Returns a function that
        unsubscribes."""
        return self._feed.subscribe(role, listener)

    def subscribe_candidate(
        self, role: str, listener: Callable[[Lease, int], bool]
    ) -> Callable[[], None]:
        """Call `listener` with each row of `role` that the feed shows, in turn with the other
        candidates of this session (`CandidateListener`). Returns a function that unsubscribes."""
        return self._feed.subscribe_candidate(role, listener)

    def announce(
        self, candidate: Candidate, ttl: float, on_count: Callable[[int], None]
    ) -> Callable[[], None]:
        """Announce a candidate that waits, if the store keeps announcements.

        Args:
            candidate: The candidate.
            ttl: The ttl of its lease, in seconds.
            on_count: Called with the number of candidates that wait for the role.

        Returns:
            A function that withdraws the announcement.
        """
        return self._announcer.add(candidate, ttl, on_count)

    def requests_for(self, role: str) -> list[Announcement]:
        """Return the urgent announcements for `role` that this process has heard of."""
        return self._requests.pending(role)

    def gave_way(self, role: str, handover: Handover) -> None:
        """Note that a leader of this session carries out `handover`, so that the next one does not
        do it again: a request is withdrawn, a preferred candidate counts when it announces itself
        again. It may have died."""
        if handover.withdrawn:
            self._requests.done(role, handover.key)
        elif handover.key == "" and handover.to is not None:
            self._requests.forget_candidate(role, handover.to)

    def _request_arrived(self, role: str) -> None:
        for member in self._by_role.get(role, ()):
            member.check_requests()

    async def candidates(self, role: str | None) -> list[Candidate]:
        """Return the candidates that wait for `role` or one of its slots (None: for any role), by
        priority and waiting time."""
        roles = None if role is None else with_agreements(role)
        rows = await self.retry(lambda timeout: self.announcements.read(roles, timeout))
        return by_priority(rows)

    async def find_candidate(self, role: str, name: str) -> Candidate:
        """Return the one candidate waiting for `role` that `name` names.

        Args:
            role: The role that it waits for.
            name: Its id, the first four or more characters of its id, or the `name` or `id` in its
                info.

        Raises:
            BadArgument: No candidate has that name, or several have it.
        """
        validation.candidate_name(name)
        waiting = [item for item in await self.candidates(role) if item.role == role]  # no slots
        named = [candidate for candidate in waiting if candidate.id == name] or [
            candidate
            for candidate in waiting
            if name in (candidate.info.get("name"), candidate.info.get("id"))
            or (len(name) >= MIN_ID_PREFIX and candidate.id.startswith(name))
        ]
        if len(named) != 1:
            ids = ", ".join(candidate.id for candidate in (named or waiting)[:5])
            matches = f"it names several: {ids}" if named else f"waiting now: {ids or 'nobody'}"
            raise BadArgument(
                "to", name, f"must name one candidate that waits for {role!r} ({matches})"
            )
        return named[0]

    async def _others_wait(self, role: str) -> bool:
        """Return whether another candidate waits for `role`, in this session or announced."""
        if len(self._by_role.get(role, ())) > 1:
            return True
        rows = await self.announcements.read([role], WAITING_TIMEOUT)
        return any(Candidate.of(row) and not self._announcer.knows(row.key) for row in rows)

    def join(self, member: Member) -> None:
        """Count `member` among the candidates of this session until `leave`.

        The caller has checked before that the session is usable.
        """
        # `async with` and a cancelled loop release leases; SIGTERM alone would skip both.
        if not self.members:
            process.exit_on_signals()
        self.members[member] = None
        # Most roles have one member here, and a tuple takes a fifth of the memory of a set.
        others = self._by_role.get(member.role, ())
        if member not in others:
            self._by_role[member.role] = (*others, member)
        self._suspends.start()
        self._requests.start()

    def leave(self, member: Member) -> None:
        """The candidate `member` is done."""
        self.members.pop(member, None)
        others = tuple(other for other in self._by_role.get(member.role, ()) if other is not member)
        if others:
            self._by_role[member.role] = others
        else:
            self._by_role.pop(member.role, None)
            self._requests.forget(member.role)
        if not self.members:
            self._requests.stop()

    async def _stop_members(self) -> None:
        """End heartbeats and publications, then stop every candidate and wait until its work has
        ended."""
        await asyncio.gather(*(close() for close in tuple(self.on_close)))
        running = [member for member in self.members if not member.task.done()]
        for member in running:
            member.stop()
        if running:
            longest = max(member.stop_timeout for member in running)
            await asyncio.wait({member.task for member in running}, timeout=longest)

    async def close(self) -> None:
        """Stop every candidate, then close the feeds and the store.

        Several callers may close it at the same time: each waits until it is closed. Only a
        callback or a job of a candidate of this session does not wait, because the end of that
        candidate waits for it.

        Raises:
            CoordinatorClosed: It belongs to another event loop, which is running.
        """
        if self.closed:
            return
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            await self._close_elsewhere(self._loop)
            return
        self._loop = loop
        self.closing.set()
        if self._close_task is None or self._close_task.done():
            self._close_task = loop.create_task(self._close(), name="coord close")
        if not any(member.is_calling() for member in self.members):
            await asyncio.shield(self._close_task)

    async def _close(self) -> None:
        try:
            await self._stop_members()
            await asyncio.gather(self._announcer.close(), self._requests.close())
            self._suspends.stop()
            await self.observations.save()
            await self._feed.close()
        finally:
            try:
                await self.store.close()
            finally:
                self.closed.set()

    def mark_closed(self) -> None:
        """Refuse later use. For a session that no event loop has used, which has nothing open."""
        self.closing.set()
        self.closed.set()

    async def _close_elsewhere(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close the store of a session whose event loop has ended, and its tasks with it."""
        if not loop.is_closed():
            raise CoordinatorClosed(
                f"cannot close the coordinator of {self.store.url} here: it belongs to another "
                "event loop, which is running; close it there"
            )
        self.closing.set()
        try:
            await self.store.close()
        except RuntimeError:  # a connection that belongs to the loop that has ended
            self.store.abandon()
        self.closed.set()

    def after_fork(self) -> None:
        """In a forked child: nothing of this belongs to it (rule 9)."""
        for member in self.members:
            member.after_fork()
        self.store.abandon()
        if self.closing:
            self.closed.set()
        self._start()


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def sessions() -> list[Session]:
    """Return every session of this process, from any thread."""
    while True:
        try:
            return list(_sessions)
        except RuntimeError:  # another thread made a session meanwhile
            continue
