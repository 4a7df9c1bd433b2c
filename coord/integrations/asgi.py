"""FastAPI and Starlette with a leader among their workers: a lifespan, a dependency, periodic jobs.

    lead = Lead("report", ttl=10, info={"url": "http://app1.example:8000"})
    app = FastAPI(lifespan=lead.lifespan)

It needs the extra `coord[web]`, or Starlette, which FastAPI contains.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard, TypeVar, overload
from urllib.parse import quote, urlsplit

try:
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
except ImportError as err:
    raise ImportError(
        "cannot use coord.integrations.asgi: Starlette is not installed; "
        "run: pip install 'coord[web]'"
    ) from err

from coord.api.coordinator import AsyncCoordinator
from coord.api.leadership import AsyncLeadership
from coord.core import validation
from coord.core.lease import Lease, LossReason
from coord.election.term import Term, run_async_under_term
from coord.errors import (
    BadArgument,
    CoordError,
    CoordinatorClosed,
    LeadershipLost,
    StoreUnavailable,
)
from coord.runtime import log
from coord.runtime.retry import Backoff
from coord.runtime.shutdown import before_shutdown
from coord.runtime.timers import finished, within

VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
"""The visible ASCII characters."""
RETRY_FIRST, RETRY_MAX = 1.0, 5.0
"""Seconds, at most, until the watch of the leader is opened again after the store failed: after the
first failure, and after any."""

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]
Job = Callable[[], Awaitable[object]]
AnyJob = TypeVar("AnyJob", bound=Job)
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Periodic:
    job: Job
    seconds: float
    at_most: float | None


class Lead:
    """The candidate of an application process for one role.

    It becomes a candidate when the application starts. At SIGTERM and SIGINT it gives the role back
    at once, although requests and streams may keep the server from ending. All durations are in
    seconds.

    Args:
        role: The role: a string of 1 to 120 bytes.
        coordinator: A coordinator to use, which belongs to the event loop of the application and is
            not closed. None means a new one at each start, which is closed at the end.
        url: The URL of the store for a new coordinator; None means the environment variable
            `COORD_URL`, and without that a SQLite file in the state directory of the user.
        otherwise: What `required` answers where this process does not lead: "refuse" (503) or
            "redirect" (307 to the `url` in the leader's info, else 503).
        retry_after: The seconds in the header Retry-After of a 503; 1 or more.
        ttl: Lease duration. If the leader crashes, another process takes over after at most this
            time.
        info: What others see of this candidate, such as {"url": "http://app1.example:8000"}.
        drain_timeout: Time for which the end of a term waits for periodic jobs; None means the
            ttl.
        priority: See `AsyncLeadership`.
        min_tenure: See `AsyncLeadership`.

    Raises:
        BadArgument: An argument is invalid.
    """

    def __init__(
        self,
        role: str,
        *,
        coordinator: AsyncCoordinator | None = None,
        url: str | None = None,
        otherwise: Literal["refuse", "redirect"] = "refuse",
        retry_after: int = 1,
        ttl: float = 30.0,
        info: Mapping[str, Any] | None = None,
        drain_timeout: float | None = None,
        priority: int = 0,
        min_tenure: float | None = None,
    ) -> None:
        if coordinator is not None and not isinstance(coordinator, AsyncCoordinator):
            raise BadArgument("coordinator", coordinator, "must be an AsyncCoordinator, or None")
        if coordinator is not None and url is not None:
            raise BadArgument("url", url, "must be None if there is a coordinator")
        if otherwise not in ("refuse", "redirect"):
            raise BadArgument("otherwise", otherwise, 'must be "refuse" or "redirect"')
        if not isinstance(retry_after, int) or isinstance(retry_after, bool) or retry_after < 1:
            raise BadArgument("retry_after", retry_after, "must be a whole number from 1 on")
        self.role = validation.elected_role(role)
        self._coordinator, self._url = coordinator, url
        self._redirects, self._retry_after = otherwise == "redirect", retry_after
        self._options: dict[str, Any] = {
            "ttl": ttl,
            "info": info,
            "drain_timeout": drain_timeout,
            "priority": priority,
            "min_tenure": min_tenure,
        }
        if url is not None:
            AsyncCoordinator(url)  # raises for an invalid URL now, and connects to nothing
        AsyncCoordinator("memory://").leadership(self.role, **self._options)  # likewise
        self._elected: list[Callable[[Term], object]] = [self._begin_jobs]
        self._lost: list[Callable[[Term, LossReason], object]] = []
        self._jobs: list[_Periodic] = []
        self._running: set[asyncio.Task[None]] = set()
        self._used = threading.Lock()  # held while an application runs, from before its start
        self._leadership: AsyncLeadership | None = None
        self._leader: Lease | None = None

    def __repr__(self) -> str:
        term = self.held
        return f"<Lead of {self.role!r}, {f'token {term.token}' if term else 'not leading'}>"

    @property
    def leadership(self) -> AsyncLeadership:
        """The candidate, for `step_down` and `transfer`.

        Raises:
            CoordError: The application has not started.
        """
        if self._leadership is None:
            raise CoordError(
                f"cannot use the candidate for {self.role!r}: the application has not started; "
                "pass lead.lifespan to it, as in FastAPI(lifespan=lead.lifespan)"
            )
        return self._leadership

    @property
    def held(self) -> Term | None:
        """The term that this process holds; None if it does not lead."""
        return None if self._leadership is None else self._leadership.held

    @property
    def is_leader(self) -> bool:
        """Whether this process leads, by the clock."""
        return self.held is not None

    @property
    def leader(self) -> Lease | None:
        """The lease of the leader as this process last heard of it; None if nobody leads."""
        return self._leader

    def on_elected(self, function: Function) -> Function:
        """Call `function(term)` when a term begins; usable as a decorator, before the start.

        The callback runs on the event loop, so it must not block.
        """
        self._elected.append(function)
        return function

    def on_lost(self, function: Function) -> Function:
        """Call `function(term, reason)` when a term has ended; usable as a decorator, before the
        start.

        The callback runs on the event loop, so it must not block.
        """
        self._lost.append(function)
        return function

    @overload
    def every(self, seconds: float, job: AnyJob, *, at_most: float | None = None) -> AnyJob: ...

    @overload
    def every(
        self, seconds: float, *, at_most: float | None = None
    ) -> Callable[[AnyJob], AnyJob]: ...

    def every(
        self, seconds: float, job: AnyJob | None = None, *, at_most: float | None = None
    ) -> AnyJob | Callable[[AnyJob], AnyJob]:
        """Run a coroutine function on the leader again and again, under the term.

        The first run begins when the process is elected, the next `seconds` after the beginning of
        the one before, and never before its end. A run that raises is logged (`asgi.job_failed`),
        and the next one begins in time. When the term ends, the run is cancelled. Usable as a
        decorator: `@lead.every(60)`.

        Args:
            seconds: Time between the beginnings of two runs.
            job: The coroutine function, without parameters. `coord.current_term()` is its term.
            at_most: Time that a run may go without `term.progress()` before the role is lost; None
                means no limit.

        Raises:
            BadArgument: An argument is invalid.
        """
        validation.number(seconds, "seconds", low=0, above=True)
        if at_most is not None:
            validation.number(at_most, "at_most", low=0, above=True)
        if job is None:
            return functools.partial(self.every, seconds, at_most=at_most)
        is_async: bool = inspect.iscoroutinefunction(job)
        if not is_async:
            raise BadArgument("job", job, "must be a coroutine function (async def)")
        self._jobs.append(_Periodic(job, seconds, at_most))
        return job

    async def required(self, request: Request) -> Term:
        """Return the term of this process, or answer the request for it.

        A dependency of FastAPI: `term: Term = Depends(lead.required)`. In Starlette:
        `term = await lead.required(request)`. Call `term.check()` before each step that matters,
        and send `term.token` with writes.

        Raises:
            HTTPException: This process does not lead. The status is 503 with Retry-After, or 307.
        """
        term = self.leadership.held
        if term is not None:
            return term
        leader = self._leader
        if leader is not None and leader.holder == self.leadership.candidate:
            leader = None  # the feed has not shown the end of the own term yet
        base = None if leader is None else leader.info.get("url")
        own = self.leadership.info.get("url")  # `update` may have changed it
        if self._redirects and _is_base(base) and base != own:
            raise HTTPException(307, headers={"Location": _below(base, request)})
        where = f"; the leader is at {base}" if _is_base(base) and base != own else ""
        who = "another process leads" if leader is not None else "nobody leads"
        raise HTTPException(
            503, f"{who} {self.role!r}{where}", {"Retry-After": str(self._retry_after)}
        )

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """Be a candidate while the application runs: `FastAPI(lifespan=lead.lifespan)`.

        An application that is mounted in another one has no lifespan of its own: pass this to the
        outer one.

        Args:
            app: The application.

        Raises:
            StoreRefused: The store is not set up, or denies access. A store that does not answer is
                no error: this process becomes a candidate when it does.
        """
        async with self._candidate():
            yield

    def lifespan_with(self, other: Lifespan) -> Lifespan:
        """Return a lifespan of which this candidate is the inner part.

        The candidate starts after `other` has started, and gives the role back before `other` ends.

        Args:
            other: A lifespan: `async with other(app) as state`. It may be that of another `Lead`.
        """

        @contextlib.asynccontextmanager
        async def both(app: Any) -> AsyncIterator[Any]:
            async with other(app) as state, self._candidate():
                yield state

        return both

    @contextlib.asynccontextmanager
    async def _candidate(self) -> AsyncIterator[None]:
        if not self._used.acquire(blocking=False):
            raise CoordError(
                f"cannot start the candidate for {self.role!r}: an application of this process has "
                "started it already"
            )
        try:
            async with self._started_candidate():
                yield
        finally:
            self._used.release()

    @contextlib.asynccontextmanager
    async def _started_candidate(self) -> AsyncIterator[None]:
        coordinator = self._coordinator or AsyncCoordinator(self._url)
        try:
            with contextlib.suppress(StoreUnavailable):
                await coordinator.check()
            leadership = coordinator.leadership(
                self.role, **self._options, on_elected=self._elected, on_lost=self._lost
            )
            self._leadership = leadership
            loop = asyncio.get_running_loop()

            def stop_soon() -> None:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(leadership.stop_soon)

            following = loop.create_task(self._follow(coordinator), name="coord asgi")
            forget = before_shutdown(stop_soon)
            try:
                await leadership.start()
                yield
            finally:
                forget()
                await leadership.stop()
                following.cancel()
                await asyncio.gather(following, *self._running, return_exceptions=True)
        finally:
            self._leadership = self._leader = None
            if self._coordinator is None:
                await coordinator.close()

    async def _follow(self, coordinator: AsyncCoordinator) -> None:
        """Keep `leader` up to date, so that no request waits for the store."""
        backoff = Backoff(RETRY_FIRST, RETRY_MAX)
        while True:
            try:
                async for lease in coordinator.watch_leader(self.role):
                    self._leader = lease
                    backoff.reset()
                    if lease is not None and not lease.info:  # the feed of RethinkDB carries none
                        rows = await coordinator.session.read([self.role])
                        self._leader = next((row for row in rows if row.led), None)
            except CoordinatorClosed:
                return
            except CoordError:
                self._leader = None
            await asyncio.sleep(backoff.next())

    def _begin_jobs(self, term: Term) -> None:
        # Tasks of their own: `on_lost` would wait for a callback that goes on.
        for periodic in self._jobs:
            task = asyncio.get_running_loop().create_task(self._repeat(term, periodic))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _repeat(self, term: Term, periodic: _Periodic) -> None:
        loop = asyncio.get_running_loop()
        while term.held:
            began = loop.time()
            run = await finished(run_async_under_term(term, periodic.at_most, periodic.job))
            err = asyncio.CancelledError() if run.cancelled() else run.exception()
            if err is not None:
                this_term = (self.role, term.token)
                if isinstance(err, LeadershipLost) and (err.role, err.token) == this_term:
                    return
                name = getattr(periodic.job, "__qualname__", repr(periodic.job))
                log.error("asgi.job_failed", err, role=self.role, token=term.token, job=name)
            with contextlib.suppress(asyncio.TimeoutError):
                await within(_lost(term), max(0.0, began + periodic.seconds - loop.time()))


async def _lost(term: Term) -> None:
    await term.lost


def _is_base(url: object) -> TypeGuard[str]:
    """Return whether requests can be sent to this URL. Anybody who writes to the store chose it."""
    if not isinstance(url, str) or len(url) > 2000 or not url.isascii():
        return False
    # Browsers read a backslash as a slash, and what follows ? or # is no path. Nor may all who
    # send a request see a password, which stands before an @.
    if any(not "!" <= char <= "~" or char in "\\?#" for char in url):
        return False
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 # raises for an invalid port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def _below(base: str, request: Request) -> str:
    """Return the URL of a request at another server."""
    scope = request.scope
    path = scope.get("raw_path") or quote(scope["path"]).encode()
    query = scope.get("query_string", b"")
    target = path.partition(b"?")[0] + (b"?" + query if query else b"")
    # Some servers accept other bytes than visible ASCII, which no header of an answer may contain.
    return base.rstrip("/") + quote(target, safe=VISIBLE)
