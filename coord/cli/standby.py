"""Standing by: the wait for the role, on a thread of its own, and what is told about it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

from coord.cli import exit_codes, foreign
from coord.cli.inbox import in_thread
from coord.cli.job import Job, say
from coord.errors import AcquireTimeout, CoordError
from coord.lease import Lease

if TYPE_CHECKING:
    from coord.coordinator import Coordinator
    from coord.leadership import Leadership
    from coord.term import Term

ANNOUNCE_AFTER = 0.3
"""Seconds of waiting after which we say that we stand by: a role that is free is had sooner."""


class Standby:
    """Begins at once. `tell` is called once `answered` is true: then `term` is there, or `why_not()` tells why not."""

    def __init__(self, job: Job, coordinator: Coordinator, leadership: Leadership, tell: Callable[[], None]) -> None:
        self.job, self._coordinator, self._leadership, self._tell = job, coordinator, leadership, tell
        self.answered = False
        self.term: Term | None = None
        self._led_by = ""
        self._trouble = ""
        self._error: BaseException | None = None
        in_thread(self._acquire)

    def _acquire(self) -> None:
        job = self.job
        try:
            self.term = self._leadership.acquire(blocking=job.wait, timeout=job.timeout if job.wait else None)
            self._trouble = self._coordinator.inner.trouble
            if self.term is None and not self._trouble:
                self._led_by = self._leader()
        except BaseException as err:
            self._trouble = self._coordinator.inner.trouble
            self._error = err
        self.answered = True
        self._tell()

    def why_not(self) -> int:
        """Say why we do not have the role, because of its leader or because of the store; the exit status."""
        err = self._error
        if err is not None and not isinstance(err, CoordError):
            raise err
        if self._trouble and (err is None or isinstance(err, AcquireTimeout)):
            say(f"the store does not answer ({self._trouble}); `coord doctor` tells more")
            return exit_codes.UNAVAILABLE
        if err is None:
            say(f"not started: {self.job.role!r} is {self._led_by}")
            return exit_codes.TAKEN
        say(str(err))
        return exit_codes.of(err)

    def announce(self) -> None:
        """Say that we stand by, and who leads, without waiting for the store."""
        in_thread(self._announce)

    def _announce(self) -> None:
        try:
            by = self._leader()
        except CoordError as err:
            by = str(err)
        except CancelledError:
            return  # the coordinator was closed meanwhile: we stand by no more
        if not self.answered:
            say(f"standing by for {self.job.role!r}: {by}")

    def _leader(self) -> str:
        lease = self._coordinator.leader(self.job.role)
        return "led by nobody yet" if lease is None else f"led by {who(lease)}, token {lease.token}"


def who(lease: Lease) -> str:
    """A leader's name for people: where it says that it runs, or else its id."""
    return foreign.who(lease.holder, lease.info)
