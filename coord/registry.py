"""`ServiceRegistry`: the service registry for threaded programs, and for those that come from `doublethink`."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from coord import checks, leaving
from coord.async_registry import AsyncServiceRegistry, BadRecord
from coord.records.protocol import Record
from coord.service_changes import ServiceChange

if TYPE_CHECKING:
    from coord.coordinator import Coordinator


class ServiceRegistry:
    """The same as `AsyncServiceRegistry`, for plain threads; any number of them may share one.

    coordinator: a `Coordinator`, or a URL that one is made of (and closed with the registry).
    table, publish: as there.
    """

    def __init__(
        self, coordinator: Coordinator | str | None = None, table: str = "services", *, publish: bool = False
    ) -> None:
        from coord.coordinator import Coordinator

        self._owns = not isinstance(coordinator, Coordinator)
        self.coordinator = coordinator if isinstance(coordinator, Coordinator) else Coordinator(coordinator)
        self.inner = AsyncServiceRegistry(self.coordinator.inner, table, publish=publish)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.table!r} on {self.coordinator.url}>"

    @property
    def table(self) -> str:
        return self.inner.table

    def __enter__(self) -> ServiceRegistry:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Take back what was published, and close the coordinator if it was made here. Services stay registered."""
        if self.inner.publishing is not None and self.coordinator.engine.running:
            self.coordinator.engine.call(self.inner.publishing.take_back)
        if self._owns:
            self.coordinator.close()

    def heartbeat(self, status_info: Mapping[str, Any]) -> Record:
        """Say that a service is there: write its record, and return it as stored, with `id` and the store's times.

        `status_info` needs `role`, `ttl` (seconds) and `load` (lower is better); anything else is kept as given, and
        it is never changed. Without an `id` one is made: send it back with each later heartbeat. The natural cadence
        is `ttl / 3`; `coord.Heartbeat` does it for you. One query. Raises `BadArgument` for what cannot be stored.
        After `StoreUnavailable` the record may have been written or not; calling again with the same dict is right,
        id or none.
        """
        return self.coordinator.engine.call(functools.partial(self.inner.heartbeat, status_info))

    def unregister(self, id: str | int) -> None:  # noqa: A002 # the ancestor's name
        """Remove a service. An id that is not there is a warning in the log. It never touches a leadership."""
        self.coordinator.engine.call(functools.partial(self.inner.unregister, id))

    def healthy_service(self, role: str, *, choose: str = "least") -> Record | None:
        """A healthy service of that role, or None.

        choose: "least", the lowest load; "spread", the better of two at random, so that a crowd that looks at the
            same moment does not land on one.
        """
        return self.coordinator.engine.call(functools.partial(self.inner.healthy_service, role, choose=choose))

    def healthy_services(self, role: str | None = None) -> list[Record]:
        """All the healthy services of that role, or of every role, the lowest load first. May be empty."""
        return self.coordinator.engine.call(functools.partial(self.inner.healthy_services, role))

    available_service = healthy_service
    available_services = healthy_services

    def stale_services(self, ttls_until_deletion: float = 2) -> list[Record]:
        """The records that `purge_stale_services` would delete; not the marks that it takes away with them."""
        return self.coordinator.engine.call(functools.partial(self.inner.stale_services, ttls_until_deletion))

    def purge_stale_services(self, ttls_until_deletion: float = 2) -> dict[str, int]:
        """Delete the records that were silent for more than so many of their own ttls (1 or more). Never a leadership.

        Returns `{"deleted": how many}`.
        """
        return self.coordinator.engine.call(functools.partial(self.inner.purge_stale_services, ttls_until_deletion))

    def bad_records(self) -> list[BadRecord]:
        """The records that lookups and purges leave out, or judge wrongly, and why (`coord doctor` lists them)."""
        return self.coordinator.engine.call(self.inner.bad_records)

    def unique_service(self, role: str, candidate: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """The one service of that role, after claiming or keeping it for `candidate` when one is given.

        `Coordinator.unique_service` says it all: the leases are in a table of their own. With `publish`, an old
        client's living claim in this table is answered as it stands, and one of ours is written into it.
        """
        if candidate is not None:
            leaving.release_at_exit(self.coordinator)
        return self.coordinator.engine.call(functools.partial(self.inner.unique_service, role, candidate))

    def publish_leader(self, role: str) -> bool:
        """Write who leads `role` by its lease into the table, for old clients to find; whether it stands there now.

        For leaders that are not made by `unique_service`: call it every ttl / 3. Anybody may. Needs `publish=True`.
        """
        return self.coordinator.engine.call(functools.partial(self.inner.publish_leader, role))

    def watch_services(self, role: str) -> Iterator[ServiceChange]:
        """The services of that role: those that are there as "joined", then each that joins, leaves or expires.

        Goes on through outages of the store; what happened in one is told after it.
        """
        checks.role(role)
        return self.coordinator.iterate(lambda: self.inner.watch_services(role))
