"""`@leader_only`: a function that runs only where this process leads the role.

What it needs to run is imported when such a function is first called (`coord/api/guarded_call.py`):
a program that is only asked for its `--help` does not pay for asyncio. A coroutine function is
called on a loop, which must not wait for imports: for that they are done at once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from coord.core import validation
from coord.core.timing import Timing
from coord.errors import BadArgument

if TYPE_CHECKING:
    from coord.api.coordinator import Coordinator
    from coord.api.guarded_call import GuardedCall

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

    coordinator: where; by default the process's own (`COORD_URL`, else the embedded SQLite file),
    made at the first
        call. Nothing is connected when the decorator is applied.
    ttl: seconds that the lease runs after a renewal.
    scope: "process": from the first call on the process stands for the role, and goes on holding it
    between calls;
        the first call waits for the outcome of its first claim. "call": each call claims the role,
        and releases it when it returns.
    otherwise: what a call does that finds another leading: "skip" it (returns None; the event
    `leadership.skipped`
        is logged), "wait" for the role (at most `timeout` seconds, then `AcquireTimeout`), or
        "raise" `NotLeader`.
    at_least: for scope="call", seconds that the role stays taken from the start of the call, even
    if the call is
        shorter: clocks a few seconds apart then do not run a short job twice (ShedLock's
        lockAtLeastFor).

    at_most: seconds that a call may go without `current_term().progress()`, counted from its start,
    before the role
        is lost (`LossReason.NO_PROGRESS`): others take over once the lease has run out. A call that
        hangs cannot be ended; this process does not claim the role again before it has returned.
        None: for ever.

    Inside, `coord.current_term()` is the term, with its fencing token. A coroutine is cancelled
    when the term is lost, and the call raises `LeadershipLost`; a plain function finds out by
    `current_term().check()`. Raises `BadArgument` at once for bad settings; a call raises
    `StoreRefused` when the store will not serve us."""
    validation.role(role)
    timing = Timing.of(ttl)
    if otherwise not in ("skip", "wait", "raise"):
        raise BadArgument("otherwise", otherwise, '"skip", "wait" or "raise"')
    if scope not in ("process", "call"):
        raise BadArgument("scope", scope, '"process" or "call"')
    validation.number(at_least, "at_least", low=0, high=validation.MAX_TTL)
    if at_least and scope != "call":
        raise BadArgument(
            "at_least", at_least, 'at_least goes with scope="call"; a process holds its role anyway'
        )
    if timeout is not None:
        validation.number(timeout, "timeout", low=0)
        if otherwise != "wait":
            raise BadArgument("timeout", timeout, 'timeout goes with otherwise="wait"')
    if coordinator is not None:
        _check_coordinator(coordinator)
    at_most = validation.at_most(at_most)

    @functools.lru_cache(maxsize=1)
    def guard() -> GuardedCall:
        from coord.api.guarded_call import GuardedCall

        return GuardedCall(
            role, coordinator, timing.ttl, otherwise, scope, at_least, at_most, timeout
        )

    def decorate(function: Function) -> Function:
        validation.callback(function, "function")
        if inspect.iscoroutinefunction(function):
            guard()

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                return await guard().call_async(function, *args, **kwargs)

            return cast("Function", awaited)

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            return guard().call(function, *args, **kwargs)

        return cast("Function", called)

    return decorate


def _check_coordinator(given: object) -> None:
    from coord.api.coordinator import Coordinator

    if not isinstance(given, Coordinator):
        raise BadArgument(
            "coordinator", given, "a coord.Coordinator (coroutines, too, are guarded by one)"
        )
