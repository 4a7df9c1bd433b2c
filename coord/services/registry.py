"""The service registry: services send heartbeats, and others find the healthy ones.

It succeeds `doublethink.ServiceRegistry`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple, Protocol

from coord.core import records as service_records
from coord.core import validation
from coord.core.records import Record
from coord.election.closing import Closing
from coord.election.session import Session
from coord.election.unique_service import HasUniqueServices, UniqueServices
from coord.errors import BadArgument, StoreRefused
from coord.runtime import log, process
from coord.runtime.facade import ClosesInThread, HasPortal, PublicDir, blocking, iterating
from coord.runtime.portal import Portal
from coord.services.leaders import LeaderPublisher
from coord.services.watch import ServiceChange, watch_services
from coord.stores import urls
from coord.stores.protocol import Records

CHOICES = ("least", "spread")


def validate_choice(choose: object) -> str:
    """Return `choose`, which must be one of `CHOICES`; otherwise raise `BadArgument`."""
    if choose not in CHOICES:
        raise BadArgument(
            "choose", choose, 'must be "least" (the lowest load) or "spread" (the better of two)'
        )
    return str(choose)


async def choose_service(records: Records, role: str, choose: str, timeout: float) -> Record | None:
    """Return a healthy service of a role, in one query; None if there is none.

    "least" is the service with the lowest load. Everybody who looks between two heartbeats gets the
    same one, so many callers overload it. "spread" draws two services at random and returns the one
    with the lower load. That balances nearly as well as the lowest load, and much better if the
    loads are a heartbeat old (Mitzenmacher, "The Power of Two Choices in Randomized Load
    Balancing", 2001; "How Useful Is Old Information?", 2000).
    """
    if choose == "least":
        return await records.least_loaded(role, timeout)
    two = await records.sample(role, 2, timeout)
    # With equal loads the first one is returned, and the order is random.
    return min(two, key=service_records.by_load, default=None)


UNANSWERED_WINDOW = 300.0
"""Seconds for which a registration without an answer may still arrive at the store."""
FORGET_TTLS = 10
"""A service that has sent no heartbeat for so many of its ttls is forgotten here, when there are
many. If it sends another one, it registers again."""
MANY = 1_000
"""Services of one registry from which on those that have ended are looked for."""


class BadRecord(NamedTuple):
    """A malformed record, and what is wrong with it.

    Attributes:
        record: The record as it is stored.
        problems: One line of text for each problem.
    """

    record: Record
    problems: list[str]


class _Registration:
    """What this registry knows of an id whose heartbeats it sends."""

    def __init__(self) -> None:
        # Removing a record waits for a heartbeat that is under way.
        self.lock = asyncio.Lock()
        self.nonce = uuid.uuid4().hex
        self.registered = False
        self.doubtful_until = 0.0
        self.needed_until = 0.0


class AsyncServiceRegistry(PublicDir, internal=("after_fork", "publisher", "records", "session")):
    """The services in one table.

    Durations are in seconds. The query judges the health of services, by the clock of the store.
    Every call raises `StoreUnavailable` if the store does not answer within the timeout of the
    coordinator, and `StoreRefused` (`NotSetUp`, `AccessDenied`) if it refuses.

    Args:
        coordinator: An `AsyncCoordinator` whose store it uses, or the URL of a store, which the
            registry opens and closes itself. None means the URL in `COORD_URL` or the default.
        table: The name of the table. On RethinkDB, doublethink clients may use the same table.
        publish: Whether `unique_service` also writes its leaders into the table, where doublethink
            clients look for them, and leaves roles alone that these clients hold
            (docs/moving-over.md explains the limits).

    Raises:
        BadArgument: An argument is invalid, or the store keeps no service records.
        CoordinatorClosed: The coordinator was closed.
    """

    def __init__(
        self,
        coordinator: HasUniqueServices | str | None = None,
        table: str = "services",
        *,
        publish: bool = False,
    ) -> None:
        validation.table(table)
        if coordinator is None or isinstance(coordinator, str):
            self._own: _OwnSession | None = _OwnSession(coordinator)
            host: HasUniqueServices = self._own
        elif isinstance(getattr(coordinator, "session", None), Session):
            self._own, host = None, coordinator
        else:
            kind = type(coordinator).__name__
            raise BadArgument("coordinator", kind, "must be an AsyncCoordinator, a URL, or None")
        self.coordinator = None if self._own is not None else coordinator
        self.session, self._unique_services = host.session, host.unique_services
        self.session.check_open(f"use the services of the table {table!r}")
        self.table = table
        self.records = self.session.records(table)
        self.publisher = (
            LeaderPublisher(self.session, self._unique_services, self.records, table)
            if publish
            else None
        )
        self._begin()
        process.reset_after_fork(self)

    def _begin(self) -> None:
        self._entries: dict[str | int, _Registration] = {}
        self._unanswered: dict[str, list[str]] = {}
        self._prune_at = MANY

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.table!r} on {self.session.store.url}>"

    async def __aenter__(self) -> AsyncServiceRegistry:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Delete published leaders, and close the store if the registry opened it.

        Services stay registered.
        """
        if self.publisher is not None:
            await self.publisher.withdraw_all()
        if self._own is not None:
            await self._own.close()

    async def heartbeat(self, status_info: Mapping[str, Any]) -> Record:
        """Write the record of a service, in one query.

        Call it every `ttl / 3` seconds, or let `coord.Heartbeat` do that.

        Args:
            status_info: A dict with `role`, `ttl` (seconds) and `load` (lower is better). Other
                fields are stored as they are. Without an `id`, one is made; send it back with each
                later heartbeat. The dict is not changed.

        Returns:
            The record as stored, with `id` and the store's times.

        Raises:
            BadArgument: `status_info` cannot be stored.
            StoreUnavailable: The store did not answer. The record may have been written. Call again
                with the same dict, with or without an `id`.
            StoreRefused: The store refuses.
        """
        record = service_records.validate_status(status_info)
        record.setdefault("host", socket.gethostname())
        record.setdefault("pid", os.getpid())
        role, made = record["role"], "id" not in record
        if made:
            waiting = self._unanswered.get(role)
            record["id"] = waiting.pop(0) if waiting else str(uuid.uuid4())
            if not waiting:
                self._unanswered.pop(role, None)
        key = record["id"]
        entry = self._entries.get(key)
        if entry is None:
            self._forget_ended()
            entry = self._entries[key] = _Registration()
        kept = max(FORGET_TTLS * record["ttl"], UNANSWERED_WINDOW)
        entry.needed_until = time.monotonic() + kept
        async with entry.lock:
            # If it was unregistered while this waited, this registers it again.
            self._entries[key] = entry
            try:
                return await self.session.retry(lambda timeout: self._beat(record, entry, timeout))
            except BaseException:
                if not entry.registered and made:
                    # The next heartbeat of this role without an id takes this id, so that a lost
                    # answer leaves no second record.
                    self._unanswered.setdefault(role, []).append(key)
                raise

    def _forget_ended(self) -> None:
        """Forget services that ended without `unregister`, if there are many."""
        if len(self._entries) < self._prune_at:
            return
        now = time.monotonic()
        self._entries = {
            key: entry
            for key, entry in self._entries.items()
            if entry.needed_until > now or entry.lock.locked()
        }
        self._prune_at = max(MANY, 2 * len(self._entries))

    async def _beat(self, record: Record, entry: _Registration, timeout: float) -> Record:
        if entry.registered:
            stored = await self.records.refresh(record, timeout)
            if stored is not None:
                return stored
            # It was purged, or somebody else unregistered it, but the service still runs.
            log.info("registry.registered_again", id=record["id"], role=record["role"])
            entry.registered = False
        try:
            stored = await self.records.register(record, entry.nonce, timeout)
        except BaseException:
            entry.doubtful_until = time.monotonic() + UNANSWERED_WINDOW
            raise
        if stored is None:  # impossible unless another process used the same random nonce
            raise StoreRefused(f"the service {record['id']!r} was unregistered")
        entry.registered = True
        return stored

    async def unregister(self, id: str | int) -> None:  # noqa: A002 # the ancestor's name
        """Remove the service `id`, or give the role `id` back.

        If a candidate that this registry called `unique_service` with leads the role `id`, the role
        is given back (`release`). Otherwise the record `id` is removed from the table. It never
        ends the leadership of anybody else.

        Args:
            id: The id of a service, or a role. An unknown id is a warning in the log.

        Raises:
            BadArgument: The id is invalid.
            StoreUnavailable: The store did not answer in time.
            StoreRefused: The store will go on refusing.
        """
        key = service_records.validate_id(id)
        if isinstance(key, str) and self._unique_services.leads(key, self):
            await self.release(key)
            return
        entry = self._entries.get(key)
        if entry is None:
            await self._remove(key, None)
            return
        async with entry.lock:
            doubtful = time.monotonic() < entry.doubtful_until
            await self._remove(key, entry.nonce if doubtful else None)
            if self._entries.get(key) is entry:
                del self._entries[key]
            entry.registered, entry.nonce, entry.doubtful_until = False, uuid.uuid4().hex, 0.0

    async def _remove(self, key: str | int, nonce: str | None) -> None:
        attempts = 0

        async def remove(timeout: float) -> bool:
            nonlocal attempts
            attempts += 1
            return await self.records.remove(key, nonce, timeout)

        if not await self.session.retry(remove) and attempts == 1:
            log.warning("registry.unknown_id", id=key, table=self.table)

    async def healthy_service(self, role: str, *, choose: str = "least") -> Record | None:
        """Return a healthy service of `role`; None if there is none.

        Args:
            role: The role.
            choose: "least" returns the service with the lowest load. "spread" draws two at random
                and returns the one with the lower load, so that many callers do not all get the
                same service.
        """
        validation.role(role)
        validate_choice(choose)
        return await self.session.retry(
            lambda timeout: choose_service(self.records, role, choose, timeout)
        )

    async def healthy_services(self, role: str | None = None) -> list[Record]:
        """Return the healthy services of `role` (None: of every role), the lowest load first."""
        if role is not None:
            validation.role(role)
        healthy = await self.session.retry(lambda timeout: self.records.healthy(role, timeout))
        return sorted(healthy, key=service_records.by_load)

    available_service = healthy_service
    available_services = healthy_services

    def watch_services(self, role: str) -> AsyncIterator[ServiceChange]:
        """Yield the services of `role` as "joined", then each that joins, leaves or expires.

        It continues through outages of the store, reports afterwards what changed meanwhile, and
        ends when the coordinator is closed.
        """
        validation.role(role)
        self.session.check_open("watch the services of", role)
        changes = watch_services(self.records, role, self.session.timeout)
        return self.session.until_closed(changes)

    async def stale_services(self, ttls_until_deletion: float = 2) -> list[Record]:
        """Return the records that `purge_stale_services` would delete."""
        ttls = _ttls(ttls_until_deletion)
        rows = await self.session.retry(lambda timeout: self.records.list_all(None, timeout))
        return [
            record
            for record, remaining in rows
            if service_records.TOMBSTONE not in record and remaining < record["ttl"] * (1 - ttls)
        ]

    async def purge_stale_services(self, ttls_until_deletion: float = 2) -> dict[str, int]:
        """Delete the records without a heartbeat for more than so many of their own ttls.

        It never ends a leadership.

        Args:
            ttls_until_deletion: How many ttls, 1 or more.

        Returns:
            `{"deleted": how many}`.
        """
        ttls = _ttls(ttls_until_deletion)
        return {
            "deleted": await self.session.retry(lambda timeout: self.records.purge(ttls, timeout))
        }

    async def bad_records(self) -> list[BadRecord]:
        """Return the malformed records, with what is wrong. `coord doctor` lists them, too.

        Lookups and purges leave them out or misjudge their health.
        """
        now = datetime.now(timezone.utc)  # one of the problems is a time in the future
        malformed = await self.session.retry(self.records.malformed)
        listed = [BadRecord(record, service_records.problems(record, now)) for record in malformed]
        return sorted(
            (bad for bad in listed if bad.problems), key=lambda bad: repr(bad.record.get("id"))
        )

    async def unique_service(
        self, role: str, candidate: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Claim or renew `role` for `candidate`, and return the record of the current holder.

        See `AsyncCoordinator.unique_service`. Leases are in a table of their own. With
        `publish=True` the call also returns the leader that a doublethink client wrote into the
        table of services, and publishes the leader that it claims there.

        Args:
            role: The role.
            candidate: A dict with at least `ttl`, in seconds. None means: only look up the holder.

        Returns:
            The record of the holder, or None.

        Raises:
            BadArgument: The role or the candidate is invalid.
            StoreUnavailable: The store did not answer. The claim may or may not have succeeded.
            StoreRefused: The store will go on refusing.
        """
        if self.publisher is None:
            return (await self._unique_services.call(role, candidate, self)).record
        return await self.publisher.unique_service(role, candidate, self)

    async def release(self, role: str, candidate: Mapping[str, Any] | None = None) -> bool:
        """Give `role` back, if a candidate of this registry holds it.

        Args:
            role: The role.
            candidate: The candidate that gives the role back. None means every candidate that this
                registry called `unique_service` with for this role.

        Returns:
            Whether one of these candidates was the leader.

        Raises:
            BadArgument: The role or the candidate is invalid.
            StoreUnavailable: The store did not answer in time. The lease may run until its ttl is
                over.
            StoreRefused: The store refuses the request.
        """
        self.session.check_usable("release the role", role)
        held = await self._unique_services.release(role, candidate, owner=self)
        if held and self.publisher is not None:
            await self.publisher.withdraw(role)
        return held

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

    async def publish_leader(self, role: str) -> bool:
        """Write the leader of `role` into the table, where doublethink clients look for it.

        Use it for leaders that `unique_service` does not make, and call it every ttl / 3. Any
        process may call it. The registry needs `publish=True`.

        Returns:
            Whether the record of the leader is in the table now.
        """
        if self.publisher is None:
            raise BadArgument("publish", False, "must be True when the registry is created")
        return await self.publisher.publish_lease(validation.role(role))

    def after_fork(self) -> None:
        """Forget all registrations, in a forked child: they are its parent's (rule 9)."""
        self._begin()
        if self.publisher is not None:
            self.publisher.published.clear()


MAX_TTLS = 1e6
"""The largest number of ttls for which a service may be silent before it is deleted."""


def _ttls(value: object) -> float:
    return validation.number(value, "ttls_until_deletion", low=1, high=MAX_TTLS, unit="ttls")


class ServiceRegistry(PublicDir, internal=("host", "inner", "portal")):
    """The services of one table, for threaded programs; any number of threads may share one
    registry.

    It has the methods of `AsyncServiceRegistry`; each call blocks until its outcome.

    Args:
        coordinator: A `Coordinator` whose store it uses, or the URL of a store, which the registry
            opens and closes itself. None means the URL in `COORD_URL`, and without that the SQLite
            file in the state directory of the user.
        table: The name of the table. On RethinkDB doublethink clients may use it at the same time.
        publish: Whether `unique_service` also writes its leaders into the table, for doublethink
            clients.

    Raises:
        BadArgument: An argument is invalid, or the store keeps no service records.
        CoordinatorClosed: The coordinator was closed.
    """

    def __init__(
        self,
        coordinator: SyncHost | str | None = None,
        table: str = "services",
        *,
        publish: bool = False,
    ) -> None:
        if coordinator is None or isinstance(coordinator, str):
            self._own: _OwnPortal | None = _OwnPortal(coordinator)
            self.host: SyncHost = self._own
        elif isinstance(getattr(coordinator, "portal", None), Portal):
            self._own, self.host = None, coordinator
        else:
            kind = type(coordinator).__name__
            raise BadArgument("coordinator", kind, "must be a Coordinator, a URL, or None")
        self.coordinator = None if self._own is not None else coordinator
        self.inner = AsyncServiceRegistry(self.host.inner, table, publish=publish)

    def __repr__(self) -> str:
        return repr(self.inner).replace("AsyncServiceRegistry", "ServiceRegistry", 1)

    @property
    def portal(self) -> Portal:
        """The background thread that its calls run on."""
        return self.host.portal

    @property
    def table(self) -> str:
        """The name of the table."""
        return self.inner.table

    def __enter__(self) -> ServiceRegistry:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self.inner.publisher is not None and self.portal.running:
            self.portal.call(self.inner.publisher.withdraw_all)
        if self._own is not None:
            self._own.close()

    close.__doc__ = AsyncServiceRegistry.close.__doc__

    heartbeat = blocking(AsyncServiceRegistry.heartbeat)
    unregister = blocking(AsyncServiceRegistry.unregister)
    healthy_service = blocking(AsyncServiceRegistry.healthy_service)
    healthy_services = blocking(AsyncServiceRegistry.healthy_services)
    available_service = healthy_service
    available_services = healthy_services
    watch_services = iterating(AsyncServiceRegistry.watch_services)
    stale_services = blocking(AsyncServiceRegistry.stale_services)
    purge_stale_services = blocking(AsyncServiceRegistry.purge_stale_services)
    bad_records = blocking(AsyncServiceRegistry.bad_records)
    publish_leader = blocking(AsyncServiceRegistry.publish_leader)

    def unique_service(
        self, role: str, candidate: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        if candidate is not None:
            process.close_at_exit(self.host)
        return self.portal.call(functools.partial(self.inner.unique_service, role, candidate))

    unique_service.__doc__ = AsyncServiceRegistry.unique_service.__doc__
    release = blocking(AsyncServiceRegistry.release)

    @contextlib.contextmanager
    def releasing(self, role: str, candidate: Mapping[str, Any] | None = None) -> Iterator[None]:
        validation.role(role)
        self.inner.session.check_open("claim the role", role)
        try:
            yield
        finally:
            self.release(role, candidate)

    releasing.__doc__ = AsyncServiceRegistry.releasing.__doc__


class SyncHost(HasPortal, Protocol):
    """What a `ServiceRegistry` needs of the coordinator that it works on."""

    @property
    def inner(self) -> HasUniqueServices:
        """Its async counterpart."""


class _OwnSession:
    """The session of an `AsyncServiceRegistry` that was given a URL."""

    def __init__(self, url: str | None) -> None:
        self.session = Session(urls.open_url(urls.resolve(url)))
        self.unique_services = UniqueServices(self.session)

    async def close(self) -> None:
        await self.session.close()


class _OwnPortal:
    """The background thread of a `ServiceRegistry` that was given a URL."""

    def __init__(self, url: str | None) -> None:
        self.inner = _OwnSession(url)
        self.portal = Portal("coord")
        self.on_close: set[ClosesInThread] = set()
        process.reset_after_fork(self)
        self._closing = Closing(self)

    @property
    def session(self) -> Session:
        """What all calls of the registry share."""
        return self.inner.session

    def close(self) -> None:
        """Unregister what sends heartbeats, give roles back, and close the store and the thread."""
        self._closing.close()

    def close_quickly(self) -> None:
        """Do what `close` does within a few seconds, because the process ends. Raises nothing."""
        self._closing.close_quickly()

    def after_fork(self) -> None:
        """In a forked child: the thread is not here, and nothing belongs to this process."""
        self.portal.forget()
        self.on_close = set()
        self._closing.after_fork()
