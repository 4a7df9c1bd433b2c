"""`coord.health()`: the answer to the probes of a load balancer or of Kubernetes.

It reads memory and the clocks, and waits for nothing.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable
from typing import Any

from coord.api.coordinator import AsyncCoordinator
from coord.api.sync_coordinator import Coordinator
from coord.core import validation
from coord.core.phases import Phase
from coord.core.timing import Instant
from coord.election.claimant import Claimant
from coord.election.elector import Elector
from coord.election.session import Member, Session, sessions
from coord.election.suspend import SUSPEND_CHECK_EVERY
from coord.errors import BadArgument

_KINDS = (Elector, Claimant)


class HealthStatus(str, enum.Enum):
    """The state of all candidates: the last of these that applies."""

    OK = "ok"
    """This process leads at least one role."""
    STANDBY = "standby"
    """It has candidates, and leads no role."""
    IDLE = "idle"
    """It has no candidates."""
    TROUBLE = "trouble"
    """The store does not answer, or refuses. A restart of this process does not help."""
    WEDGED = "wedged"
    """Something in this process makes no progress. Restart the process."""

    def __str__(self) -> str:
        return self.value


@dataclasses.dataclass(frozen=True)
class RoleHealth:
    """One candidate. Durations are in seconds.

    Attributes:
        role: The role.
        leads: Whether it leads, by the clock.
        token: The fencing token of its last term; None before the first.
        remaining: Time until its term ends unless it is renewed; 0 if it does not lead.
        renewal_age: Time since the last applied claim or renewal was sent; None before the first.
        jobs: How many calls run under its last term.
        paused: Whether an operator has paused the role, as far as this candidate knows. That is no
            problem of this process.
        problems: What makes no progress, for people; empty when all is well.
    """

    role: str
    leads: bool
    token: int | None
    remaining: float
    renewal_age: float | None
    jobs: int
    paused: bool
    problems: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Health:
    """The health of the candidates of this process. `as_dict()` is for JSON.

    Attributes:
        status: The state of all of them together.
        roles: One entry for each candidate, sorted by role.
        loop_lag: Seconds by which an event loop of coord is late; the largest, if there are
            several.
        store_trouble: Why a store did not answer the last request; "" if it answered.
        problems: The problems of all roles, with their names.
    """

    status: HealthStatus
    roles: tuple[RoleHealth, ...]
    loop_lag: float
    store_trouble: str
    problems: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """For a liveness probe: whether nothing is wedged. It stays true when the store is down."""
        return self.status is not HealthStatus.WEDGED

    @property
    def leads(self) -> bool:
        """For a load balancer that sends requests to leaders only: whether it leads any role."""
        return any(role.leads for role in self.roles)

    def as_dict(self) -> dict[str, Any]:
        """Return it as values that JSON can hold."""
        return {
            **dataclasses.asdict(self),
            "status": str(self.status),
            "healthy": self.healthy,
            "leads": self.leads,
        }


def health(
    coordinator: Coordinator | AsyncCoordinator | None = None, *, max_lag: float = 2.0
) -> Health:
    """Return the health of the candidates of a coordinator, or of all coordinators of this process.

    Call it from any thread. It returns at once: it makes no request, and does not need coord's own
    loop, which may be what is stuck. The status is "wedged" if

    - a job went without progress for longer than its `at_most`, and has not returned;
    - the work or `on_lost` of a lost term did not end within `drain_timeout`;
    - another callback has run for longer than that (an `on_elected` may run while its term lasts);
    - a leader was not renewed for two `renew_every`, although the store answers;
    - the task of a candidate failed, and has not recovered;
    - an event loop of coord is late by more than `max_lag`, which is checked twice a second.

    A candidate of `unique_service` does not count once its event loop was closed.

    Args:
        coordinator: A coordinator; None means all of this process.
        max_lag: How late a loop may be, in seconds.

    Raises:
        BadArgument: An argument is invalid.
    """
    validation.number(max_lag, "max_lag", low=0, above=True)
    if coordinator is None:
        observed: Iterable[Session] = sessions()
    elif isinstance(coordinator, (Coordinator, AsyncCoordinator)):
        observed = [coordinator.session]
    else:
        raise BadArgument(
            "coordinator",
            coordinator,
            "must be a Coordinator, an AsyncCoordinator, or None",
        )
    roles: list[RoleHealth] = []
    troubles, lag = [], 0.0
    for session in observed:
        members = [member for member in tuple(session.members) if not _ended(member)]
        electors = [member for member in members if isinstance(member, Elector)]
        claimants = [member for member in members if isinstance(member, Claimant)]
        now = session.now()
        if electors:  # the caller of a claimant may well keep its own loop busy
            lag = max(lag, _lag(session, now))
        if members:
            troubles.append(session.last_error)
            elections = [member.election for member in members if isinstance(member, _KINDS)]
            if any(election.failing for election in elections):
                troubles.append(session.last_error or "a request was not answered")
        roles += [_role(elector, now, elector.running_jobs) for elector in electors]
        roles += [_role(claimant, now) for claimant in claimants]
    trouble = "; ".join(dict.fromkeys(filter(None, troubles)))
    problems = [f"{role.role}: {problem}" for role in roles for problem in role.problems]
    if lag > max_lag:
        problems.append(f"coord's loop has not turned for {lag:.1f} s")
    roles.sort(key=lambda role: role.role)
    return Health(_status(roles, trouble, problems), tuple(roles), lag, trouble, tuple(problems))


def _status(roles: list[RoleHealth], trouble: str, problems: list[str]) -> HealthStatus:
    if problems:
        return HealthStatus.WEDGED
    if trouble:
        return HealthStatus.TROUBLE
    if not roles:
        return HealthStatus.IDLE
    return HealthStatus.OK if any(role.leads for role in roles) else HealthStatus.STANDBY


def _ended(member: Member) -> bool:
    # The caller of a claimant is on its loop. An elector ends with its loop, if asyncio ends it.
    task = member.task
    return task.done() or (isinstance(member, Claimant) and task.get_loop().is_closed())


def _lag(session: Session, now: Instant) -> float:
    last_tick = session.last_tick
    return 0.0 if last_tick is None else max(0.0, now.awake - last_tick - SUSPEND_CHECK_EVERY)


def _role(member: Elector | Claimant, now: Instant, jobs: int = 0) -> RoleHealth:
    term, renewed = member.term, member.renewed_at
    return RoleHealth(
        role=member.role,
        leads=term is not None and term.held,
        token=None if term is None else term.token,
        remaining=0.0 if term is None else term.remaining,
        renewal_age=max(0.0, now.awake - renewed) if renewed is not None else None,
        jobs=jobs,
        paused=member.election.paused,
        problems=tuple(_problems(member, now)) if isinstance(member, Elector) else (),
    )


def _problems(elector: Elector, now: Instant) -> Iterable[str]:
    term, lifecycle, timing = elector.term, elector.lifecycle, elector.election.timing
    if term is not None and elector.stalled and (lifecycle.draining or not term.lost.is_set()):
        yield f"a job under token {term.token} shows no progress and has not returned"
    elif (late := lifecycle.still_draining) is not None:
        yield f"the work under token {late.token}, which was lost ({late.reason}), has not ended"
    running = lifecycle.running
    if running is not None:
        took, patient = (
            now.awake - running.since,
            running.elected and running.term is not None and running.term.held,
        )
        if took > lifecycle.drain_timeout and not patient:
            yield f"the callback {running.name} has run for {took:.1f} s"
    if elector.failure:
        yield elector.failure
    age = None if elector.renewed_at is None else now.awake - elector.renewed_at
    if elector.election.phase is not Phase.LEADING or age is None:
        return
    # While the store is silent, a restart of this process would not help.
    if age > 2 * timing.renew_every and not elector.store_is_silent(now):
        yield f"not renewed for {age:.1f} s"
