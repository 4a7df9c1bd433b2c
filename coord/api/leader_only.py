"""`@leader_only`: a function that runs only where this process leads the role.

A call needs asyncio, which is imported when such a function is first called
(`coord/api/guarded_call.py`): a program that is only asked for its `--help` does not need it. A
coroutine function is called on an event loop, which must not wait for imports; for it they are done
when it is decorated.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar, overload

from coord.core import validation
from coord.core.role_template import RoleSource, RoleTemplate, is_template
from coord.core.timing import Timing
from coord.errors import BadArgument

if TYPE_CHECKING:
    from coord.api.guarded_call import GuardedCall
    from coord.api.guarded_calls import GuardedCalls
    from coord.api.once_per import OncePerTick
    from coord.api.sync_coordinator import Coordinator
    from coord.core.ticks import Tick

Function = TypeVar("Function", bound=Callable[..., Any])
P = ParamSpec("P")
T = TypeVar("T")

NO_GENERATOR = (
    "must not be a generator function, whose body runs after the call has returned: "
    "decorate the function that iterates over it"
)


class SkippingDecorator(Protocol):
    """What `leader_only` returns if a call may be skipped: the function then returns None."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> Callable[P, Coroutine[Any, Any, T | None]]: ...

    @overload
    def __call__(self, function: Callable[P, T], /) -> Callable[P, T | None]: ...


class Decorator(Protocol):
    """What `leader_only` returns if no call is skipped."""

    def __call__(self, function: Function, /) -> Function: ...


@overload
def leader_only(
    role: RoleSource,
    *,
    coordinator: Coordinator | None = None,
    ttl: float = 30.0,
    otherwise: Literal["skip"] = "skip",
    scope: Literal["process", "call"] | None = None,
    at_least: float = 0.0,
    at_most: float | None = None,
    timeout: float | None = None,
    slots: int | None = None,
    max_roles: int = 10_000,
) -> SkippingDecorator: ...


@overload
def leader_only(
    role: RoleSource,
    *,
    coordinator: Coordinator | None = None,
    ttl: float = 30.0,
    otherwise: Literal["wait", "raise"],
    scope: Literal["process", "call"] | None = None,
    at_least: float = 0.0,
    at_most: float | None = None,
    timeout: float | None = None,
    slots: int | None = None,
    max_roles: int = 10_000,
) -> Decorator: ...


@overload
def leader_only(
    role: RoleSource,
    *,
    once_per: str | Callable[..., Tick],
    coordinator: Coordinator | None = None,
    ttl: float = 30.0,
    timeout: float | None = None,
    retry: bool = True,
) -> Decorator: ...


def leader_only(
    role: RoleSource,
    *,
    coordinator: Coordinator | None = None,
    ttl: float = 30.0,
    otherwise: Literal["skip", "wait", "raise"] = "skip",
    scope: Literal["process", "call"] | None = None,
    at_least: float = 0.0,
    at_most: float | None = None,
    timeout: float | None = None,
    slots: int | None = None,
    max_roles: int = 10_000,
    once_per: str | Callable[..., Tick] | None = None,
    retry: bool = True,
) -> Callable[..., Any]:
    """Let a function, method or coroutine function run only while this process leads `role`.

    Inside, `coord.current_term()` is the term, with its fencing token. When the term is lost, a
    coroutine function is cancelled, and the call raises `LeadershipLost`. A plain function learns
    of the loss by `coord.current_term().check()`. A decorated function that calls another one of
    the same role and coordinator runs it under its own term.

    Nothing is connected when the decorator is applied. A decorated function can be pickled, unless
    it has a coordinator of its own.

    Args:
        role: The role: a string of 1 to 120 bytes. In `"report-{tenant}"` the value of the argument
            `tenant` of each call replaces the braces: a string, an integer, a UUID, a date or an
            Enum. `%`, `/`, `#` and control characters of a value are percent-encoded. A lambda
            gets the arguments that its parameters name, and returns the role.
        coordinator: The coordinator to use. None means the default one of the process, which the
            first call makes for `COORD_URL`, and without that for a SQLite file in the state
            directory of the user.
        ttl: Lease duration in seconds. If the leader crashes, another candidate takes over after at
            most this time.
        otherwise: What a call does if another candidate leads. "skip" returns None and logs the
            event `leadership.skipped`; "wait" waits for the role; "raise" raises `NotLeader`.
        scope: "process" keeps the role between calls, until the process ends: for a program that
            runs all the time. The first call waits for the result of its first claim. "call" claims
            the role for each call, and releases it when the call returns: for a program that ends.
            None means "call" for a role that depends on the arguments, and otherwise "process".
        at_least: For scope "call": seconds from the start of a call for which the role stays taken,
            even if the call is shorter. The same job, started on several machines at about the same
            time, then runs once.
        at_most: Seconds that a call may go without `coord.current_term().progress()` before the
            role is lost (`LossReason.NO_PROGRESS`). Another candidate takes over when the lease has
            expired. coord cannot end a call that hangs; this process does not claim the role again
            before it has returned. None means no limit.
        timeout: Seconds that a call waits for the role. For otherwise "wait", the call raises
            `AcquireTimeout` then, and None means no limit. For "skip" and "raise", this limits how
            long a call waits for a store that does not answer; None means three attempts, which is
            half of the ttl.
        slots: How many may hold the role at a time, 1 to 64, as with `Coordinator.slots`; None
            means one.
        max_roles: For a role that depends on the arguments: how many roles this process keeps at a
            time. With scope "process", a role that was not used for longest, is not held and runs
            no call makes room for another one; if there is none, the call raises `TooManyRoles`.
        once_per: The name of the parameter that names the tick, or a function of the arguments that
            returns it: the function then runs once for each tick, as `Coordinator.once` does, and
            a call returns the result, new or kept. It waits while another tick of the job runs.
            None means that calls have no ticks.
        retry: With `once_per`: whether a tick is run again if a run of it did not end.

    Raises:
        BadArgument: A setting is invalid, or the function is a generator function. A call raises
            `StoreRefused` (`NotSetUp`, `AccessDenied`) if the store refuses to serve it.
    """
    templated = is_template(role)
    if not templated:
        validation.elected_role(role)
    timing = Timing.of(ttl)
    if otherwise not in ("skip", "wait", "raise"):
        raise BadArgument("otherwise", otherwise, 'must be "skip", "wait" or "raise"')
    explicit_scope, scope = scope, scope or ("call" if templated else "process")
    if scope not in ("process", "call"):
        raise BadArgument("scope", scope, 'must be "process" or "call"')
    validation.number(at_least, "at_least", low=0, high=validation.MAX_TTL)
    if at_least and scope != "call":
        allowed = 'must be 0 with scope="process", which keeps the role between calls'
        raise BadArgument("at_least", at_least, allowed)
    if timeout is not None:
        validation.timeout(timeout)
    if coordinator is not None:
        _check_coordinator(coordinator)
    at_most = validation.at_most(at_most)
    slots = None if slots is None else validation.slots(slots)
    validation.number(max_roles, "max_roles", low=1)
    if once_per is not None:
        plain = otherwise == "skip" and at_least == 0 and at_most is None and slots is None
        if not plain or explicit_scope is not None:
            allowed = "must be left out with otherwise, scope, at_least, at_most or slots"
            raise BadArgument("once_per", once_per, allowed)
    settings = {
        "ttl": timing.ttl,
        "otherwise": otherwise,
        "scope": scope,
        "at_least": at_least,
        "at_most": at_most,
        "timeout": timeout,
        "slots": slots,
    }

    def decorate(function: Any) -> Any:
        if isinstance(function, (staticmethod, classmethod)):
            return type(function)(decorate(function.__func__))
        validation.callback(function, "function")
        if _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function):
            raise BadArgument("function", function, NO_GENERATOR)
        if once_per is not None:
            ticks = _TickGuard(
                role,
                function,
                once_per,
                coordinator=coordinator,
                ttl=timing.ttl,
                retry=retry,
                timeout=timeout,
            )
            return ticks.decorate()
        guard = _Guard(role, function if templated else None, max_roles, coordinator, settings)
        if _is(inspect.iscoroutinefunction, function):
            guard.load()

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                return await guard.get(args, kwargs).call_async(function, *args, **kwargs)

            return awaited

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            return guard.get(args, kwargs).call(function, *args, **kwargs)

        return called

    return decorate


class _Guard:
    """The settings of a decorator, and what the first call makes of them.

    A decorated function that is pickled by value (cloudpickle) takes the settings with it.
    """

    def __init__(
        self,
        role: RoleSource,
        function: Callable[..., Any] | None,
        max_roles: int,
        coordinator: Coordinator | None,
        settings: Mapping[str, Any],
    ) -> None:
        self._arguments = (role, function, max_roles, coordinator, settings)
        self._role, self._max_roles = role, max_roles
        self._template = None if function is None else RoleTemplate(role, function)
        self._coordinator, self._settings = coordinator, settings
        self._calls: GuardedCalls | None = None

    def load(self) -> GuardedCalls:
        if self._calls is None:
            from coord.api.guarded_calls import GuardedCalls

            self._calls = GuardedCalls(self._max_roles, self._coordinator, **self._settings)
        return self._calls

    def get(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> GuardedCall:
        if self._template is not None:
            return self.load().templated(self._template.role(args, kwargs))
        return self.load().plain(str(self._role))

    def __reduce__(self) -> tuple[Any, ...]:
        if self._coordinator is not None:
            allowed = "must be left out where the function is pickled; set COORD_URL instead"
            raise BadArgument("coordinator", self._coordinator, allowed)
        return type(self), self._arguments


class _TickGuard:
    """Runs a function once for each tick, which its arguments name."""

    def __init__(
        self,
        role: RoleSource,
        function: Callable[..., Any],
        once_per: str | Callable[..., Tick],
        *,
        coordinator: Coordinator | None,
        ttl: float,
        retry: bool,
        timeout: float | None,
    ) -> None:
        if not isinstance(retry, bool):
            raise BadArgument("retry", retry, "must be True or False")
        self._function, self._once_per = function, once_per
        self._role = role
        self._template = RoleTemplate(role, function) if is_template(role) else None
        self._signature = inspect.signature(function)
        if not callable(once_per) and once_per not in self._signature.parameters:
            names = ", ".join(self._signature.parameters) or "it has none"
            allowed = f"must be a parameter of the function ({names}), or a function of them"
            raise BadArgument("once_per", once_per, allowed)
        self._settings = (coordinator, ttl, retry, timeout)
        self._runner: OncePerTick | None = None

    def decorate(self) -> Callable[..., Any]:
        function = self._function
        if _is(inspect.iscoroutinefunction, function):
            self._load()

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                named = self._name(args, kwargs)
                return await self._load().call_async(*named, function, *args, **kwargs)

            return awaited

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            return self._load().call(*self._name(args, kwargs), function, *args, **kwargs)

        return called

    def _load(self) -> OncePerTick:
        if self._runner is None:
            from coord.api.once_per import OncePerTick

            self._runner = OncePerTick(*self._settings)
        return self._runner

    def _name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, Tick]:
        """Return the job and the tick of a call."""
        job = str(self._role) if self._template is None else self._template.role(args, kwargs)
        if callable(self._once_per):
            return job, self._once_per(*args, **kwargs)
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return job, bound.arguments[self._once_per]


def _is(kind: Callable[[Any], bool], function: Any) -> bool:
    """Return whether a callable is a function of that kind, or an object whose calls are."""
    while isinstance(function, functools.partial):
        function = function.func
    return kind(function) or kind(type(function).__call__)


def _check_coordinator(argument: object) -> None:
    from coord.api.sync_coordinator import Coordinator

    if not isinstance(argument, Coordinator):
        allowed = "must be a coord.Coordinator; coroutine functions need one, too"
        raise BadArgument("coordinator", argument, allowed)
