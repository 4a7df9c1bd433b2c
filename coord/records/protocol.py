"""What the service registry asks of a store: a handful of atomic operations on one record a service.

The record is the ancestor's own (`doublethink.ServiceRegistry`): `id`, `role`, `load`, `ttl`, `host`, `pid`,
`first_heartbeat`, `last_heartbeat`, and whatever else the service says. A keeper adds nothing to it. Times are the
store's, and so is every judgement of health: a record is healthy while `store's now - last_heartbeat < ttl`.

All methods raise `StoreUnavailable` or `StoreRefused`, and are bounded by `timeout` (seconds), connecting included.
Each is one query.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple, Protocol

Record = dict[str, Any]


class Seen(NamedTuple):
    """A record and the seconds that it stays healthy from now (0 or less: it is down), by the store's clock."""

    record: Record
    remaining: float


class Records(Protocol):
    """One table of service records."""

    async def register(self, record: Mapping[str, Any], nonce: str, timeout: float) -> Record | None:
        """Write the record, there or not, with `last_heartbeat` = now, and return it as stored.

        `first_heartbeat` is that of the record that was there, else the given one, else now. None when a `remove`
        with this `nonce` came first: this is a duplicate that the network delivered late.
        """

    async def keep(self, record: Mapping[str, Any], timeout: float) -> Record | None:
        """The same, but only where the record exists; None where it does not. A late duplicate revives nothing."""

    async def remove(self, key: str | int, nonce: str | None, timeout: float) -> bool:
        """Delete the record; whether there was one.

        With a `nonce` it leaves a mark that refuses a registration with that nonce, should one still be under way,
        and that `purge` takes away later. Lookups do not see the mark.
        """

    async def least(self, role: str, timeout: float) -> Record | None:
        """The healthy record of that role with the lowest load."""

    async def sample(self, role: str, count: int, timeout: float) -> list[Record]:
        """At most `count` healthy records of that role, drawn at random."""

    async def healthy(self, role: str | None, timeout: float, *, key: str | None = None) -> list[Record]:
        """All the healthy records, of a role or of every role, in any order; with `key` only that id's."""

    async def roster(self, role: str | None, timeout: float) -> list[Seen]:
        """The records of a role, or of every role, that can be judged, healthy or not."""

    async def purge(self, ttls: float, timeout: float) -> int:
        """Delete the records that have been silent for more than `ttls` of their own ttls; how many."""

    async def bad(self, timeout: float) -> list[Record]:
        """The records that have a problem (`coord.records.values.problems`)."""

    async def publish(self, record: Mapping[str, Any], remaining: float, timeout: float) -> bool:
        """Write a leader's record, which runs out in `remaining` seconds, under its role as the id.

        Not over a living record that is not a published leader, nor over one with a higher `token`. Whether it was.
        """

    async def withdraw(self, role: str, token: int, timeout: float) -> bool:
        """Delete the published leader of that role, if it is of this `token` or a lower one."""

    def watch(self, role: str) -> AsyncIterator[None]:
        """A hint at once, and whenever a record of that role comes or goes; not for heartbeats.

        Hints may be lost or repeated. Ends by raising `StoreUnavailable` or when it is closed.
        """
