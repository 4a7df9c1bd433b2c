"""A call of a function under `@leader_only`: it acquires a term, runs the function, and gives the
role back.

This module is apart from the decorator (`coord/api/leader_only.py`) because it imports asyncio.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from coord.api.default import default
from coord.api.sync_coordinator import Coordinator
from coord.api.sync_leadership import Leadership
from coord.core import validation
from coord.election.elector import Elector
from coord.election.term import Term, current_term, run_async_under_term, run_under_term
from coord.errors import AcquireTimeout, NotLeader
from coord.recipes.slot_elector import slot_role
from coord.runtime import log, process


class GuardedCall:
    """Runs calls of one decorated function under the leadership of its role.

    A call inside of another call for the same role runs under the term of the outer one: a
    candidate of its own would wait for the outer call to end.

    Args:
        role: The role.
        coordinator: The coordinator; None means the default one of the process.
        ttl: The duration of the lease, in seconds.
        otherwise: "skip", "wait" or "raise": what a call does if another candidate leads.
        scope: "process" or "call": how long the role is kept.
        at_least: Seconds that the role stays taken from the start of a call.
        at_most: Seconds that a call may go without progress; None means no limit.
        timeout: Seconds that a call waits for the role; None means the default of `leader_only`.
        slots: How many may hold the role; None means one.
    """

    def __init__(
        self,
        role: str,
        coordinator: Coordinator | None,
        *,
        ttl: float,
        otherwise: str,
        scope: str,
        at_least: float,
        at_most: float | None,
        timeout: float | None,
        slots: int | None = None,
    ) -> None:
        self._slots = slots
        self._role, self._coordinator, self._ttl = role, coordinator, ttl
        self._otherwise, self._per_call = otherwise, scope == "call"
        self._at_least, self._at_most, self._timeout = at_least, at_most, timeout
        self._reserved: _Use | None = None

    def reserve(self) -> None:
        """Let the process keep its shared candidate for the role until the next call has ended, or
        until this object is dropped."""
        coordinator = self._coordinator or default.get()
        self._reserved = _Use(coordinator, self._role)
        coordinator.begin_shared_call(self._role, self._reserved)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a plain function under a term, or return None if the call is skipped.

        If the function returns an awaitable, the call returns a coroutine, which awaits it under
        the same term, and keeps the role for as long.
        """
        visit = self._visit()
        try:
            if visit.term is None:
                lead = visit.lead
                visit.term = lead.held or lead.coordinator.portal.call(lambda: self._acquire(lead))
                if visit.term is None:
                    return None
            result = run_under_term(visit.term, self._at_most, function, *args, **kwargs)
            if inspect.isawaitable(result):
                visit, kept = _Visit(None, visit.lead, False, visit.use), visit
                return self._await_later(kept, result)
            return result
        finally:
            visit.use.end()
            if visit.gives_back:
                if visit.term is None:  # it holds nothing, and the store may be silent
                    visit.lead.abandon()
                else:
                    visit.lead.stop(linger=self._linger(visit))

    async def call_async(
        self, function: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any
    ) -> Any:
        """Await a coroutine function under a term, or return None if the call is skipped."""
        visit = self._visit()
        try:
            if visit.term is None:
                lead = visit.lead
                # The candidate lives on coord's own thread, so that renewals do not depend on how
                # busy this loop is.
                visit.term = lead.held or await lead.coordinator.portal.submit(
                    lambda: self._acquire(lead)
                )
                if visit.term is None:
                    return None
            return await run_async_under_term(visit.term, self._at_most, function, *args, **kwargs)
        finally:
            visit.use.end()
            await self._give_back(visit)

    def _visit(self) -> _Visit:
        coordinator = self._coordinator or default.get()
        process.close_at_exit(coordinator, hold=False)
        use, self._reserved = self._reserved or _Use(coordinator, self._role), None
        if self._per_call:
            lead = (
                coordinator.leadership(self._role, ttl=self._ttl)
                if self._slots is None
                else coordinator.slots(self._role, self._slots, ttl=self._ttl)
            )
            # An exception that a signal handler raises can end a call at any point, and nobody may
            # await what it returns: the role is given back at the latest when this is dropped.
            weakref.finalize(lead, coordinator.portal.post, lead.inner.stop_soon).atexit = False
        else:
            lead = coordinator.shared_leadership(self._role, self._ttl, self._slots, use)
        outer = self._outer_term(coordinator)
        return _Visit(outer, lead, self._per_call and outer is None, use)

    def _outer_term(self, coordinator: Coordinator) -> Term | None:
        """Return the term that the caller runs under, if a candidate of this coordinator got it for
        this role. It may be lost: then the call raises `LeadershipLost`, as the outer one does."""
        outer = current_term()
        if outer is None or not self._is_ours(outer.role):
            return None
        members = tuple(coordinator.session.members)
        is_own = any(isinstance(member, Elector) and member.term is outer for member in members)
        return outer if is_own else None

    def _is_ours(self, role: str) -> bool:
        """Return whether this is the role, or that of one of its slots."""
        if self._slots is None:
            return role == self._role
        return any(role == slot_role(self._role, slot) for slot in range(validation.MAX_SLOTS))

    def _await_later(self, visit: _Visit, work: Awaitable[Any]) -> Coroutine[Any, Any, Any]:
        """Return a coroutine that awaits what a plain function returned, under its term."""
        term, at_most = visit.term, self._at_most
        assert term is not None

        async def awaited() -> Any:
            try:
                return await run_async_under_term(term, at_most, lambda: work)
            finally:
                if inspect.iscoroutine(work):
                    work.close()  # it never ran if the term was lost before
                await self._give_back(visit)

        return awaited()

    async def _give_back(self, visit: _Visit) -> None:
        if visit.gives_back:
            lead, linger = visit.lead, self._linger(visit)
            if visit.term is None:  # it holds nothing, and the store may be silent
                lead.abandon()
                return
            await asyncio.shield(
                lead.coordinator.portal.submit(lambda: lead.inner.stop(linger=linger))
            )

    async def _acquire(self, lead: Leadership) -> Term | None:
        """Return the term to run under, or None to skip the call. It runs on coord's loop."""
        inner, timeout = lead.inner, self._timeout
        if self._otherwise == "wait":
            if self._per_call:
                timeout = await self._until_free(lead, timeout)
            return await inner.acquire(timeout=timeout)
        if not (self._per_call and self._previous_call_runs(lead)):
            term = await (
                inner.acquire(blocking=False, timeout=timeout)
                if self._per_call
                else inner.first_outcome(timeout)
            )
            if term is not None:
                return term
        trouble = lead.coordinator.inner.session.last_error
        if not trouble and not inner.answered:
            trouble = f"the store did not answer within {timeout} s"
        if self._otherwise == "raise":
            raise NotLeader(self._role, trouble)
        if trouble:
            # Perhaps nobody runs the function: unlike a role that another candidate holds, this
            # needs somebody's attention.
            log.warning("leadership.skipped", role=self._role, trouble=trouble)
        else:
            log.info("leadership.skipped", role=self._role)
        return None

    def _previous_call_runs(self, lead: Leadership) -> bool:
        """Return whether a call that has lost its term still runs in this process: another call
        would run at the same time (rule 3)."""
        return any(
            isinstance(member, Elector)
            and self._is_ours(member.role)
            and member.term is not None
            and not member.term.held
            and member.running_jobs > 0
            for member in tuple(lead.coordinator.inner.session.members)
        )

    async def _until_free(self, lead: Leadership, timeout: float | None) -> float | None:
        """Wait for such a call to return, and return what is left of `timeout` then."""
        until = math.inf if timeout is None else time.monotonic() + timeout
        while self._previous_call_runs(lead):
            if time.monotonic() >= until:
                raise AcquireTimeout(
                    self._role, timeout or 0.0, "a call that lost the role has not returned"
                )
            await asyncio.sleep(0.05)
        return None if timeout is None else max(0.0, until - time.monotonic())

    def _linger(self, visit: _Visit) -> float:
        if visit.term is None:
            return 0.0  # the function did not run
        return max(0.0, visit.began + self._at_least - time.monotonic())


class _Use:
    """Keeps a shared candidate, which may have to wait for the role of its call."""

    __slots__ = ("__weakref__", "_coordinator", "_role")

    def __init__(self, coordinator: Coordinator, role: str) -> None:
        self._coordinator, self._role = coordinator, role

    def end(self) -> None:
        self._coordinator.end_shared_call(self._role, self)


class _Visit:
    """One call: the term that it runs under, once it has one, and the candidate that got it."""

    __slots__ = ("began", "gives_back", "lead", "term", "use")

    def __init__(self, term: Term | None, lead: Leadership, gives_back: bool, use: _Use) -> None:
        self.term, self.lead, self.gives_back, self.use = term, lead, gives_back, use
        self.began = time.monotonic()
