"""`@leader_only`: a function that runs only where this process leads the role."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

from coord import checks, events, leaving
from coord import coordinator as coordinators
from coord.coordinator import Coordinator
from coord.errors import AcquireTimeout, BadArgument, NotLeader
from coord.leadership import Leadership
from coord.term import Term
from coord.timing import Timing
from coord.work import run_async_under, run_under

Function = TypeVar("Function", bound=Callable[..., Any])


def leader_only(
    role: str,
    *,
    coordinator: Coordinator | None = None,
    ttl: float = 30.0,
    otherwise: Literal["skip", "wait", "raise"] = "skip",
    scope: Literal["process", "call"] = "process",
    at_least: float = 0.0,
    at_most: float | None = None,
    timeout: float | None = None,
) -> Callable[[Function], Function]:
    """Let a function, method or coroutine function run only under the leadership of `role`.

    coordinator: where; by default the process's own (`COORD_URL`, else the embedded SQLite file), made at the first
        call. Nothing is connected when the decorator is applied.
    ttl: seconds that the lease runs after a renewal.
    scope: "process": from the first call on the process stands for the role, and goes on holding it between calls;
        the first call waits for the outcome of its first claim. "call": each call claims the role, and releases it
        when it returns.
    otherwise: what a call does that finds another leading: "skip" it (returns None; the event `leadership.skipped`
        is logged), "wait" for the role (at most `timeout` seconds, then `AcquireTimeout`), or "raise" `NotLeader`.
    at_least: for scope="call", seconds that the role stays taken from the start of the call, even if the call is
        shorter: clocks a few seconds apart then do not run a short job twice (ShedLock's lockAtLeastFor).

    at_most: seconds that a call may go without `current_term().progress()`, counted from its start, before the role
        is lost (`LossReason.NO_PROGRESS`): others take over once the lease has run out. A call that hangs cannot be
        ended; this process does not claim the role again before it has returned. None: for ever.

    Inside, `coord.current_term()` is the term, with its fencing token. A coroutine is cancelled when the term is
    lost, and the call raises `LeadershipLost`; a plain function finds out by `current_term().check()`.
    Raises `BadArgument` at once for bad settings; a call raises `StoreRefused` when the store will not serve us.
    """
    checks.role(role)
    timing = Timing.of(ttl)
    if otherwise not in ("skip", "wait", "raise"):
        raise BadArgument("otherwise", otherwise, '"skip", "wait" or "raise"')
    if scope not in ("process", "call"):
        raise BadArgument("scope", scope, '"process" or "call"')
    checks.number(at_least, "at_least", low=0, high=checks.MAX_TTL)
    if at_least and scope != "call":
        raise BadArgument("at_least", at_least, 'at_least goes with scope="call"; a process holds its role anyway')
    if timeout is not None:
        checks.number(timeout, "timeout", low=0)
        if otherwise != "wait":
            raise BadArgument("timeout", timeout, 'timeout goes with otherwise="wait"')
    if coordinator is not None and not isinstance(coordinator, Coordinator):
        raise BadArgument("coordinator", coordinator, "a coord.Coordinator (coroutines, too, are guarded by one)")
    guard = _Guard(role, coordinator, timing.ttl, otherwise, scope, at_least, checks.at_most(at_most), timeout)

    def decorate(function: Function) -> Function:
        checks.callback(function, "function")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                return await guard.call_async(function, *args, **kwargs)

            return cast("Function", awaited)

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            return guard.call(function, *args, **kwargs)

        return cast("Function", called)

    return decorate


class _Guard:
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
        self._otherwise, self._per_call, self._at_least, self._timeout = otherwise, scope == "call", at_least, timeout
        self._at_most = at_most

    def _candidate(self) -> Leadership:
        coordinator = self._coordinator or coordinators.default()
        leaving.release_at_exit(coordinator)
        if self._per_call:
            return coordinator.leadership(self._role, ttl=self._ttl)
        return coordinator.shared_leadership(self._role, self._ttl)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        lead, began = self._candidate(), time.monotonic()
        engine = lead.coordinator.engine
        term = lead.held or engine.call(lambda: self._stand(lead))
        if term is None:
            return None
        try:
            return run_under(term, self._at_most, function, *args, **kwargs)
        finally:
            if self._per_call:
                lead.stop(linger=self._rest(began))

    async def call_async(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        lead, began = self._candidate(), time.monotonic()
        engine = lead.coordinator.engine
        # The candidate lives on coord's own thread, so that renewals do not depend on how busy this loop is.
        term = lead.held or await engine.submit(self._stand(lead))
        if term is None:
            return None
        try:
            return await run_async_under(term, self._at_most, function, *args, **kwargs)
        finally:
            if self._per_call:
                await asyncio.shield(engine.submit(lead.inner.stop(linger=self._rest(began))))

    async def _stand(self, lead: Leadership) -> Term | None:
        """The term to run under, or None to skip the call; on coord's loop."""
        inner, timeout = lead.inner, self._timeout
        if self._otherwise == "wait":
            if self._per_call:
                timeout = await self._until_free(lead, timeout)
            return await inner.acquire(timeout=timeout)
        if not (self._per_call and self._busy(lead)):
            term = await (inner.acquire(blocking=False) if self._per_call else inner.first_outcome())
            if term is not None:
                return term
        trouble = lead.coordinator.inner.trouble
        if self._otherwise == "raise":
            raise NotLeader(self._role, trouble)
        events.info("leadership.skipped", role=self._role, **({"trouble": trouble} if trouble else {}))
        return None

    def _busy(self, lead: Leadership) -> bool:
        """Whether a call that has lost its term still runs in this process: another would run beside it (rule 3)."""
        standings = lead.coordinator.inner._standings
        terms = (one.term for one in standings if one.election.role == self._role)
        return any(term is not None and term._jobs and not term.held for term in terms)

    async def _until_free(self, lead: Leadership, timeout: float | None) -> float | None:
        """Wait for such a call to return; the part of `timeout` that is left then."""
        until = math.inf if timeout is None else time.monotonic() + timeout
        while self._busy(lead):
            if time.monotonic() >= until:
                raise AcquireTimeout(self._role, timeout or 0.0, "a call that lost the role has not returned")
            await asyncio.sleep(0.05)
        return None if timeout is None else max(0.0, until - time.monotonic())

    def _rest(self, began: float) -> float:
        return max(0.0, began + self._at_least - time.monotonic())
