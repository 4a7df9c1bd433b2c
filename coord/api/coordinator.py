"""`AsyncCoordinator`: a store on an event loop, and everything that can be done with the roles on
it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from coord.api.groups import AsyncGroups
from coord.api.leadership import AsyncLeadership
from coord.api.operators import AsyncOperators
from coord.core import validation
from coord.core.announcements import Candidate
from coord.core.history import PastTerm
from coord.core.kept import MAX_KEEP, Values, copy_notes
from coord.core.lease import Lease
from coord.core.sharing import is_agreement
from coord.core.timing import Instant
from coord.election.callbacks import OnElected, OnInfo, OnLost, OnNewLeader
from coord.election.observe import LeaderChange, watch_leader, watch_leaders
from coord.election.session import Session
from coord.election.unique_service import UniqueServices
from coord.errors import BadArgument
from coord.runtime import clock
from coord.runtime.facade import PublicDir
from coord.stores import urls
from coord.stores.protocol import Store

if TYPE_CHECKING:
    from coord.api.once import Once
    from coord.core.ticks import Tick
    from coord.services.registry import AsyncServiceRegistry
    from coord.stores.protocol import Announcements


def _check_store(store: object) -> None:
    if not isinstance(store, Store):
        allowed = "must be an object with the methods of coord.stores.protocol.Store, or None"
        raise BadArgument("store", store, allowed)


class AsyncCoordinator(
    AsyncGroups, AsyncOperators, PublicDir, internal=("session", "unique_services")
):
    """A store on the running event loop: leaderships, lookups and requests. It connects when it is
    first used.

    Args:
        url: `sqlite:///absolute/path`,
            `rethinkdb://[user[:password]@]host[:port][,host…]/database`, `memory://`, or the URL of
            another backend. None means the environment variable `COORD_URL`, and without that a
            SQLite file in the state directory of the user.
        timeout: Seconds that a lookup may take, retries included, before it raises
            `StoreUnavailable`.
        store: A store to use instead of a URL (`coord.stores.protocol.Store`).
        now: Reads the clocks; for tests.

    Raises:
        BadArgument: The URL is invalid, or the timeout is not a positive number.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout: float = 5.0,
        store: Store | None = None,
        now: Callable[[], Instant] = clock.system_now,
    ) -> None:
        validation.number(timeout, "timeout", low=0, above=True)
        if store is None:
            store = urls.open_url(urls.resolve(url))
        else:
            _check_store(store)
        self.session = Session(store, timeout=timeout, now=now)
        self.unique_services = UniqueServices(self.session)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    @property
    def url(self) -> str:
        """The URL of the store, without secrets."""
        return self.session.store.url

    @property
    def store(self) -> Store:
        """The store that keeps the leases."""
        return self.session.store

    @property
    def announcements(self) -> Announcements:
        """The announcements beside the leases. They never decide who leads.

        Raises:
            BadArgument: The store keeps no announcements.
        """
        return self.session.announcements

    async def __aenter__(self) -> AsyncCoordinator:
        await self.check()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def check(self, timeout: float | None = None) -> None:
        """Check that the store can be reached and used.

        Args:
            timeout: Seconds to wait; None means the timeout of the coordinator.

        Raises:
            StoreUnavailable: The store did not answer in time.
            NotSetUp: The store needs `coord init` first.
            AccessDenied: The store refuses this user.
        """
        await self.session.open(validation.timeout(timeout))

    async def close(self) -> None:
        """Stop every leadership (drain, then release) and every heartbeat, then close the store.

        A closed coordinator stays closed: every call but this one raises `CoordinatorClosed`, also
        those that only return an object, such as `leadership`. `url` and `store` still say what
        it used. Called in a callback or a job of a leadership, it returns before that, because it
        would wait for itself.
        """
        await self.session.close()

    async def unique_service(
        self, role: str, candidate: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Claim or renew `role` for `candidate`, and return the record of the current holder.

        A call with a candidate claims a free role, or renews the claim of an earlier call, in one
        query. Call it again within every ttl, for instance on each pass of a loop. The candidate
        obeys requests to step down in its next call. `release` gives the role back.

        Args:
            role: The role.
            candidate: A dict with at least `ttl`, in seconds. A candidate is who its `id` says;
                without an `id`, who all its other fields say. The fields are what others see. Their
                values must be JSON. With an `id` they may change from call to call. None means:
                only look up the holder.

        Returns:
            The fields of the holder's candidate with `id` (the role, if the candidate has none),
            `role`, `ttl`, `host`, `pid`, `first_heartbeat`, `last_heartbeat`, `holder` (a random id
            of the candidate in this process), `token`, and `mine` (whether the candidate of this
            call is the leader). None if nobody holds the role, and the candidate cannot get it now.
            If an operator paused the role, a candidate gets a record without `id` and `holder`, in
            which `paused` says who did that (True if it is not known).

        Raises:
            BadArgument: The role or the candidate is invalid.
            StoreUnavailable: The store did not answer. The claim may or may not have succeeded
                (rule 8).
            StoreRefused: The store will go on refusing.
        """
        self.session.check_usable("claim the role", role)
        return (await self.unique_services.call(role, candidate)).record

    async def release(self, role: str, candidate: Mapping[str, Any] | None = None) -> bool:
        """Give `role` back, if a candidate of `unique_service` in this coordinator holds it.

        Other candidates can get the role at once. Leaderships are not affected.

        Args:
            role: The role.
            candidate: The candidate that gives the role back. None means every candidate that
                `unique_service` was called with for this role.

        Returns:
            Whether one of these candidates was the leader.

        Raises:
            BadArgument: The role or the candidate is invalid.
            StoreUnavailable: The store did not answer within the timeout of the coordinator. The
                lease may run until its ttl is over.
            StoreRefused: The store refuses the request.
        """
        self.session.check_usable("release the role", role)
        return await self.unique_services.release(role, candidate)

    @contextlib.asynccontextmanager
    async def releasing(
        self, role: str, candidate: Mapping[str, Any] | None = None
    ) -> AsyncIterator[None]:
        """Return a context manager that calls `release(role, candidate)` at the end of its block.

        Args:
            role: The role.
            candidate: See `release`.

        Raises:
            BadArgument: The role is invalid.
        """
        validation.role(role)
        self.session.check_open("claim the role", role)
        try:
            yield
        finally:
            await self.release(role, candidate)

    def leadership(
        self,
        role: str,
        *,
        ttl: float = 30.0,
        renew_every: float | None = None,
        attempt_timeout: float | None = None,
        margin: float | None = None,
        info: Mapping[str, Any] | None = None,
        on_elected: OnElected = None,
        on_lost: OnLost = None,
        on_new_leader: OnNewLeader = None,
        on_info: OnInfo = None,
        drain_timeout: float | None = None,
        at_most: float | None = None,
        token_floor: int = 0,
        priority: int = 0,
        min_tenure: float | None = None,
    ) -> AsyncLeadership:
        """Return a candidate for `role`, not started. `AsyncLeadership` explains the settings.

        Raises:
            BadArgument: The role or a setting is invalid.
            CoordinatorClosed: The coordinator was closed.
        """
        return AsyncLeadership(
            self,
            role,
            ttl=ttl,
            renew_every=renew_every,
            attempt_timeout=attempt_timeout,
            margin=margin,
            info=info,
            on_elected=on_elected,
            on_lost=on_lost,
            on_new_leader=on_new_leader,
            on_info=on_info,
            drain_timeout=drain_timeout,
            at_most=at_most,
            token_floor=token_floor,
            priority=priority,
            min_tenure=min_tenure,
        )

    async def leader(self, role: str) -> Lease | None:
        """Return the lease of the leader of `role`, judged by the store's clock.

        It takes one query, or none while `watch_leader` watches the role: then it answers from the
        feed.

        Returns:
            The lease (holder, token, info, remaining seconds), or None if nobody leads.

        Raises:
            StoreUnavailable: The store did not answer within the timeout of the coordinator.
            StoreRefused: The store will go on refusing.
        """
        return await self.session.leader(role)

    async def leaders(self) -> list[Lease]:
        """Return the leases of all roles that have a leader, sorted by role.

        Raises:
            StoreUnavailable: The store did not answer within the timeout of the coordinator.
            StoreRefused: The store will go on refusing.
        """
        rows = await self.session.read(None)
        led = (row for row in rows if row.led and not is_agreement(row))
        return sorted(led, key=lambda row: row.role)

    async def history(self, role: str | None = None) -> list[PastTerm]:
        """Return the last terms of `role`, newest first: who led, when, under which token, why it
        ended.

        The store keeps the last ten or so terms of each role (`coord.core.history.MAX_TERMS`).

        Args:
            role: The role; None means every role.

        Raises:
            StoreUnavailable: The store did not answer within the timeout of the coordinator.
            StoreRefused: The store will go on refusing.
        """
        roles = None if role is None else [validation.role(role)]
        self.session.check_usable("read the history")
        terms = await self.session.retry(lambda timeout: self.store.past(roles, timeout))
        shown = (term for term in terms if not is_agreement(term))
        return sorted(shown, key=lambda term: (term.role, -term.token))

    async def notes(self, role: str) -> dict[str, Any]:
        """Return the notes of `role`: what the holders of its terms wrote with `Term.note`.

        They outlive the terms: it does not matter whether somebody leads.

        Args:
            role: The role.

        Raises:
            BadArgument: The role is invalid, or the store keeps no notes.
            StoreUnavailable: The store did not answer within the timeout of the coordinator.
            StoreRefused: The store will go on refusing, or somebody has damaged the notes.
        """
        kept = await self.session.kept(validation.role(role))
        return copy_notes(Values.decode(role, kept.text).notes)

    async def once(
        self,
        job: str,
        tick: Tick,
        function: Callable[..., Any],
        /,
        *args: Any,
        ttl: float = 30.0,
        retry: bool = True,
        within: float | None = None,
        keep: int = MAX_KEEP,
        timeout: float | None = None,
    ) -> Once:
        """Call `function(*args)` unless it was run for this tick of the job before, by anybody.

        Several machines call this for the same tick, at about the same time or much later: one of
        them runs the function, and all get its result. Runs of one job never overlap.

        A run that raises, and one whose process dies or whose result cannot be recorded, is not
        recorded: the next call for the tick runs it again. It may have had its effect. Send
        `coord.current_term().token` with each write (`coord.fencing`) where that matters.

        Args:
            job: The role of the job: a string of 1 to 120 bytes.
            tick: The name of the run: an int, a datetime with a time zone, or an ISO text, which is
                in UTC if it names no offset. All ticks of a job are ints, or all are times.
                `coord.tick(every=3600)` names the nearest full hour.
            function: A function, plain or async. A plain one blocks the event loop; the sync twin
                takes plain ones only. What it returns is kept: JSON of at most 4,096 bytes.
            *args: Its arguments.
            ttl: Lease duration in seconds. If a run crashes, another caller waits at most this
                long.
            retry: Whether a run that began and was not recorded is repeated. False records the
                begin first, and never runs a tick twice.
            within: Seconds after the tick within which a call may run it; None means no limit.
            keep: Number of the latest ticks that the job keeps, 1 to 64. Earlier ones are never run
                again.
            timeout: Seconds to wait while another tick of the job runs; None means no limit.

        Returns:
            The result, and whether this call ran the function.

        Raises:
            BadArgument: An argument or the result is invalid, or the store keeps no ticks.
            TickTooOld: The tick is no longer kept, or it is later than `within` allows.
            TickUnfinished: With `retry=False`: a run of the tick has begun and has not ended.
            AcquireTimeout: Another tick of the job runs after `timeout` seconds.
            LeadershipLost: The lease was lost during the run, which is not recorded.
            OutcomeUnknown: The function ran. The store did not answer whether it recorded that.
            StaleToken: The function ran for too long: another call has begun since.
            StoreUnavailable: The store did not answer in time. The function did not run.
            StoreRefused: The store will go on refusing.
        """
        validation.callback(function, "function")
        # Imported only here: most programs need no ticks, and the import takes milliseconds.
        from coord.api.once import OnceCall, run_async

        call = OnceCall(
            self, job, tick, ttl=ttl, retry=retry, within=within, keep=keep, timeout=timeout
        )
        return await run_async(call, function, *args)

    async def once_done(self, job: str, tick: Tick) -> Once | None:
        """Return the outcome of a tick of a job; None if it was not run. Nothing is run.

        Args:
            job: The role of the job.
            tick: The tick, as for `once`.

        Raises:
            BadArgument: An argument is invalid, or the store keeps no ticks.
            TickTooOld: The tick is no longer kept, so it is not known whether it was run.
            StoreUnavailable: The store did not answer within the timeout of the coordinator.
            StoreRefused: The store will go on refusing.
        """
        from coord.api.once import look_up

        return await look_up(self.session, job, tick)

    async def candidates(self, role: str | None = None) -> list[Candidate]:
        """Return the candidates that wait for `role`, or for any of its slots: the highest priority
        first, then the longest wait.

        This is for people: it may be a ttl old, and it never decides who leads. It takes one query.

        Args:
            role: The role; None means every role.

        Raises:
            BadArgument: The store keeps no announcements.
            StoreUnavailable: The store did not answer within the timeout of the coordinator.
            StoreRefused: The store will go on refusing.
        """
        self.session.check_usable("look up candidates")
        return await self.session.candidates(None if role is None else validation.role(role))

    def watch_leader(self, role: str) -> AsyncIterator[Lease | None]:
        """Yield the leader of `role` now, then each change of the leader or of its info as it
        happens; None means that nobody leads.

        It goes on through outages of the store, and ends when the coordinator is closed.
        """
        validation.role(role)
        self.session.check_open("watch the leader of", role)
        return self.session.until_closed(watch_leader(self.session, role))

    def watch_leaders(self) -> AsyncIterator[LeaderChange]:
        """Yield each role that has a leader now, then each change of any role's leader or of its
        info as it happens.

        Roles that appear later are included. A change has the fields `role` and `leader`, which is
        None if nobody leads. It goes on through outages of the store, and ends when the coordinator
        is closed.
        """
        self.session.check_open("watch the leaders")
        return self.session.until_closed(watch_leaders(self.session))

    @functools.cached_property
    def services(self) -> AsyncServiceRegistry:
        """The service registry of the table `services`. For another table:
        `AsyncServiceRegistry(coordinator, table)`.

        Raises:
            BadArgument: The store keeps no service records.
            CoordinatorClosed: The coordinator was closed.
        """
        from coord.services.registry import AsyncServiceRegistry  # few programs use it

        return AsyncServiceRegistry(self)
