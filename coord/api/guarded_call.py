"""What a function under `@leader_only` does when it is called. Apart from the decorator: see
there."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

from coord.api.coordinator import Coordinator
from coord.api.default import default
from coord.api.leadership import Leadership
from coord.election.elector import Elector
from coord.election.term import Term, run_async_under_term, run_under_term
from coord.errors import AcquireTimeout, NotLeader
from coord.runtime import log, process


class GuardedCall:
    """One decorated function's way to its role."""

    def __init__(
        self,
        role: str,
        coordinator: Coordinator | None,
        ttl: float,
        otherwise: str,
        scope: str,
        at_least: float,
        at_most: float | None,
        timeout: float | None,
    ) -> None:
        self._role, self._coordinator, self._ttl = role, coordinator, ttl
        self._otherwise, self._per_call, self._at_least, self._timeout = (
            otherwise,
            scope == "call",
            at_least,
            timeout,
        )
        self._at_most = at_most

    def _candidate(self) -> Leadership:
        coordinator = self._coordinator or default.get()
        process.close_at_exit(coordinator)
        if self._per_call:
            return coordinator.leadership(self._role, ttl=self._ttl)
        return coordinator.shared_leadership(self._role, self._ttl)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        lead, began = self._candidate(), time.monotonic()
        portal = lead.coordinator.portal
        term = lead.held or portal.call(lambda: self._acquire(lead))
        if term is None:
            return None
        try:
            return run_under_term(term, self._at_most, function, *args, **kwargs)
        finally:
            if self._per_call:
                lead.stop(linger=self._linger(began))

    async def call_async(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        lead, began = self._candidate(), time.monotonic()
        portal = lead.coordinator.portal
        # The candidate lives on coord's own thread, so that renewals do not depend on how busy this
        # loop is.
        term = lead.held or await portal.submit(self._acquire(lead))
        if term is None:
            return None
        try:
            return await run_async_under_term(term, self._at_most, function, *args, **kwargs)
        finally:
            if self._per_call:
                await asyncio.shield(portal.submit(lead.inner.stop(linger=self._linger(began))))

    async def _acquire(self, lead: Leadership) -> Term | None:
        """The term to run under, or None to skip the call; on coord's loop."""
        inner, timeout = lead.inner, self._timeout
        if self._otherwise == "wait":
            if self._per_call:
                timeout = await self._until_free(lead, timeout)
            return await inner.acquire(timeout=timeout)
        if not (self._per_call and self._previous_call_runs(lead)):
            term = await (
                inner.acquire(blocking=False) if self._per_call else inner.first_outcome()
            )
            if term is not None:
                return term
        trouble = lead.coordinator.inner.session.last_error
        if self._otherwise == "raise":
            raise NotLeader(self._role, trouble)
        log.info("leadership.skipped", role=self._role, **({"trouble": trouble} if trouble else {}))
        return None

    def _previous_call_runs(self, lead: Leadership) -> bool:
        """Whether a call that has lost its term still runs in this process: another would run
        beside it (rule 3)."""
        return any(
            isinstance(member, Elector)
            and member.role == self._role
            and member.term is not None
            and not member.term.held
            and member.running_jobs > 0
            for member in tuple(lead.coordinator.inner.session.members)
        )

    async def _until_free(self, lead: Leadership, timeout: float | None) -> float | None:
        """Wait for such a call to return; the part of `timeout` that is left then."""
        until = math.inf if timeout is None else time.monotonic() + timeout
        while self._previous_call_runs(lead):
            if time.monotonic() >= until:
                raise AcquireTimeout(
                    self._role, timeout or 0.0, "a call that lost the role has not returned"
                )
            await asyncio.sleep(0.05)
        return None if timeout is None else max(0.0, until - time.monotonic())

    def _linger(self, began: float) -> float:
        return max(0.0, began + self._at_least - time.monotonic())
