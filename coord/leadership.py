"""`Leadership`: a candidate for threaded programs. The loop runs on the coordinator's background thread."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from coord import checks, leaving, spare
from coord.async_leadership import AsyncLeadership
from coord.callbacks import ThreadDispatcher
from coord.errors import BadArgument
from coord.term import Term
from coord.timing import Timing
from coord.work import run_under

if TYPE_CHECKING:
    from coord.coordinator import Coordinator

Function = TypeVar("Function", bound=Callable[..., Any])


class Leadership:
    """Stands for a role for as long as it is started, through every outage, and holds the term when it is elected.

    The same as `AsyncLeadership`, whose settings it takes, for plain threads: each call waits for its outcome, and
    callbacks run in order on a thread of their own (async ones in a loop made for the call).
    """

    def __init__(self, coordinator: Coordinator, role: str, **settings: Any) -> None:
        self.coordinator = coordinator
        self.inner = AsyncLeadership(
            coordinator.inner, role, dispatcher=ThreadDispatcher(f"coord callbacks {role[:40]!r}"), **settings
        )

    def __repr__(self) -> str:
        return repr(self.inner).replace("AsyncLeadership", "Leadership", 1)

    @property
    def role(self) -> str:
        return self.inner.role

    @property
    def timing(self) -> Timing:
        return self.inner.timing

    @property
    def is_leader(self) -> bool:
        """Whether this candidate leads, by the clock: no I/O, and true nowhere for longer than the lease allows."""
        return self.inner.held is not None

    @property
    def term(self) -> Term:
        """The term that is held. Raises `NotLeader` when none is."""
        return self.inner.term

    @property
    def candidate(self) -> str | None:
        """The id of the running incarnation, by which the lease and `candidates()` name it; None when it is stopped."""
        return self.inner.candidate

    @property
    def held(self) -> Term | None:
        """The term that is held, or None."""
        return self.inner.held

    @property
    def started(self) -> bool:
        """Whether it stands for the role."""
        return self.inner.started

    def on_elected(self, function: Function) -> Function:
        """Adds a callback; usable as a decorator."""
        return self.inner.on_elected(function)

    def on_lost(self, function: Function) -> Function:
        """Adds a callback; usable as a decorator."""
        return self.inner.on_lost(function)

    def on_new_leader(self, function: Function) -> Function:
        """Adds a callback; usable as a decorator."""
        return self.inner.on_new_leader(function)

    def start(self) -> None:
        """Stand for the role from now on. Does not wait for anything; does nothing when it stands already."""
        leaving.release_at_exit(self.coordinator)
        self.coordinator.engine.call(self.inner.start)
        if self.inner.callbacks.elected:
            spare.ready()

    def stop(self, *, linger: float = 0.0) -> None:
        """Stand no more: tell `on_lost`, wait for the work to end (`drain_timeout`), then release the lease.

        `linger`: seconds that the role rests before anybody gets it. Work that does not end in time keeps its lease
        until that runs out.
        """
        standing = self.inner._standing
        if standing is not None and self.started:
            stop = functools.partial(self.inner.stop, linger=linger)
            self.coordinator.engine.call(stop, first=functools.partial(standing.stand_down, linger))

    def step_down(self, cooldown: float | None = None) -> None:
        """Hand the role to another: `on_lost`, drain, release. Stands again after `cooldown` seconds (one ttl)."""
        self.coordinator.engine.call(functools.partial(self.inner.step_down, cooldown))

    def transfer(self, to: str) -> None:
        """Hand the role to a certain candidate: `on_lost`, drain, then a release that leaves the role to it alone for a
        while (`renew_every`). If it does not come, anybody gets it, this candidate too, which goes on standing.

        to: a candidate that waits (`coordinator.candidates(role)`): its id, the first four or more characters of it, or
            the `name` in its info. Raises `BadArgument` for any other, `NotLeader`, and what `candidates` raises.
        """
        self.coordinator.engine.call(functools.partial(self.inner.transfer, to))

    def __enter__(self) -> Leadership:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until this candidate leads, at most `timeout` seconds (None: without end). Whether it leads.

        It must have been started; once it is stopped, nobody waits any longer.
        """
        return self.coordinator.engine.call(functools.partial(self.inner.wait, timeout))

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> Term | None:
        """Start, and wait until this candidate leads: its term.

        `blocking=False` waits for the outcome of one claim only, and answers None when another leads. Raises
        `AcquireTimeout` after `timeout` seconds, and `StoreRefused` (`NotSetUp`, `AccessDenied`) when waiting will
        not help. A candidate that was started by a call that failed is stopped again.
        """
        leaving.release_at_exit(self.coordinator)
        return self.coordinator.engine.call(functools.partial(self.inner.acquire, blocking, timeout))

    def release(self) -> None:
        """The other end of `acquire`: the same as `stop()`."""
        self.stop()

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Wait for the role, call `function` under it in this thread, release, and return what it returned.

        The function learns of a loss from `coord.current_term()`: `check()` it before every step that matters.
        """
        checks.callback(function, "function")
        if inspect.iscoroutinefunction(function):
            raise BadArgument("function", function, "a plain function; AsyncLeadership.run takes coroutine functions")
        term = self.acquire()
        assert term is not None  # acquire(blocking=True) raises otherwise
        try:
            term.progress()
            return run_under(term, None, function, *args, **kwargs)
        finally:
            self.stop()
