"""`unique_service`: leadership by calls instead of by a loop, with the same leases and tokens."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import socket
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple, Protocol

from coord.core import validation
from coord.core.lease import Lease
from coord.core.timing import Timing
from coord.election.claimant import Claimant
from coord.election.session import Session
from coord.election.term import Term
from coord.errors import BadArgument
from coord.runtime import process

MAX_WAITING = 256
"""Candidates without a lease that are remembered. The one that was not called for the longest time
is forgotten first. What it observed is kept by the session, for a later candidate."""
ANSWERED_FIELDS = ("role", "first_heartbeat", "last_heartbeat", "holder", "token", "mine")
"""Fields of a record that coord fills in. They do not describe a caller that passes a record
back as its candidate."""
ALLOWED = "must be a dict with string keys and at least ttl, in seconds"

_SCALARS = frozenset((str, int, float, bool, type(None)))


class Answer(NamedTuple):
    """What one call returns.

    Attributes:
        record: The record of the holder; None if nobody holds the role.
        term: The term of the call's candidate, if it leads; it tells later whether it still does.
    """

    record: dict[str, Any] | None
    term: Term | None


class _Described(NamedTuple):
    """A candidate as its caller described it, checked.

    Attributes:
        info: What the lease says about its holder.
        timing: The timing of the lease.
    """

    info: dict[str, Any]
    timing: Timing

    @property
    def identity(self) -> object:
        """Who the candidate is: what its id says, or else all its fields."""
        return _identity({**self.info, "ttl": self.timing.ttl})


class _Candidate(Claimant):
    """A candidate of this process, with how its caller described it last.

    Args:
        services: Where it is known.
        role: The role that it claims.
        described: How its caller describes it.
    """

    __slots__ = ("_services", "calls", "described", "identity", "owner")

    def __init__(self, services: UniqueServices, role: str, described: _Described) -> None:
        super().__init__(services.session, role, described.timing)
        self._services, self.described = services, described
        self.identity = described.identity
        self.owner: object = None
        self.calls = 0
        """Calls that are under way or wait for their turn."""

    def _lease_ended(self) -> None:
        self._services.became_idle(self)


class _Call(NamedTuple):
    """The last call for a role, to recognize another one like it.

    Attributes:
        types: The types of the values in `passed`: `True == 1`, but they are two candidates. All of
            them are scalars, so that no other value is compared with them.
        passed: A copy of what the caller passed.
        member: The candidate that it was for.
        described: The candidate as `passed` describes it.
    """

    types: list[type]
    passed: dict[str, Any]
    member: _Candidate
    described: _Described

    def is_like(self, candidate: Mapping[str, Any]) -> bool:
        """Return whether a caller passes the same again."""
        return (
            type(candidate) is dict
            # In the order of `passed`: the caller's dict may have another one.
            and [*map(type, map(candidate.get, self.passed))] == self.types
            and candidate == self.passed
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
    """The candidates that `unique_service` was called for on one session.

    A candidate is who its `id` says, and without an `id`, who its other fields say. That holds
    within this object. The holder in the lease is a random id of each candidate, so two processes
    with equal candidates are two candidates and never renew each other's lease.

    Args:
        session: The session that its requests go to.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._start()
        process.reset_after_fork(self)

    def _start(self) -> None:
        self._roles: dict[str, dict[object, _Candidate]] = {}
        self._last: dict[str, _Call] = {}
        # Those that hold no lease and are not being called, the longest ago first.
        self._waiting: dict[_Candidate, None] = {}

    def after_fork(self) -> None:
        """In a forked child: every candidate belongs to the parent (rule 9)."""
        self._start()

    async def call(
        self, role: str, candidate: Mapping[str, Any] | None, owner: object = None
    ) -> Answer:
        """Claim or renew `role` for `candidate`, or look up its holder if there is none.

        Args:
            role: The role.
            candidate: A mapping with at least `ttl`, in seconds; None means to look up only.
            owner: On whose behalf, for `release`.

        Raises:
            BadArgument: The role or the candidate is invalid.
            StoreUnavailable: The store did not answer. The claim may or may not have succeeded.
            StoreRefused: The store will go on refusing.
        """
        validation.role(role)
        if candidate is None:
            lease = await self.session.leader(role)
            return Answer(None if lease is None else record_of(lease, lease.info), None)
        validation.elected_role(role)
        while True:
            member = self._enter(role, candidate)
            member.owner, described = owner, member.described
            try:
                row = await member.claim(described.timing, described.info)
            finally:
                forgotten = self._leave(member)
            if forgotten:
                await asyncio.sleep(0)  # lets the loop drop the timers that were cancelled
            if row is not None:
                return _answer(member, row, described.info)
            # It was released while this call waited for its turn: the call makes another.

    async def release(
        self,
        role: str,
        candidate: Mapping[str, Any] | None = None,
        *,
        owner: object = None,
        patience: float | None = None,
    ) -> bool:
        """Give `role` back, and forget its candidates.

        Args:
            role: The role.
            candidate: Which candidate gives it back; None means every candidate of the role.
            owner: Only the candidates of this owner; None means of every owner.
            patience: Seconds to repeat requests that fail; None means the timeout of the session.

        Returns:
            Whether one of these candidates led.

        Raises:
            BadArgument: The role or the candidate is invalid.
            StoreUnavailable: The store did not answer. The lease may run until its end.
            StoreRefused: The store refuses the request.
        """
        validation.role(role)
        only = None if candidate is None else _checked(_fields(role, candidate)).identity
        leaving = [
            member
            for member in self._roles.get(role, {}).values()
            if only in (None, member.identity) and (owner is None or member.owner is owner)
        ]
        seconds = self.session.timeout if patience is None else patience
        try:
            held = await asyncio.gather(
                *(member.give_back(seconds) for member in leaving), return_exceptions=True
            )
        finally:
            for member in leaving:
                if member.stopped:
                    self._forget(member)
        for outcome in held:
            if isinstance(outcome, BaseException):
                raise outcome
        return any(held)

    def leads(self, role: str, owner: object) -> bool:
        """Return whether a candidate of this owner leads `role`, by the clock."""
        return any(
            member.owner is owner and member.leads for member in self._roles.get(role, {}).values()
        )

    def became_idle(self, member: _Candidate) -> bool:
        """Keep a candidate that holds no lease, unless a call is under way, and forget another.

        Returns:
            Whether another was forgotten.
        """
        if member.calls:
            return False
        self._waiting[member] = None
        if len(self._waiting) <= MAX_WAITING:
            return False
        self._forget(next(iter(self._waiting)))
        return True

    def _enter(self, role: str, candidate: Mapping[str, Any]) -> _Candidate:
        """Find the candidate of a call, or make it. `_leave` is called at the end of the call."""
        last = self._last.get(role)
        if last is not None and last.is_like(candidate) and not last.member.stopped:
            # Checking what was checked before would take longer than the rest of the call.
            member, described = last.member, last.described
        else:
            described = _checked(_fields(role, candidate))
            earlier = self._roles.get(role, {}).get(described.identity)
            if earlier is None or earlier.stopped:
                member = _Candidate(self, role, described)
                self._roles.setdefault(role, {})[member.identity] = member
            else:
                member = earlier
            if _all_scalars(candidate):
                types = [*map(type, candidate.values())]
                self._last[role] = _Call(types, dict(candidate), member, described)
        member.described = described
        member.calls += 1
        self._waiting.pop(member, None)
        return member

    def _leave(self, member: _Candidate) -> bool:
        """End a call; return whether a candidate was forgotten."""
        member.calls -= 1
        if member.stopped:
            self._forget(member)
            return True
        return not member.holding and self.became_idle(member)

    def _forget(self, member: _Candidate) -> None:
        member.leave()
        self._waiting.pop(member, None)
        last = self._last.get(member.role)
        if last is not None and last.member is member:
            del self._last[member.role]
        of_role = self._roles.get(member.role, {})
        if of_role.get(member.identity) is member:
            del of_role[member.identity]
            if not of_role:
                del self._roles[member.role]


def _answer(claimant: Claimant, row: Lease, info: Mapping[str, Any]) -> Answer:
    if row.paused:
        return Answer(_paused_record(row), None)
    if row.holder != claimant.candidate:
        return Answer(record_of(row, row.info) if row.led else None, None)
    term = claimant.term
    is_leader = term is not None and term.token == row.token and term.held
    if not (is_leader or row.led):
        return Answer(None, None)
    # The answer to a renewal does not always carry what the row says of its holder.
    record = record_of(row, info, claimant.first_heartbeat)
    record["mine"] = is_leader
    return Answer(record, term if is_leader else None)


def _paused_record(lease: Lease) -> dict[str, Any]:
    """Return what a candidate gets that calls for a paused role: a record without a holder."""
    record = record_of(lease, {})
    return {**record, "id": None, "holder": None, "paused": lease.withheld_by or True}


def record_of(lease: Lease, info: Mapping[str, Any], since: float = 0.0) -> dict[str, Any]:
    """Return the record of the holder of a lease, as doublethink's callers know it.

    Args:
        lease: The lease.
        info: What the holder says about itself.
        since: When the term began, in seconds since 1970, if the lease does not say it.
    """
    return {
        "id": lease.role,
        "host": None,
        "pid": None,
        **(info if _all_scalars(info) else copy.deepcopy(dict(info))),
        "role": lease.role,
        "ttl": lease.ttl,
        "first_heartbeat": _time(lease.since or since),
        "last_heartbeat": _time(lease.renewed_at),
        "holder": lease.holder,
        "token": lease.token,
        "mine": False,
    }


def _time(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, timezone.utc) if seconds else None


def _fields(role: str, candidate: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a caller says about its candidate, with host and pid filled in."""
    if not isinstance(candidate, Mapping) or "ttl" not in candidate:
        raise BadArgument("candidate", candidate, ALLOWED)
    if candidate.get("role", role) != role:
        raise BadArgument("candidate['role']", candidate["role"], f"must be {role!r}, or absent")
    fields = {name: value for name, value in candidate.items() if name not in ANSWERED_FIELDS}
    if fields.get("id", role) in (None, role):  # the id of a record whose candidate has none
        fields.pop("id", None)
    if fields.get("host") is None:
        fields["host"] = socket.gethostname()
    if fields.get("pid") is None:
        fields["pid"] = os.getpid()
    return fields


def _checked(fields: dict[str, Any]) -> _Described:
    info = validation.info(fields, "candidate")
    timing = Timing.of(validation.ttl(info.pop("ttl"), "candidate['ttl']"))
    if "id" in info and (not isinstance(info["id"], (str, int)) or isinstance(info["id"], bool)):
        raise BadArgument("candidate['id']", info["id"], "must be a string or an int")
    return _Described(info, timing)


def _all_scalars(fields: Mapping[str, Any]) -> bool:
    return _SCALARS.issuperset(map(type, fields.values()))


def _comparable(fields: Mapping[str, Any]) -> frozenset[tuple[str, object, bool]]:
    """Return fields without lists and dicts in a form that tells True from 1."""
    return frozenset((name, value, isinstance(value, bool)) for name, value in fields.items())


def _identity(fields: Mapping[str, Any]) -> object:
    if "id" in fields:
        return type(fields["id"]).__name__, fields["id"]
    return _comparable(fields) if _all_scalars(fields) else json.dumps(fields, sort_keys=True)
