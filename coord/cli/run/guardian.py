"""The guardian: a small process that starts COMMAND and ends it before the lease can expire.

The runner renews the lease and talks to the store. It may be killed, be stopped, or hang. The
guardian does not depend on it: it has one thread, no store and no log, and it writes to nothing
that could block it. It knows only the deadline of the term, which the runner extends through a
pipe. It ends COMMAND and all its descendants in four cases:

- The runner is gone: SIGTERM at once; SIGKILL `grace` later, or at the deadline if that is sooner.
- The deadline is near: SIGTERM at deadline - grace, SIGKILL at the deadline.
- The runner says so: SIGTERM at once; SIGKILL when it says, or at the deadline if that is sooner.
- COMMAND ends by itself: SIGTERM to what it left behind, SIGKILL one second later.

On Linux the guardian is a subreaper: a descendant of COMMAND whose parent ends becomes a child of
the guardian, whatever group or session it moved to. So the guardian knows that all have ended when
it has no child. It reports those that do not end after SIGKILL.

If the guardian itself is killed, the kernel kills COMMAND (`process.die_with`), and the runner
kills the rest. The deadline is one `margin` before the lease expires: within that time a SIGKILL
must take effect.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Collection, Mapping, Sequence

from coord.cli.run import descendants, pipe, process
from coord.cli.run.pipe import Cause, Command, Report
from coord.cli.run.process import spawn
from coord.runtime.clock import total_seconds

LEFTOVERS_WAIT = 1.0
"""Seconds that descendants may take to end after COMMAND has ended by itself."""
KILL_WAIT = 1.0
"""Seconds after SIGKILL until a process that still lives is reported as one that cannot be ended.
"""
SLICE = 0.25
"""Seconds that one select() takes at most while COMMAND runs.

Unlike the deadline, select() does not count suspend."""
POLL = 0.02
"""Seconds between two checks whether the descendants have ended."""
NOT_LISTED = "of unknown number"
"""Describes processes that /proc does not list."""
NAME = "role-guardian"
"""The name of the process. It does not contain `coord`, so that `killall coord` and `pkill coord`
reach the runner only, and the guardian then ends COMMAND."""

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
    """Starts COMMAND, and ends it in time. `watch()` is everything that the process does.

    Args:
        command: The words of COMMAND.
        orders: The descriptor from which to read commands of the runner.
        reports: The descriptor to which to write reports.
        grace: Seconds between SIGTERM and SIGKILL.
        runner_group: The process group of the runner.
        ignored: The signals that COMMAND ignores when it starts.
        environment: The environment of COMMAND, without the variables that the runner adds.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        orders: int,
        reports: int,
        grace: float,
        runner_group: int,
        ignored: Collection[signal.Signals],
        environment: Mapping[bytes, bytes],
    ) -> None:
        self.command = command
        self.grace = grace
        self.runner_group = runner_group
        self.ignored = ignored
        self.environment = environment
        self.subreaper = False
        self.orders = pipe.Reader(orders)
        self.reports = reports
        self.deadline = 0.0
        self.child = 0
        self.status: int | None = None
        self.cause = Cause.BY_ITSELF
        self.kill_at: float | None = None
        self.killed_at: float | None = None
        self.over = False
        self._childless = False

    def watch(self) -> None:
        """Obey commands until COMMAND and its descendants have ended.

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
            if self.child and not self.over:
                # This process has a defect. It must not leave COMMAND without a guardian.
                descendants.end_all(os.getpid(), self.child, KILL_WAIT)

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
        if total_seconds() >= self.deadline - self.grace:  # The runner was delayed for too long.
            self._finish(Cause.DEADLINE, 0)
            return
        self.child = spawn(
            self.command, {**self.environment, **more}, self.runner_group, self.ignored
        )
        pipe.write(self.reports, Report.STARTED, pipe.NUMBER.pack(self.child))

    def _pass_on(self, number: int) -> None:
        try:
            if number == signal.SIGCONT:
                os.killpg(self.child, number)  # as fg and bg do
            else:
                os.kill(self.child, number)  # It is not reaped, so the id is still valid.
        except ProcessLookupError:
            pass
        except PermissionError:  # COMMAND runs as another user.
            pipe.write(self.reports, Report.NOT_PERMITTED, pipe.NUMBER.pack(number))

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                self._childless = True
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
        if self.status is not None and self._all_ended():
            self._finish(self.cause, self.status)
            return
        if self.kill_at is None:
            if self.status is not None:
                self._end(now + LEFTOVERS_WAIT, Cause.BY_ITSELF)
            elif now >= self.deadline - self.grace:
                self._end(self.deadline, Cause.DEADLINE)
        if self.kill_at is not None and now >= self.kill_at:
            self._kill(now)

    def _all_ended(self) -> bool:
        if not self._childless:
            return False
        return self.subreaper or not descendants.living(os.getpid(), self.child)

    def _end(self, kill_at: float, cause: Cause) -> None:
        if self.kill_at is None:
            self.kill_at = kill_at
            if self.status is None:
                self.cause = cause
            for number in (signal.SIGTERM, signal.SIGCONT):  # A stopped process must run to end.
                descendants.signal_all(os.getpid(), self.child, number)
        self.kill_at = min(self.kill_at, kill_at, self.deadline)

    def _kill(self, now: float) -> None:
        survivors = descendants.signal_all(os.getpid(), self.child, signal.SIGKILL)
        if self.killed_at is None:
            self.killed_at = now
        elif now >= self.killed_at + KILL_WAIT:
            self._reap()
            if not self._all_ended():
                names = [str(survivor) for survivor in survivors] or [NOT_LISTED]
                self._finish(self.cause, self.status or 0, names)

    def _pause(self) -> float | None:
        if not self.child:
            return None
        if self.status is not None:
            return POLL
        now = total_seconds()
        if self.kill_at is None:
            return max(0.0, min(self.deadline - self.grace - now, SLICE))
        return min(max(POLL, self.kill_at - now), SLICE)

    def _finish(self, cause: Cause, status: int, survivors: Sequence[str] = ()) -> None:
        pipe.write(self.reports, Report.FINISHED, pipe.ended(cause, status, survivors))
        self.over = True


def live(guardian: Guardian) -> None:
    """Turn a process that was just forked into the guardian. This never returns."""
    status = 70
    try:
        for number in signal.valid_signals() - KEEP_DEFAULT:
            try:
                # Signals that are meant for COMMAND go to the runner.
                signal.signal(number, signal.SIG_IGN)
            except OSError:
                continue
        # A signal to the group of the runner must not reach the guardian. A new session also
        # protects it from a hangup of the terminal, but COMMAND could then not use the terminal.
        if process.foreground() is None:
            os.setsid()
        else:
            os.setpgid(0, 0)
        process.rename(NAME)
        guardian.subreaper = process.adopt_orphans()
        guardian.watch()
        status = 0
    except BaseException as err:
        _report_defect(guardian, f"coord run: the guardian failed: {type(err).__name__}: {err}\n")
    finally:
        os._exit(status)


def _report_defect(guardian: Guardian, text: str) -> None:
    """Print why the guardian ends, and let the runner know that it ends.

    The runner may kill this process as soon as it knows, so the text comes first. It comes last if
    nobody reads stderr: the runner must not wait for that.
    """
    _, writable, _ = select.select([], [2], [], 0)
    if writable:
        os.write(2, text.encode())
    os.close(guardian.reports)
    if not writable:
        os.write(2, text.encode())
