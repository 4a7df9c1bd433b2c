"""`unique_service`: leadership by calls instead of by a loop. One query a call, the same lease, rules and tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from coord import checks
from coord.candidate import fresh_id
from coord.election import HOLDING, Election, Send
from coord.errors import BadArgument, StoreRefused, StoreUnavailable
from coord.lease import Lease
from coord.operations import Failure, Look
from coord.timing import Timing

if TYPE_CHECKING:
    from coord.async_coordinator import AsyncCoordinator


class UniqueServices:
    """The candidates that `unique_service` was called for, by role and by the `id` that the caller gave them.

    The holder in the lease is a random id of this incarnation, whatever the caller's fields say: two processes that
    are configured alike never renew each other's lease (hazard 3 of the ancestor).
    """

    def __init__(self, coordinator: AsyncCoordinator) -> None:
        self._coordinator = coordinator
        self._elections: dict[tuple[str, str], Election] = {}
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    async def call(self, role: str, candidate: Mapping[str, Any] | None) -> dict[str, Any] | None:
        if candidate is None:
            lease = await self._coordinator.leader(role)
            return None if lease is None else self._record(lease)
        info = checks.info(candidate, "candidate")
        if "ttl" not in info:
            raise BadArgument("candidate", candidate, "a dict with at least ttl, in seconds")
        timing = Timing.of(checks.ttl(info.pop("ttl"), "candidate['ttl']"))
        key = (role, str(info.get("id", "")))
        async with self._locks.setdefault(key, asyncio.Lock()):
            lease = await self._claim_or_keep(key, role, timing, info)
        return self._record(lease) if lease.led else None

    async def _claim_or_keep(self, key: tuple[str, str], role: str, timing: Timing, info: dict[str, Any]) -> Lease:
        coordinator = self._coordinator
        election = self._elections.get(key)
        if election is None:
            election = Election(role, fresh_id(), timing, max_clock_skew=coordinator.max_clock_skew)
            self._elections[key] = election
        election.timing, election.info = timing, info
        while True:
            began = coordinator.now()
            election.drained(began)  # the caller's loop is the work, and it is here, between two passes
            election.prompt()
            action = election.step(began)
            election.take_events()
            assert isinstance(action, Send)  # prompted, nothing in flight, never held back, always standing
            result = await coordinator.ask(action.operation, action.timeout)
            election.reply(action, result, began, coordinator.now())
            if isinstance(result, Failure):
                raise (StoreRefused if result.permanent else StoreUnavailable)(result.detail)
            if not isinstance(action.operation, Look):  # a look follows a claim that was never answered (rule 8)
                # What the row says of its holder is not in every answer to a renewal that was applied, but it is this.
                return replace(result.lease, info=info) if result.applied else result.lease

    async def close(self) -> None:
        """Give back what is held."""
        elections, self._elections = self._elections, {}
        for election in elections.values():
            now = self._coordinator.now()
            election.stand_down(now)
            election.drained(now)
            if election.phase in HOLDING and isinstance(action := election.step(now), Send):
                await self._coordinator.ask(action.operation, action.timeout)

    def _record(self, lease: Lease) -> dict[str, Any]:
        from datetime import datetime, timezone  # not part of importing coord

        mine = any(
            one.candidate == lease.holder and one.leads(self._coordinator.now()) for one in self._elections.values()
        )
        return {
            **lease.info,
            "role": lease.role,
            "ttl": lease.ttl,
            "holder": lease.holder,
            "token": lease.token,
            "last_heartbeat": datetime.fromtimestamp(lease.renewed_at, timezone.utc),
            "mine": mine,
        }
