"""`once`: each tick of a job is run by one caller, and its result is kept.

The job is a role, and its ledger of ticks is kept with the role (`coord/core/ticks.py`):

1.  Read the ledger. A tick that is recorded is answered without a claim.
2.  Claim the role, and read the ledger again, under the new token: what the first read said may be
    out of date.
3.  With `retry=False` record first that the tick has begun, and never run a tick that has begun.
4.  Run the function under the term.
5.  Record the result with the release, in one atomic write that is guarded by the token.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from coord.api.leadership import AsyncLeadership
from coord.core import validation
from coord.core.kept import MAX_KEEP, Values, json_value
from coord.core.ticks import (
    MAX_RESULT_BYTES,
    Entry,
    Ledger,
    Tick,
    TickName,
    nearest_tick,
    tick_name,
    tick_time,
)
from coord.election.kept import KeptText
from coord.election.session import HasSession, Session
from coord.election.term import Term, current_term, run_async_under_term, run_under_term
from coord.errors import BadArgument, CoordError, NotSetUp, TickTooOld, TickUnfinished
from coord.runtime.portal import Portal


@dataclass(frozen=True, slots=True)
class Once:
    """The outcome of one tick of a job.

    Attributes:
        result: What the function returned, as JSON holds it.
        ran: Whether this call ran it. Otherwise an earlier call did.
        token: The fencing token of the term that it ran under.
        at: When it ended: wall time of the machine that ran it, in seconds since 1970.
    """

    result: Any
    ran: bool
    token: int
    at: float


def tick(*, every: float, offset: float = 0.0, at: float | datetime | None = None) -> datetime:
    """Return the nominal time of the tick that is nearest to now: a name for `once`.

    It is the nearest and not the last one, so machines whose clocks differ by less than half of
    `every` agree on it.

    Args:
        every: Seconds from one tick to the next: 3600 for each full hour in UTC.
        offset: Seconds by which ticks are later: with `every=86400`, 7200 means 02:00 UTC.
        at: The time to use instead of now: seconds since 1970, or a datetime with a time zone.

    Raises:
        BadArgument: An argument is invalid.
    """
    return nearest_tick(every, offset, time.time() if at is None else at)


class OnceCall:
    """One call of `once`. Its coroutines run on the loop of the coordinator.

    Args:
        coordinator: The coordinator.
        job: The role of the job.
        tick: The tick to run.
        ttl: The duration of the lease, in seconds.
        retry: Whether a tick is run again if a run of it did not end.
        within: How many seconds the call may come after the tick; None means no limit.
        keep: How many ticks of the job are kept.
        timeout: Seconds to wait while another tick of the job runs; None means no limit.
        lead: The candidate for the role; None makes one.

    Raises:
        BadArgument: An argument is invalid.
    """

    def __init__(
        self,
        coordinator: HasSession,
        job: str,
        tick: Tick,
        *,
        ttl: float = 30.0,
        retry: bool = True,
        within: float | None = None,
        keep: int = MAX_KEEP,
        timeout: float | None = None,
        lead: AsyncLeadership | None = None,
    ) -> None:
        self.job, self.name = validation.elected_role(job, "job"), tick_name(tick)
        if not isinstance(retry, bool):
            raise BadArgument("retry", retry, "must be True or False")
        if isinstance(keep, bool) or not isinstance(keep, int) or not 1 <= keep <= MAX_KEEP:
            raise BadArgument("keep", keep, f"must be an int from 1 to {MAX_KEEP}")
        if within is not None:
            validation.number(within, "within", low=0)
            if isinstance(self.name, int):
                raise BadArgument("within", within, "must be left out if the tick is an int")
        validation.timeout(timeout)
        self._session = coordinator.session
        self._retry, self._within, self._keep, self._timeout = retry, within, keep, timeout
        self.lead = lead or AsyncLeadership(coordinator, self.job, ttl=ttl)
        self.term: Term | None = None
        self._text: KeptText | None = None

    async def begin(self) -> Once | None:
        """Return the outcome if the tick was run before; otherwise None, and `term` is held.

        Raises:
            As `AsyncCoordinator.once`.
        """
        outer = current_term()
        if outer is not None and outer.role == self.job:
            raise CoordError(
                f"cannot run tick {self.name} of {self.job!r}: this call runs under the role of "
                "the job, and would wait for its own end; use another job"
            )
        done = await self.look()
        if done is not None:
            return done
        term = await self.lead.acquire(timeout=self._timeout)
        assert term is not None  # acquire(blocking=True) raises otherwise
        try:
            done = await self.claimed(term)
        except BaseException:
            await self.lead.stop()
            raise
        if done is not None:
            await self.lead.stop()
        return done

    async def ledger(self) -> Ledger:
        """Return the ledger as it is before the claim, empty if there is no store yet."""
        with contextlib.suppress(NotSetUp):  # a first claim creates a SQLite file
            return await read_ledger(self._session, self.job)
        return Ledger()

    async def look(self) -> Once | None:
        """Return the outcome if the tick was run before; otherwise None: claim the role."""
        return self._outcome(await self.ledger(), claimed=False)

    async def claimed(self, term: Term) -> Once | None:
        """Look again under the new term, which `lead` holds. Return the outcome if the tick was run
        before; otherwise None: run the tick."""
        elector = self.lead.elector
        assert elector is not None  # nobody else stops this candidate
        self.term, self._text = term, elector.kept_text
        # Another caller may have run the tick since the first read.
        done = self._outcome(Ledger.decode(self.job, (await self._text.values()).ticks))
        if done is None and not self._retry:
            await self._write(Entry(self.name, term.token, time.time(), begun=True))
        return done

    async def record(self, result: Any) -> Once:
        """Record what the run returned, with the release of the role.

        Raises:
            As `AsyncCoordinator.once`.
        """
        try:
            allowed = f"must be what JSON can hold, in at most {MAX_RESULT_BYTES:,} bytes"
            copied, size = json_value(result, "result", allowed)
            if size > MAX_RESULT_BYTES:
                raise BadArgument("result", result, f"{allowed}; it has {size:,}")
            assert self.term is not None  # `begin` has returned None
            entry = Entry(self.name, self.term.token, time.time(), result=copied)
            await self._write(entry, stop=True)
        finally:
            await self.lead.stop()
        return Once(copied, True, entry.token, entry.at)

    async def give_back(self) -> None:
        """Release the role without a record, if it is held."""
        await self.lead.stop()

    def _outcome(self, ledger: Ledger, *, claimed: bool = True) -> Once | None:
        """Return the outcome of the tick if it was run, and None if it may be run now."""
        ledger.check_kind(self.name)
        entry = ledger.get(self.name)
        if entry is not None and not entry.begun:
            return Once(entry.result, False, entry.token, entry.at)
        if ledger.is_forgotten(self.name):
            raise TickTooOld(
                self.job,
                self.name,
                f"only ticks after {ledger.below} are kept, so nobody knows whether it was run",
            )
        if self._within is not None and isinstance(self.name, str):
            late = time.time() - tick_time(self.name).timestamp()
            if late > self._within:
                detail = f"it is {late:,.0f} s late, more than within={self._within:g} allows"
                raise TickTooOld(self.job, self.name, detail)
        # Before the claim, the run that has begun may be under way.
        if entry is not None and claimed and not self._retry:
            raise TickUnfinished(self.job, self.name, entry.token, entry.at)
        return None

    async def _write(self, entry: Entry, *, stop: bool = False) -> None:
        def change(values: Values) -> Values:
            ledger = Ledger.decode(self.job, values.ticks).with_entry(entry, self._keep)
            return Values(values.notes, ledger.encode())

        def shows(values: Values) -> bool | None:
            ledger = Ledger.decode(self.job, values.ticks)
            return None if ledger.is_forgotten(self.name) else ledger.get(self.name) == entry

        assert self._text is not None  # it is set by the claim
        send = self.lead.stop_soon if stop else None
        await self._text.write(change, send=send, shows=shows)


async def read_ledger(session: Session, job: str) -> Ledger:
    """Return the ledger of a job."""
    kept = await session.kept(job)
    return Ledger.decode(job, Values.decode(job, kept.text).ticks)


async def look_up(session: Session, job: str, tick: Tick) -> Once | None:
    """Return the outcome of a tick that was run; None if it was not."""
    validation.role(job, "job")
    name: TickName = tick_name(tick)
    ledger = await read_ledger(session, job)
    ledger.check_kind(name)
    entry = ledger.get(name)
    if entry is None and ledger.is_forgotten(name):
        detail = f"only ticks after {ledger.below} are kept, so nobody knows whether it was run"
        raise TickTooOld(job, name, detail)
    if entry is None or entry.begun:
        return None
    return Once(entry.result, False, entry.token, entry.at)


async def run_async(call: OnceCall, function: Callable[..., Any], *args: Any) -> Once:
    """Run a function once for the tick of `call`, on this event loop."""
    done = await call.begin()
    if done is not None:
        return done
    assert call.term is not None
    try:
        if inspect.iscoroutinefunction(function):
            result = await run_async_under_term(call.term, None, function, *args)
        else:
            result = run_under_term(call.term, None, function, *args)
        return await call.record(result)
    finally:
        await call.give_back()


def run_sync(portal: Portal, call: OnceCall, function: Callable[..., Any], *args: Any) -> Once:
    """Run a plain function once for the tick of `call`, in this thread."""
    given_back = False
    try:
        done = portal.call(call.begin)
        if done is None:
            assert call.term is not None
            try:
                result = run_under_term(call.term, None, function, *args)
                done = portal.call(functools.partial(call.record, result))
            finally:
                portal.call(call.give_back)
        given_back = True
        return done
    finally:
        if not given_back:  # a signal handler may have raised at any point
            portal.post(call.lead.stop_soon)
