"""The tick that `coord once` runs COMMAND for."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from coord.api.once import Once, OnceCall
from coord.core.kept import MAX_KEEP
from coord.core.ticks import TickName, missing_ticks, tick_name, tick_time

if TYPE_CHECKING:
    from coord.api.sync_coordinator import Coordinator
    from coord.api.sync_leadership import Leadership
    from coord.election.term import Term


@dataclass(frozen=True)
class TickOptions:
    """The settings of `coord once`. Durations are in seconds.

    Attributes:
        tick: The tick to run.
        every: The time from one tick to the next, to run those that were left out before `tick`;
            None runs `tick` only.
        retry: Whether a tick whose run has begun and not ended is run again.
        within: How late a tick may be run; None means no limit.
    """

    tick: TickName
    every: float | None
    retry: bool
    within: float | None


class CommandTick:
    """Looks whether COMMAND is to be run, and records that it was.

    Each method waits for the store, so no thread calls it that must answer signals.

    Attributes:
        name: The tick that COMMAND is run for: the given one, or an earlier one that was left out.
        done: The outcome, if somebody has run the tick before.
    """

    def __init__(
        self, options: TickOptions, job: str, coordinator: Coordinator, leadership: Leadership
    ) -> None:
        self._options, self._job = options, job
        self._coordinator, self._leadership = coordinator, leadership
        self._call = self._call_for(options.tick)
        self.name = options.tick
        self.done: Once | None = None

    @property
    def is_last(self) -> bool:
        """Whether no later tick is to be run after this one."""
        return self.name == self._options.tick

    def look(self) -> bool:
        """Choose the tick, before the claim. Return whether the role is to be claimed for it.

        Raises:
            TickTooOld: It is too late for the tick.
            StoreUnavailable: The store did not answer.
            StoreRefused: The store refuses.
        """
        self._call = self._call_for(self._first_missing())
        self.name = self._call.name
        self.done = self._coordinator.portal.call(self._call.look)
        return self.done is None

    def claimed(self, term: Term) -> bool:
        """Return whether COMMAND is to be run under this term; otherwise release the role.

        Raises:
            TickUnfinished: A run has begun that must not be repeated.
            CoordError: As `look`, or the term was lost.
        """
        call = self._coordinator.portal.call
        self.done = call(functools.partial(self._call.claimed, term))
        return self.done is None

    def record(self) -> None:
        """Record that COMMAND has ended well, and release the role.

        Raises:
            CoordError: The store does not keep that, or did not answer.
        """
        result = {"host": os.uname().nodename, "pid": os.getpid()}
        self._coordinator.portal.call(functools.partial(self._call.record, result))

    def _first_missing(self) -> TickName:
        options, name = self._options, self._options.tick
        if options.every is None or isinstance(name, int):
            return name
        ledger = self._coordinator.portal.call(self._call.ledger)
        missing = missing_ticks(ledger, tick_time(name), options.every)
        if options.within is not None:
            now = datetime.now(missing[0].tzinfo)
            in_time = [each for each in missing if (now - each).total_seconds() <= options.within]
            missing = in_time or missing[-1:]
        return tick_name(missing[0])

    def _call_for(self, name: TickName) -> OnceCall:
        options = self._options
        return OnceCall(
            self._coordinator.inner,
            self._job,
            name,
            retry=options.retry,
            within=options.within,
            keep=MAX_KEEP,
            lead=self._leadership.inner,
        )
