"""The runner's side of the guardian: it sends commands and reads reports.

If the guardian fails, it kills COMMAND itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Sequence
from typing import NamedTuple

from coord.cli.run import descendants, pipe, process
from coord.cli.run.guardian import Guardian, live
from coord.cli.run.pipe import Cause, Command, Report


class Finished(NamedTuple):
    """COMMAND and its descendants have ended, except the survivors."""

    cause: Cause
    status: int
    """The exit status as a shell reports it: 128 + n for signal n."""
    survivors: tuple[str, ...] = ()
    """The processes that could not be ended, for people."""


class GuardianClient:
    """Runs COMMAND under a guardian. It forks, so create it before any other thread exists.

    Args:
        command: The words of COMMAND.
        grace: Seconds between SIGTERM and SIGKILL.
        ignored: The signals that COMMAND ignores when it starts.
        hidden: Variables of our environment that COMMAND does not get.
    """

    def __init__(
        self,
        command: Sequence[str],
        grace: float,
        ignored: Collection[signal.Signals] = (),
        hidden: Collection[str] = (),
    ) -> None:
        process.load()
        process.adopt_orphans()  # The descendants of COMMAND, if the guardian is killed.
        # A shell that started children and then executed coord run leaves them to this process.
        self._foreign = descendants.children(os.getpid())
        their_orders, self._orders = os.pipe()
        reports, their_reports = os.pipe()
        self.guardian = os.fork()
        if self.guardian == 0:
            os.close(self._orders)
            os.close(reports)
            os.set_blocking(their_reports, False)
            environment = {
                name: value
                for name, value in os.environb.items()
                if os.fsdecode(name) not in hidden
            }
            live(
                Guardian(
                    command,
                    orders=their_orders,
                    reports=their_reports,
                    grace=grace,
                    runner_group=os.getpgrp(),
                    ignored=ignored,
                    environment=environment,
                )
            )
        os.close(their_orders)
        os.close(their_reports)
        os.set_blocking(self._orders, False)
        self._reader = pipe.Reader(reports)
        self.child: int | None = None
        """The process id of COMMAND, and of its group; None before it runs."""
        self.stopped = False
        """Whether COMMAND was stopped. The code that handles this resets it."""
        self.not_permitted: list[int] = []
        """Signals that could not be passed on. The code that reports them empties the list."""
        self.finished: Finished | None = None
        self.gone = False
        """Whether the guardian has ended or was killed."""

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is a report, for select."""
        return self._reader.fd

    def start(self, environment: dict[str, str], deadline: float) -> None:
        """Start COMMAND.

        Args:
            environment: Variables to add to the environment of this process.
            deadline: When the term ends, in seconds on the clock of `total_seconds`.
        """
        pipe.write(
            self._orders, Command.START, pipe.MOMENT.pack(deadline) + pipe.variables(environment)
        )

    def extend(self, deadline: float) -> None:
        """Move the deadline, after a renewal."""
        pipe.write(self._orders, Command.EXTEND, pipe.MOMENT.pack(deadline))

    def pass_on(self, number: int) -> None:
        """Pass a signal on to COMMAND."""
        pipe.write(self._orders, Command.SIGNAL, pipe.NUMBER.pack(number))

    def end(self, kill_at: float) -> None:
        """Send SIGTERM to the group of COMMAND now, and SIGKILL at `kill_at`."""
        pipe.write(self._orders, Command.END, pipe.MOMENT.pack(kill_at))

    def read_reports(self) -> None:
        """Read what the guardian has reported. Call it when the descriptor is readable."""
        for kind, payload in self._reader.frames():
            if kind == Report.STARTED:
                (self.child,) = pipe.NUMBER.unpack(payload)
            elif kind == Report.STOPPED:
                self.stopped = True
            elif kind == Report.FINISHED:
                cause, status, survivors = pipe.parse_ended(payload)
                code = os.waitstatus_to_exitcode(status)
                self.finished = Finished(cause, code if code >= 0 else 128 - code, survivors)
            elif kind == Report.NOT_PERMITTED:
                self.not_permitted.extend(pipe.NUMBER.unpack(payload))
        self.gone = self._reader.ended

    def force(self, wait: float = 1.0) -> tuple[str, ...]:
        """Kill the guardian, COMMAND and all its descendants. Return those that live, for people.

        Args:
            wait: Seconds that it may take.
        """
        if not self.gone:
            # It is not reaped before `wait`, so the id is still its own. This process adopts its
            # children.
            os.kill(self.guardian, signal.SIGKILL)
        until = time.monotonic() + wait
        while True:
            alive = descendants.signal_all(
                os.getpid(), self.child, signal.SIGKILL, spared=self._foreign
            )
            reaped = self._reap()
            if not alive and not reaped:
                return ()
            if time.monotonic() >= until:
                return tuple(str(survivor) for survivor in alive)
            time.sleep(0.01)

    def wait(self) -> None:
        """Wait for a guardian that has finished or was killed."""
        if self.finished is not None or self.gone:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.guardian, 0)

    def close(self) -> None:
        """Close the pipes. A guardian that still runs ends COMMAND then."""
        os.close(self._orders)
        os.close(self._reader.fd)

    def _reap(self) -> bool:
        """Take the exit statuses of children that have ended. Return whether there were any."""
        reaped = False
        for child in descendants.children(os.getpid()):
            if child not in self._foreign:
                with contextlib.suppress(ChildProcessError):
                    reaped |= os.waitpid(child, os.WNOHANG)[0] != 0
        return reaped
