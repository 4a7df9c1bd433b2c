"""`unique_service`: leadership by calls instead of by a loop. One query a call, the same lease,
rules and tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from coord.core import validation
from coord.core.election import Election, Send
from coord.core.lease import Lease
from coord.core.operations import Answer, Failure, Read, Result
from coord.core.timing import Instant, Timing
from coord.election.elector import new_candidate_id, send_now
from coord.election.session import Session
from coord.errors import BadArgument, StoreRefused, StoreUnavailable
from coord.runtime import process

_PLAIN = (str, int, float, bool, type(None))


class _Claimant:
    """A candidate that `unique_service` was called for, with what it was called with last."""

    __slots__ = ("election", "given", "info", "lock", "timing")

    def __init__(self, role: str, given: Mapping[str, Any], max_clock_skew: float | None) -> None:
        self.lock = asyncio.Lock()
        self.update(given)
        self.election = Election(
            role, new_candidate_id(), self.timing, max_clock_skew=max_clock_skew
        )

    def update(self, given: Mapping[str, Any]) -> None:
        """Check it, and keep it. Raises `BadArgument`."""
        info = validation.info(given, "candidate")
        if "ttl" not in info:
            raise BadArgument("candidate", given, "a dict with at least ttl, in seconds")
        copied, timing = dict(info), Timing.of(validation.ttl(info.pop("ttl"), "candidate['ttl']"))
        self.given, self.info, self.timing = copied, info, timing

    def matches(self, given: Mapping[str, Any]) -> bool:
        """Whether it is what was given last, and plain. Checking it anew takes longer than the rest
        of a call."""
        return self.given == given and all(
            type(one) in _PLAIN and type(one) is type(given[key]) for key, one in self.given.items()
        )


class HasUniqueServices(Protocol):
    """An object such as a coordinator, on whose session `unique_service` claims roles."""

    @property
    def session(self) -> Session:
        """The session that its elections share."""

    @property
    def unique_services(self) -> UniqueServices:
        """The candidates that `unique_service` was called for."""


class UniqueServices:
    """The candidates that `unique_service` was called for, by role and by the `id` that the caller
    gave them.

    The holder in the lease is a random id of this incarnation, whatever the caller's fields say:
    two processes that are configured alike never renew each other's lease (hazard 3 of the
    ancestor)."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._start()
        session.on_release.add(self.close)
        process.reset_after_fork(self)

    def _start(self) -> None:
        self._claimants: dict[tuple[str, str], _Claimant] = {}
        self._elections: dict[str, Election] = {}
        """Theirs, by their ids."""

    def after_fork(self) -> None:
        """In a forked child: the claims belong to the parent (rule 9)."""
        self._start()

    async def claim_or_look_up(
        self, role: str, candidate: Mapping[str, Any] | None
    ) -> dict[str, Any] | None:
        if candidate is None:
            lease = await self._session.leader(role)
            return None if lease is None else self._record(lease, lease.info)
        claimant = self._claimant(role, candidate)
        timing, info = (
            claimant.timing,
            claimant.info,
        )  # of this call: another may come while it waits
        async with claimant.lock:
            claimant.election.timing, claimant.election.info = timing, info
            answer = await self._claim_or_keep(claimant.election)
        # What the row says of its holder is not in every answer to a renewal that was applied, but
        # it is this.
        return (
            self._record(answer.lease, info if answer.applied else answer.lease.info)
            if answer.lease.led
            else None
        )

    def _claimant(self, role: str, candidate: Mapping[str, Any]) -> _Claimant:
        key = (role, str(candidate.get("id", "")) if isinstance(candidate, Mapping) else "")
        claimant = self._claimants.get(key)
        if claimant is None:
            claimant = _Claimant(role, candidate, self._session.max_clock_skew)
            self._claimants[key] = claimant
            self._elections[claimant.election.candidate] = claimant.election
        elif not claimant.matches(candidate):
            claimant.update(candidate)
        return claimant

    async def _claim_or_keep(self, election: Election) -> Answer:
        while True:
            began = self._session.now()
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
        session = self._session
        result: Result = Failure(unknown=True, detail="the call was cancelled")

        def going() -> None:  # it may have waited in turn for longer than a lease lasts
            nonlocal began
            began = session.now()

        try:
            sent = send_now(session, action)
            result = await (sent or session.submit(action.operation, action.timeout, going))
        finally:
            election.reply(action, result, began, session.now())
            election.take_events()
        return result

    async def close(self) -> None:
        """Give back what is held."""
        elections, self._elections, self._claimants = self._elections, {}, {}
        await asyncio.gather(*map(self._give_back, elections.values()))

    async def _give_back(self, election: Election) -> None:
        """Once at the most; before that comes a look, where a claim was never answered."""
        now = self._session.now()
        election.stop(now)
        election.drained(now)
        for _ in range(2):
            began = self._session.now()
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
            "mine": holder is not None and holder.leads(self._session.now()),
        }
