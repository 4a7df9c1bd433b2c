"""The guardian: a small process that starts COMMAND and ends it before the lease can expire.

The runner renews the lease and talks to the store. It may be killed, be stopped, or hang. The
guardian does not depend on it: it has one thread, no store and no log, and it writes to nothing
that could block it. It knows only the deadline of the term, which the runner extends through a
pipe. It ends COMMAND's process group in four cases:

- The runner is gone: SIGTERM at once; SIGKILL `grace` later, or at the deadline if that is sooner.
- The deadline is near: SIGTERM at deadline - grace, SIGKILL at the deadline.
- The runner says so: SIGTERM at once; SIGKILL when it says, or at the deadline if that is sooner.
- COMMAND ends by itself: SIGTERM to the rest of its group, SIGKILL one second later.

If the guardian itself is killed, the kernel kills COMMAND (`process.die_with`), and the runner
kills its group. The deadline is one `margin` before the lease expires: within that time a SIGKILL
must take effect.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Collection, Sequence

from coord.cli.run import pipe, process
from coord.cli.run.pipe import Cause, Command, Report
from coord.cli.run.process import spawn
from coord.runtime.clock import total_seconds

LEFTOVERS_WAIT = 1.0
"""Seconds that the rest of the group may take to end after COMMAND has ended by itself."""
SLICE = 0.25
"""Seconds that one select() takes at most while COMMAND runs.

Unlike the deadline, select() does not count suspend."""
POLL = 0.02
"""Seconds between two checks whether the group has ended. There is no event for that."""

KEEP_DEFAULT = {
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGCHLD,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
}


class Guardian:
    """Starts COMMAND, and ends it in time. `watch()` is everything that the process does."""

    def __init__(
        self,
        command: Sequence[str],
        orders: int,
        reports: int,
        grace: float,
        runner_group: int,
        ignored: Collection[signal.Signals],
    ) -> None:
        self.command = command
        self.grace = grace
        self.runner_group = runner_group
        self.ignored = ignored
        self.orders = pipe.Reader(orders)
        self.reports = reports
        self.deadline = 0.0
        self.child = 0
        self.status: int | None = None
        self.cause = Cause.BY_ITSELF
        self.kill_at: float | None = None
        self.over = False

    def watch(self) -> None:
        """Obey commands until COMMAND and its group have ended.

        It also returns if the runner ends before COMMAND was started.
        """
        self._woken, wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        try:
            while not self.over:
                waiting = [self._woken] if self.orders.ended else [self._woken, self.orders.fd]
                ready, _, _ = select.select(waiting, [], [], self._pause())
                if self._woken in ready:
                    os.read(self._woken, 4096)
                if self.orders.fd in ready:
                    self._obey()
                if self.child:
                    self._reap()
                    self._enforce()
        finally:
            if (
                self.child and not self.over
            ):  # a defect, of ours: never leave COMMAND without a guardian
                _signal_group(self.child, signal.SIGKILL)

    def _obey(self) -> None:
        for kind, payload in self.orders.frames():
            if kind == Command.START:
                self._start(pipe.moment(payload), pipe.parse_variables(payload[pipe.MOMENT.size :]))
            elif kind == Command.EXTEND:
                self.deadline = max(self.deadline, pipe.moment(payload))
            elif kind == Command.SIGNAL and self.child and self.status is None:
                self._pass_on(*pipe.NUMBER.unpack(payload))
            elif kind == Command.END and self.child:
                self._end(pipe.moment(payload), Cause.ORDERED)
        if self.orders.ended:
            if self.child:
                self._end(total_seconds() + self.grace, Cause.RUNNER_GONE)
            else:
                self.over = True

    def _start(self, deadline: float, more: dict[bytes, bytes]) -> None:
        self.deadline = max(self.deadline, deadline)
        if (
            total_seconds() >= self.deadline - self.grace
        ):  # the runner was held up: it is too late to begin
            self._finish(Cause.DEADLINE, 0)
            return
        self.child = spawn(self.command, {**os.environb, **more}, self.runner_group, self.ignored)
        pipe.write(self.reports, Report.STARTED, pipe.NUMBER.pack(self.child))

    def _pass_on(self, number: int) -> None:
        if number == signal.SIGCONT:
            _signal_group(self.child, number)  # as fg and bg do
        else:
            os.kill(self.child, number)  # It is not reaped, so the id is still valid.

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid != self.child:
                continue  # an orphan that this process adopted
            if os.WIFSTOPPED(status):
                pipe.write(self.reports, Report.STOPPED, pipe.NUMBER.pack(os.WSTOPSIG(status)))
            else:
                self.status = status

    def _enforce(self) -> None:
        now = total_seconds()
        if self.status is not None and not _group_lives(self.child):
            self._finish(self.cause, self.status)
            return
        if self.kill_at is None:
            if self.status is not None:
                self._end(now + LEFTOVERS_WAIT, Cause.BY_ITSELF)
            elif now >= self.deadline - self.grace:
                self._end(self.deadline, Cause.DEADLINE)
        if self.kill_at is not None and now >= min(self.kill_at, self.deadline):
            _signal_group(self.child, signal.SIGKILL)

    def _end(self, kill_at: float, cause: Cause) -> None:
        if self.kill_at is None:
            self.kill_at = kill_at
            if self.status is None:
                self.cause = cause
            _signal_group(self.child, signal.SIGTERM)
            _signal_group(self.child, signal.SIGCONT)  # lets a stopped process end
        self.kill_at = min(self.kill_at, kill_at, self.deadline)

    def _pause(self) -> float | None:
        if not self.child:
            return None
        if self.status is not None:
            return POLL
        now = total_seconds()
        if self.kill_at is None:
            return max(0.0, min(self.deadline - self.grace - now, SLICE))
        return min(max(POLL, self.kill_at - now), SLICE)

    def _finish(self, cause: Cause, status: int) -> None:
        pipe.write(self.reports, Report.FINISHED, pipe.ENDED.pack(cause.value, status))
        self.over = True


def live(guardian: Guardian) -> None:
    """Turn a process that was just forked into the guardian. This never returns."""
    status = 70
    try:
        for number in signal.valid_signals() - KEEP_DEFAULT:
            try:
                signal.signal(
                    number, signal.SIG_IGN
                )  # what is meant for the job goes to the runner
            except OSError:
                continue
        # A signal to the group of the runner must not reach the guardian. A new session also
        # protects it from a hangup of the terminal, but COMMAND could then not use the terminal.
        if process.foreground() is None:
            os.setsid()
        else:
            os.setpgid(0, 0)
        process.adopt_orphans()
        guardian.watch()
        status = 0
    finally:
        os._exit(status)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _signal_group(group: int, number: int) -> None:
    # The group is empty, or has only processes of other users, which this process may not end.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
