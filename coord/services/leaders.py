"""Leaders as service records, where clients of doublethink look for them.

The lease decides who leads; these records only show it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from coord.core import records as service_records
from coord.core import validation
from coord.election.session import Session
from coord.election.unique_service import UniqueServices
from coord.errors import StoreRefused, StoreUnavailable
from coord.runtime import log
from coord.stores.protocol import Records


class LeaderPublisher:
    """Writes leaders as records `{"id": role, "role": role, "ttl": …}`.

    It leaves a role alone that a doublethink client has claimed in the same table.
    """

    def __init__(
        self, session: Session, unique_services: UniqueServices, records: Records, table: str
    ) -> None:
        self._session, self._unique_services = session, unique_services
        self._records, self._table = records, table
        self.published: dict[str, int] = {}

    async def unique_service(
        self, role: str, candidate: Mapping[str, Any] | None, owner: object
    ) -> dict[str, Any] | None:
        """Claim `role` as `UniqueServices.call` does, with one query more.

        The query reads the claim of a doublethink client, or publishes our own. Reading and
        claiming are two steps. So this keeps coord out of a role that a doublethink client holds,
        which is enough for a migration of one process after another. It is no election between both
        kinds of client.
        """
        validation.role(role)
        if role not in self.published:
            row = await self._session.retry(
                lambda timeout: self._records.healthy(None, timeout, key=role)
            )
            if row and not service_records.is_published(row[0]):
                return {"role": role, "holder": None, "token": None, **row[0], "mine": False}
        leader, term = await self._unique_services.call(role, candidate, owner)
        if leader is not None and term is not None:
            await self._publish(leader, leader["ttl"])
            leader["mine"] = term.held  # the publication may have taken longer than the term
        else:
            self.published.pop(role, None)
        return leader

    async def publish_lease(self, role: str) -> bool:
        """Publish the leader of `role`, and return whether its record is there now."""
        lease = await self._session.leader(role)
        if lease is None:
            self.published.pop(role, None)  # the record expires with the lease
            return False
        record = {
            **lease.info,
            "role": role,
            "ttl": lease.ttl,
            "holder": lease.holder,
            "token": lease.token,
        }
        return await self._publish(record, lease.remaining)

    async def withdraw(self, role: str) -> None:
        """Delete the record of the leader of `role` that was published here, if there is one."""
        token = self.published.pop(role, None)
        if token is not None:
            await self._try(functools.partial(self._records.withdraw, role, token), role)

    async def withdraw_all(self) -> None:
        """Delete what was published here."""
        self._session.on_close.discard(self.withdraw_all)
        published, self.published = self.published, {}
        await asyncio.gather(
            *(
                self._try(functools.partial(self._records.withdraw, role, token), role)
                for role, token in published.items()
            )
        )

    async def _publish(self, leader: Mapping[str, Any], remaining: float) -> bool:
        record = {
            name: value
            for name, value in leader.items()
            if name not in ("mine", "id", "first_heartbeat", "last_heartbeat")
        }
        role, token = record["role"], record["token"]
        done = await self._try(
            lambda timeout: self._records.publish(record, remaining, timeout), role
        )
        if done:
            self.published[role] = token
            self._session.on_close.add(self.withdraw_all)
        elif done is False:
            log.warning(
                "registry.not_published",
                role=role,
                table=self._table,
                because="the table has the record of another service",
            )
        return bool(done)

    async def _try(self, ask: Callable[[float], Awaitable[bool]], role: str) -> bool | None:
        """Return what `ask` returns; None if it failed, which must not end the caller's term."""
        try:
            return await self._session.retry(ask)
        except (StoreUnavailable, StoreRefused) as err:
            log.warning("registry.not_published", role=role, table=self._table, because=str(err))
            return None
