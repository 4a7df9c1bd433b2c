"""The runner behind `coord run`: stands by, has COMMAND started, moves the guardian's deadline on, gives the role back.

One select() loop on the main thread waits for everything: signals, the guardian's reports, and what other threads have
to say (elected; lost). It never asks the store itself, so that nothing there can hold up a signal.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from coord import clock
from coord.cli import exit_codes, terminal
from coord.cli.guarded import Guarded
from coord.cli.wire import Cause
from coord.errors import AcquireTimeout, CoordError
from coord.lease import Lease, LossReason

if TYPE_CHECKING:
    from coord.coordinator import Coordinator
    from coord.leadership import Leadership
    from coord.term import Term

PASSED_ON = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGCONT,
)
ENDING_A_STANDBY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""The others mean something to COMMAND, and nothing while there is none."""

ANNOUNCE_AFTER = 0.3
"""Seconds of waiting after which we say that we stand by: a role that is free is had sooner."""
TAKEN_GRACE = 0.2
"""Seconds between SIGTERM and SIGKILL when somebody else holds the role already."""
FAREWELL = 3.0
"""Seconds that a standby's goodbye to the store may take: nothing depends on it."""

_HEARD = 0
"""In the pipe that wakes the loop: a thread has something to say. Every other byte is the number of a signal."""


@dataclass(frozen=True)
class Job:
    """What `coord run` was asked to do. Durations in seconds."""

    role: str
    ttl: float
    margin: float
    grace: float
    wait: bool
    timeout: float | None
    info: Mapping[str, Any]


def say(text: str) -> None:
    """One line on stderr."""
    print(f"coord run: {text}", file=sys.stderr, flush=True)


class Runner:
    """`run()` is the whole of it. `guarded` was forked before `coordinator` was made."""

    def __init__(self, job: Job, guarded: Guarded, coordinator: Coordinator, full_url: str) -> None:
        self.job = job
        self.guarded = guarded
        self.coordinator = coordinator
        self.full_url = full_url
        self._woken, self._wake_fd = os.pipe()
        for fd in (self._woken, self._wake_fd):
            os.set_blocking(fd, False)
        self._term: Term | None = None
        self._error: BaseException | None = None
        self._led_by = "led by somebody else"
        self._trouble = ""
        self._answered = False
        self._signals: list[int] = []
        self._backstop: float | None = None
        self._ended = threading.Event()

    def run(self) -> int:
        """The exit status. Raises no `CoordError`: what goes wrong is said on stderr."""
        self._route_signals()
        try:
            leadership = self.coordinator.leadership(
                self.job.role, ttl=self.job.ttl, info=self.job.info, on_lost=self._until_ended
            )
        except CoordError as err:
            say(str(err))
            return exit_codes.of(err)
        status = self._stand_by(leadership)
        if status is not None:
            self._ended.set()
            self._in_thread(lambda: self._leave(leadership)).join(FAREWELL)
            return status
        status = self._work()
        self._leave(leadership)
        return status

    # -- standing by --------------------------------------------------------------------------------------------

    def _stand_by(self, leadership: Leadership) -> int | None:
        """Wait for the role. None once we lead, or the status to exit with."""
        self._in_thread(lambda: self._acquire(leadership))
        announce: float | None = clock.total_seconds() + ANNOUNCE_AFTER if self.job.wait else None
        while not self._answered:
            self._wait(None if announce is None else announce - clock.total_seconds())
            for number in self._taken_signals():
                if number in ENDING_A_STANDBY:
                    return exit_codes.SIGNALLED + number
            if self.guarded.gone:
                say("the guardian process has gone; start me again")
                return exit_codes.GUARDIAN_DIED
            if announce is not None and clock.total_seconds() >= announce and not self._answered:
                announce = None
                self._in_thread(self._announce)
        if self._term is not None:
            return None
        return self._why_not()

    def _acquire(self, leadership: Leadership) -> None:
        try:
            self._term = leadership.acquire(blocking=self.job.wait, timeout=self.job.timeout if self.job.wait else None)
            if self._term is None:
                self._led_by = self._leader()
        except BaseException as err:
            self._error = err
        self._trouble = self.coordinator.inner.trouble
        self._answered = True
        self._wake()

    def _why_not(self) -> int:
        """We do not have the role: because of its leader, or because of the store?"""
        err = self._error
        if err is not None and not isinstance(err, CoordError):
            raise err
        if isinstance(err, AcquireTimeout) or err is None:
            if self._trouble:
                say(f"the store does not answer ({self._trouble}); see `coord doctor`")
                return exit_codes.UNAVAILABLE
            if err is None:
                say(f"not started: {self.job.role!r} is {self._led_by}")
                return exit_codes.TAKEN
        say(str(err))
        return exit_codes.of(err)

    def _leader(self) -> str:
        lease = self.coordinator.leader(self.job.role)
        return "led by nobody yet" if lease is None else f"led by {who(lease)}, token {lease.token}"

    def _announce(self) -> None:
        try:
            by = self._leader()
        except CoordError as err:
            by = str(err)
        if not self._answered:
            say(f"standing by for {self.job.role!r}: {by}")

    # -- leading ------------------------------------------------------------------------------------------------

    def _work(self) -> int:
        """Run COMMAND for as long as we lead. The status to exit with; COMMAND and its group have ended by then."""
        term, guarded = self._term, self.guarded
        assert term is not None
        environment = {"COORD_ROLE": self.job.role, "COORD_TOKEN": str(term.token), "COORD_URL": self.full_url}
        deadline = term.deadline
        guarded.start(environment, deadline)
        term.lost.when_set(self._wake)
        pause = min(self.job.ttl / 20, 0.25)
        while guarded.finished is None and not guarded.gone:
            self._wait(pause)
            if term.deadline > deadline and not term.lost.is_set():
                deadline = term.deadline
                guarded.extend(deadline)
            for number in self._taken_signals():
                self._pass_on(number)
            if guarded.stopped:
                guarded.stopped = False
                self._stop_too()
            if term.lost.is_set():
                self._end(term)
        return self._finish(term)

    def _pass_on(self, number: int) -> None:
        if number == signal.SIGCONT and self.guarded.child is not None:
            terminal.hand_over(os.getpgrp(), to=self.guarded.child)  # a shell's fg gave it to us
        self.guarded.pass_on(number)

    def _stop_too(self) -> None:
        """COMMAND was stopped from the terminal (Ctrl-Z): give the terminal back, and stop as a job of the shell's.

        Nothing renews then: if no `fg` or `bg` comes in time, the guardian ends COMMAND and the role passes.
        """
        child = self.guarded.child
        if child is None or not terminal.hand_over(child, to=os.getpgrp()):
            return
        if terminal.has_shell():
            os.killpg(0, signal.SIGTSTP)
        else:  # nobody could continue us
            self._pass_on(signal.SIGCONT)

    def _end(self, term: Term) -> None:
        """The term is over. The guardian has acted on the deadline by itself, or shall act now; we, if it does not."""
        now = clock.total_seconds()
        if self._backstop is None:
            grace = TAKEN_GRACE if term.reason is LossReason.TAKEN else self.job.grace
            kill_at = min(now + min(grace, self.job.grace), max(term.deadline, now))
            self.guarded.end(kill_at)
            self._backstop = kill_at + min(0.25, self.job.margin / 4)
        elif now >= self._backstop:
            self._wait(0)  # its report may have come meanwhile
            if self.guarded.finished is None:
                self.guarded.force()

    def _finish(self, term: Term) -> int:
        child = self.guarded.child
        if self.guarded.finished is None:
            clean = self.guarded.force()
            if clean:
                self._ended.set()
            status = exit_codes.LOST if term.lost.is_set() else exit_codes.GUARDIAN_DIED
            say("the guardian process was killed; " + ("COMMAND was ended" if clean else "COMMAND may not have ended"))
        else:
            self._ended.set()
            status = self.guarded.finished.status
            if self.guarded.finished.cause is not Cause.BY_ITSELF:
                status = exit_codes.LOST
                reason = str(term.reason) if term.lost.is_set() else "no renewal in time"
                say(f"lost the leadership of {self.job.role!r} (token {term.token}): {reason}; COMMAND was ended")
        if child is not None:
            terminal.hand_over(child, to=os.getpgrp())
        return status

    def _until_ended(self, term: Term, reason: LossReason) -> None:
        """`on_lost`: the term's work goes on until COMMAND has ended; only then is the lease released (rule 3)."""
        self._ended.wait()

    def _leave(self, leadership: Leadership) -> None:
        """Stop standing; give the role back, if we have it."""
        self.guarded.close()
        self.guarded.bury()
        for step in (leadership.release, self.coordinator.close):
            try:
                step()
            except CoordError as err:
                say(str(err))

    # -- waiting ------------------------------------------------------------------------------------------------

    def _route_signals(self) -> None:
        """Have signals come through the pipe, as bytes, in order; and be able to write to a terminal from behind."""
        for number in PASSED_ON:
            if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP:  # SIGHUP: nohup
                signal.signal(number, _noted)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wake_fd, warn_on_full_buffer=False)

    def _wait(self, seconds: float | None) -> None:
        reports = self.guarded.fileno()
        ready, _, _ = select.select([self._woken, reports], [], [], None if seconds is None else max(seconds, 0.0))
        if self._woken in ready:
            self._signals += [number for number in os.read(self._woken, 4096) if number != _HEARD]
        if reports in ready:
            self.guarded.hear()

    def _taken_signals(self) -> list[int]:
        taken, self._signals = self._signals, []
        return taken

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it is awake
            os.write(self._wake_fd, bytes([_HEARD]))

    def _in_thread(self, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, daemon=True, name="coord run")
        thread.start()
        return thread


def who(lease: Lease) -> str:
    """A leader's name for people: where it says that it runs, or else its id."""
    host, pid = lease.info.get("host"), lease.info.get("pid")
    if not host:
        return f"candidate {lease.holder}"
    return f"pid {pid} on {host}" if pid else str(host)


def _noted(number: int, frame: FrameType | None) -> None:
    """The number went into the pipe already (signal.set_wakeup_fd)."""
