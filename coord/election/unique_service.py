"""`unique_service`: leadership by calls instead of by a loop. One query a call, the same lease,
rules and tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from coord.core import validation
from coord.core.election import Election, Send
from coord.core.lease import Lease
from coord.core.operations import Answer, Failure, Read, Result
from coord.core.timing import Instant, Timing
from coord.election import elector
from coord.election.elector import new_candidate_id
from coord.errors import BadArgument, StoreRefused, StoreUnavailable

if TYPE_CHECKING:
    from coord.api.coordinator import AsyncCoordinator

_PLAIN = (str, int, float, bool, type(None))


class _Claimant:
    """A candidate that `unique_service` was called for, with what it was called with last."""

    __slots__ = ("election", "given", "info", "lock", "timing")

    def __init__(self, role: str, given: Mapping[str, Any], max_clock_skew: float | None) -> None:
        self.lock = asyncio.Lock()
        self.look_at(given)
        self.election = Election(
            role, new_candidate_id(), self.timing, max_clock_skew=max_clock_skew
        )

    def look_at(self, given: Mapping[str, Any]) -> None:
        """Check it, and keep it. Raises `BadArgument`."""
        info = validation.info(given, "candidate")
        if "ttl" not in info:
            raise BadArgument("candidate", given, "a dict with at least ttl, in seconds")
        copied, timing = dict(info), Timing.of(validation.ttl(info.pop("ttl"), "candidate['ttl']"))
        self.given, self.info, self.timing = copied, info, timing

    def knows(self, given: Mapping[str, Any]) -> bool:
        """Whether it is what was given last, and plain. Checking it anew takes longer than the rest
        of a call."""
        return self.given == given and all(
            type(one) in _PLAIN and type(one) is type(given[key]) for key, one in self.given.items()
        )


class UniqueServices:
    """The candidates that `unique_service` was called for, by role and by the `id` that the caller
    gave them.

    The holder in the lease is a random id of this incarnation, whatever the caller's fields say:
    two processes that are configured alike never renew each other's lease (hazard 3 of the
    ancestor)."""

    def __init__(self, coordinator: AsyncCoordinator) -> None:
        self._coordinator = coordinator
        self._contenders: dict[tuple[str, str], _Claimant] = {}
        self._elections: dict[str, Election] = {}
        """Theirs, by their ids."""

    async def call(self, role: str, candidate: Mapping[str, Any] | None) -> dict[str, Any] | None:
        if candidate is None:
            lease = await self._coordinator.leader(role)
            return None if lease is None else self._record(lease, lease.info)
        contender = self._contender(role, candidate)
        timing, info = (
            contender.timing,
            contender.info,
        )  # of this call: another may come while it waits
        async with contender.lock:
            contender.election.timing, contender.election.info = timing, info
            answer = await self._claim_or_keep(contender.election)
        # What the row says of its holder is not in every answer to a renewal that was applied, but
        # it is this.
        return (
            self._record(answer.lease, info if answer.applied else answer.lease.info)
            if answer.lease.led
            else None
        )

    def _contender(self, role: str, candidate: Mapping[str, Any]) -> _Claimant:
        key = (role, str(candidate.get("id", "")) if isinstance(candidate, Mapping) else "")
        contender = self._contenders.get(key)
        if contender is None:
            contender = _Claimant(role, candidate, self._coordinator.max_clock_skew)
            self._contenders[key] = contender
            self._elections[contender.election.candidate] = contender.election
        elif not contender.knows(candidate):
            contender.look_at(candidate)
        return contender

    async def _claim_or_keep(self, election: Election) -> Answer:
        while True:
            began = self._coordinator.now()
            election.drained(
                began
            )  # the caller's loop is the work, and it is here, between two passes
            election.try_now()
            action = election.step(began)
            assert isinstance(
                action, Send
            )  # prompted, nothing in flight, never held back, always standing
            result = await self._ask(election, action, began)
            if isinstance(result, Failure):
                raise (StoreRefused if result.permanent else StoreUnavailable)(result.detail)
            if not isinstance(
                action.operation, Read
            ):  # a look follows a claim that was never answered (rule 8)
                return result

    async def _ask(self, election: Election, action: Send, began: Instant) -> Result:
        """Put it to the store. A caller that is cancelled leaves an outcome that is unknown."""
        coordinator = self._coordinator
        result: Result = Failure(unknown=True, detail="the call was cancelled")

        def going() -> None:  # it may have waited in turn for longer than a lease lasts
            nonlocal began
            began = coordinator.now()

        try:
            sent = elector._begin(coordinator, action)
            result = await (sent or coordinator.submit(action.operation, action.timeout, going))
        finally:
            election.reply(action, result, began, coordinator.now())
            election.take_events()
        return result

    async def close(self) -> None:
        """Give back what is held."""
        elections, self._elections, self._contenders = self._elections, {}, {}
        await asyncio.gather(*map(self._give_back, elections.values()))

    async def _give_back(self, election: Election) -> None:
        """Once at the most; before that comes a look, where a claim was never answered."""
        now = self._coordinator.now()
        election.stop(now)
        election.drained(now)
        for _ in range(2):
            began = self._coordinator.now()
            if isinstance(action := election.step(began), Send):
                result = await self._ask(election, action, began)
                if isinstance(result, Failure) or not isinstance(action.operation, Read):
                    return

    def _record(self, lease: Lease, info: Mapping[str, Any]) -> dict[str, Any]:
        from datetime import (
            datetime,
            timezone,  # not part of importing coord
        )

        holder = self._elections.get(lease.holder or "")
        return {
            **info,
            "role": lease.role,
            "ttl": lease.ttl,
            "holder": lease.holder,
            "token": lease.token,
            "last_heartbeat": datetime.fromtimestamp(lease.renewed_at, timezone.utc),
            "mine": holder is not None and holder.leads(self._coordinator.now()),
        }
