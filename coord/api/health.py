"""`coord.health()`: what a load balancer or Kubernetes asks. Reads memory and the clock; waits for
nothing."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable
from typing import Any

from coord.api.coordinator import AsyncCoordinator, Coordinator
from coord.core import validation
from coord.core.election import Phase
from coord.core.timing import Instant
from coord.election.elector import Elector
from coord.election.session import SUSPEND_CHECK_EVERY, Session, sessions
from coord.errors import BadArgument


class HealthStatus(str, enum.Enum):
    """The worst that holds, from below."""

    OK = "ok"
    """Leads at least one role."""
    STANDBY = "standby"
    """Stands for roles, and leads none."""
    IDLE = "idle"
    """Stands for nothing."""
    TROUBLE = "trouble"
    """The store did not answer last, or refuses. A restart of this process will not mend that."""
    WEDGED = "wedged"
    """Something in this process stands still that should move, though it may look alive. Restart
    it."""

    def __str__(self) -> str:
        return self.value


@dataclasses.dataclass(frozen=True)
class RoleHealth:
    """One candidate. Durations are in seconds.

    leads: by the clock. token, remaining: of the term that is held (remaining 0 when none is; the
    token then is that of the last one, or None). renewal_age: since the last applied claim or
    renewal was sent, None before the first.
    jobs: calls that run under the last term. problems: what stands still, for people; empty when
    all is well."""

    role: str
    leads: bool
    token: int | None
    remaining: float
    renewal_age: float | None
    jobs: int
    problems: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Health:
    """How the candidates of this process do. `as_dict()` is for JSON.

    loop_lag: seconds by which coord's loop is late. store_trouble: what kept the store from
    answering last; "" when it answered. problems: all of them, those of the roles with their names.
    """

    status: HealthStatus
    roles: tuple[RoleHealth, ...]
    loop_lag: float
    store_trouble: str
    problems: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """For a liveness probe: nothing is wedged. A standby is healthy, and so is a store that is
        down."""
        return self.status is not HealthStatus.WEDGED

    @property
    def leads(self) -> bool:
        """For a load balancer that sends to leaders only: some role is led."""
        return any(role.leads for role in self.roles)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON takes them."""
        return {
            **dataclasses.asdict(self),
            "status": str(self.status),
            "healthy": self.healthy,
            "leads": self.leads,
        }


def health(
    coordinator: Coordinator | AsyncCoordinator | None = None, *, max_lag: float = 2.0
) -> Health:
    """How the candidates of `coordinator` do; without one, those of all coordinators of this
    process.

    From any thread, at once, with no I/O and no help of coord's own loop, which may be what stands
    still. "wedged" is:

    - a job that went without progress for longer than its `at_most`, and has not returned;
    - work or `on_lost` of a lost term that did not end within `drain_timeout`, or another callback
    that has run
      for longer (an `on_elected` may take its time while the term stands);
    - a leader that was not renewed for two `renew_every`;
    - a loop that is late by more than `max_lag` seconds (looked at twice a second).
    """
    validation.number(max_lag, "max_lag", low=0, above=True)
    if coordinator is None:
        observed: Iterable[Session] = sessions()
    elif isinstance(coordinator, (Coordinator, AsyncCoordinator)):
        observed = [coordinator.session]
    else:
        raise BadArgument(
            "coordinator", coordinator, "a coord.Coordinator, a coord.AsyncCoordinator, or None"
        )
    roles: list[RoleHealth] = []
    troubles, lag = [], 0.0
    for session in observed:
        electors = [
            member
            for member in tuple(session.members)
            if isinstance(member, Elector) and not member.task.done()
        ]
        now = session.now()
        if electors:
            lag = max(lag, _lag(session, now))
            troubles.append(session.last_error)
        roles += [_role(elector, now) for elector in electors]
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


def _lag(session: Session, now: Instant) -> float:
    last_tick = session.last_tick
    return 0.0 if last_tick is None else max(0.0, now.awake - last_tick - SUSPEND_CHECK_EVERY)


def _role(elector: Elector, now: Instant) -> RoleHealth:
    term, renewed = elector.term, elector.renewed_at
    return RoleHealth(
        role=elector.election.role,
        leads=term is not None and term.held,
        token=None if term is None else term.token,
        remaining=0.0 if term is None else term.remaining,
        renewal_age=max(0.0, now.awake - renewed) if renewed is not None else None,
        jobs=elector.running_jobs,
        problems=tuple(_problems(elector, now)),
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
    age = None if elector.renewed_at is None else now.awake - elector.renewed_at
    if elector.election.phase is Phase.LEADING and age is not None and age > 2 * timing.renew_every:
        yield f"not renewed for {age:.1f} s"
