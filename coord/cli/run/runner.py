"""What `coord run` was asked to do, and how it speaks to people."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coord.cli import exit_codes, output
from coord.cli.run import process
from coord.cli.run.guardian_client import GuardianClient
from coord.cli.run.pipe import Cause
from coord.cli.run.signals import SignalInbox, start_daemon_thread
from coord.core.lease import Lease, LossReason
from coord.errors import AcquireTimeout, CoordError
from coord.runtime import clock

if TYPE_CHECKING:
    from coord.api.coordinator import Coordinator
    from coord.api.leadership import Leadership
    from coord.election.term import Term


@dataclass(frozen=True)
class RunOptions:
    """Durations in seconds."""

    role: str
    ttl: float
    margin: float
    grace: float
    wait: bool
    timeout: float | None
    info: Mapping[str, Any]
    priority: int
    min_tenure: float
    full_url: str
    """Secrets included: for COMMAND's environment, and nowhere else."""


def print_status(text: str) -> None:
    """One line on stderr."""
    print(f"coord run: {output.one_line(text)}", file=sys.stderr, flush=True)


# -- Standing by: the wait for the role, on a thread of its own, and what is told about it.

ANNOUNCE_AFTER = 0.3
"""Seconds of waiting after which we say that we stand by: a role that is free is had sooner."""


class Standby:
    """Begins at once. `tell` is called once `answered` is true: then `term` is there, or
    `why_not()` tells why not."""

    def __init__(
        self,
        job: RunOptions,
        coordinator: Coordinator,
        leadership: Leadership,
        tell: Callable[[], None],
    ) -> None:
        self.job, self._coordinator, self._leadership, self._tell = (
            job,
            coordinator,
            leadership,
            tell,
        )
        self.answered = False
        self.term: Term | None = None
        self._led_by = ""
        self._trouble = ""
        self._error: BaseException | None = None
        start_daemon_thread(self._acquire)

    def _acquire(self) -> None:
        job = self.job
        try:
            self.term = self._leadership.acquire(
                blocking=job.wait, timeout=job.timeout if job.wait else None
            )
            self._trouble = self._coordinator.session.last_error
            if self.term is None and not self._trouble:
                self._led_by = self._leader()
        except BaseException as err:
            self._trouble = self._coordinator.session.last_error
            self._error = err
        self.answered = True
        self._tell()

    def why_not(self) -> int:
        """Say why we do not have the role, because of its leader or because of the store; the exit
        status."""
        err = self._error
        if err is not None and not isinstance(err, CoordError):
            raise err
        if self._trouble and (err is None or isinstance(err, AcquireTimeout)):
            print_status(f"the store does not answer ({self._trouble}); `coord doctor` tells more")
            return exit_codes.UNAVAILABLE
        if err is None:
            print_status(f"not started: {self.job.role!r} is {self._led_by}")
            return exit_codes.TAKEN
        print_status(str(err))
        return exit_codes.of(err)

    def announce(self) -> None:
        """Say that we stand by, and who leads, without waiting for the store."""
        start_daemon_thread(self._announce)

    def _announce(self) -> None:
        try:
            by = self._leader()
        except CoordError as err:
            by = str(err)
        except CancelledError:
            return  # the coordinator was closed meanwhile: we stand by no more
        if not self.answered:
            print_status(f"standing by for {self.job.role!r}: {by}")

    def _leader(self) -> str:
        lease = self._coordinator.leader(self.job.role)
        return (
            "led by nobody yet"
            if lease is None
            else f"led by {describe_leader(lease)}, token {lease.token}"
        )


def describe_leader(lease: Lease) -> str:
    """A leader's name for people: where it says that it runs, or else its id."""
    return output.describe_candidate(lease.holder, lease.info)


# -- The runner behind `coord run`: stands by, has COMMAND started, moves the guardian's deadline
# on, gives the role back. Its main thread never asks the store itself, so that nothing there can
# hold up a signal.
#

ENDING_A_STANDBY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""The others mean something to COMMAND, and nothing while there is none."""
TAKEN_GRACE = 0.2
"""Seconds between SIGTERM and SIGKILL when somebody else holds the role already."""
FAREWELL = 3.0
"""Seconds that the goodbye to the store may take: a lease that is not given back runs out. A leader
tries ttl / 3."""


class Runner:
    """`run()` is the whole of it. `guarded` was forked before `coordinator` was made."""

    def __init__(self, job: RunOptions, guarded: GuardianClient, coordinator: Coordinator) -> None:
        self.job = job
        self.guarded = guarded
        self.coordinator = coordinator
        self.inbox = SignalInbox(guarded)
        self._backstop: float | None = None
        self._ended = threading.Event()

    def run(self) -> int:
        """The exit status. A `CoordError` is raised only for settings that will not do; the rest is
        said on stderr."""
        leadership = self.coordinator.leadership(
            self.job.role,
            ttl=self.job.ttl,
            info=self.job.info,
            priority=self.job.priority,
            min_tenure=self.job.min_tenure,
            on_lost=self._until_ended,
        )
        standby = Standby(self.job, self.coordinator, leadership, self.inbox.wake)
        status = self._stand_by(standby)
        if status is not None:
            self._ended.set()
            self._leave(FAREWELL)
            return status
        term = standby.term
        assert term is not None
        status = self._work(term)
        if not self._leave(max(FAREWELL, self.job.ttl / 3)):
            print_status(
                f"{self.job.role!r} could not be given back; it is free once the lease runs out ({self.job.ttl:g} s)"
            )
        return status

    def _stand_by(self, standby: Standby) -> int | None:
        """Wait for the role. None once we lead, or the status to exit with."""
        announce: float | None = clock.total_seconds() + ANNOUNCE_AFTER if self.job.wait else None
        while not standby.answered:
            self.inbox.wait(None if announce is None else announce - clock.total_seconds())
            for number in self.inbox.signals():
                if number in ENDING_A_STANDBY:
                    return exit_codes.SIGNALLED + number
            if self.guarded.gone:
                print_status("the guardian process has gone; start me again")
                return exit_codes.GUARDIAN_DIED
            if announce is not None and clock.total_seconds() >= announce and not standby.answered:
                announce = None
                standby.announce()
        return None if standby.term is not None else standby.why_not()

    def _work(self, term: Term) -> int:
        """Run COMMAND for as long as we lead. The status to exit with; COMMAND and its group have
        ended by then."""
        guarded = self.guarded
        deadline = term.deadline
        guarded.start(
            {
                "COORD_ROLE": self.job.role,
                "COORD_TOKEN": str(term.token),
                "COORD_URL": self.job.full_url,
            },
            deadline,
        )
        term.lost.when_set(self.inbox.wake)
        pause = min(self.job.ttl / 20, 0.25)
        while guarded.finished is None and not guarded.gone:
            self.inbox.wait(pause)
            if term.deadline > deadline and not term.lost.is_set():
                deadline = term.deadline
                guarded.extend(deadline)
            for number in self.inbox.signals():
                self._pass_on(number)
            if guarded.stopped:
                guarded.stopped = False
                self._stop_too()
            if term.lost.is_set():
                self._end(term)
        return self._finish(term)

    def _pass_on(self, number: int) -> None:
        if number == signal.SIGCONT and self.guarded.child is not None:
            process.hand_over(os.getpgrp(), to=self.guarded.child)  # a shell's fg gave it to us
        self.guarded.pass_on(number)

    def _stop_too(self) -> None:
        """COMMAND was stopped from the terminal (Ctrl-Z): give the terminal back, and stop as a job
        of the shell's.

        Nothing renews then: if no `fg` or `bg` comes in time, the guardian ends COMMAND and the
        role passes."""
        child = self.guarded.child
        if child is None or not process.hand_over(child, to=os.getpgrp()):
            return
        if process.has_shell():
            os.killpg(0, signal.SIGTSTP)
        else:  # nobody could continue us
            self._pass_on(signal.SIGCONT)

    def _end(self, term: Term) -> None:
        """The term is over. The guardian has acted on the deadline by itself, or shall act now; we,
        if it does not."""
        now = clock.total_seconds()
        if self._backstop is None:
            grace = (
                min(self.job.grace, TAKEN_GRACE)
                if term.reason is LossReason.TAKEN
                else self.job.grace
            )
            kill_at = min(now + grace, max(term.deadline, now))
            self.guarded.end(kill_at)
            self._backstop = kill_at + min(0.25, self.job.margin / 4)
        elif now >= self._backstop:
            self.inbox.wait(0)  # its report may have come meanwhile
            if self.guarded.finished is None:
                self.guarded.force()

    def _finish(self, term: Term) -> int:
        finished, child = self.guarded.finished, self.guarded.child
        if finished is None:
            known = self.guarded.force()
            if known:
                self._ended.set()
            print_status(
                "the guardian process was killed; COMMAND "
                + ("was ended" if known else "may not have ended")
            )
            status = exit_codes.LOST if term.lost.is_set() else exit_codes.GUARDIAN_DIED
        else:
            self._ended.set()
            status = finished.status
            if finished.cause is not Cause.BY_ITSELF:
                reason = str(term.reason) if term.lost.is_set() else "no renewal in time"
                print_status(
                    f"lost the leadership of {self.job.role!r} (token {term.token}): {reason}; COMMAND was ended"
                )
                status = exit_codes.LOST
        if child is not None:
            process.hand_over(child, to=os.getpgrp())
        return status

    def _until_ended(self, term: Term, reason: LossReason) -> None:
        """`on_lost`: the term's work goes on until COMMAND has ended; only then is the lease
        released (rule 3)."""
        self._ended.wait()

    def _leave(self, within: float) -> bool:
        """Stop standing; give the role back, if we have it. Whether that was done `within` seconds,
        uninterrupted."""
        left = threading.Event()

        def leave() -> None:
            try:
                self.coordinator.close()  # which releases
            except CoordError as err:
                print_status(str(err))
            left.set()
            self.inbox.wake()

        start_daemon_thread(leave)
        until = clock.total_seconds() + within
        while not left.is_set() and clock.total_seconds() < until:
            self.inbox.wait(until - clock.total_seconds())
            if any(number in ENDING_A_STANDBY for number in self.inbox.signals()):
                break
        self.guarded.close()
        self.guarded.bury()
        return left.is_set()
