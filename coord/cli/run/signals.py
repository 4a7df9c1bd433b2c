"""What the main thread of the runner waits for: signals, threads and reports of the guardian."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable
from types import FrameType

from coord.cli import exit_codes
from coord.cli.run.guardian_client import GuardianClient

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

THAT_END_WAITING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""The other signals are for COMMAND, and are ignored before it runs."""

_WAKE = 0
"""The byte in the pipe by which a thread wakes the runner. Other bytes are numbers of signals."""


class SignalInbox:
    """Receives the signals of this process through a pipe, in order.

    So they interrupt nothing.
    """

    def __init__(self, guarded: GuardianClient) -> None:
        self._guarded = guarded
        self._signals: list[int] = []
        self._woken, self._wake = os.pipe()
        for fd in (self._woken, self._wake):
            os.set_blocking(fd, False)
        for number in PASSED_ON:
            if (
                number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
            ):  # nohup
                signal.signal(number, _noted)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # COMMAND may have the terminal
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)

    def wait(self, seconds: float | None) -> None:
        """Wait for an event, and read the reports that arrived.

        Args:
            seconds: The maximum wait; None means no limit.
        """
        reports = self._guarded.fileno()
        awaited = (
            [self._woken] if self._guarded.gone else [self._woken, reports]
        )  # at its end it is always readable
        ready, _, _ = select.select(awaited, [], [], None if seconds is None else max(seconds, 0.0))
        if self._woken in ready:
            self._read()
        if reports in ready:
            self._guarded.read_reports()

    def signals(self) -> list[int]:
        """Return the signals that arrived since the last call, in order."""
        received, self._signals = self._signals, []
        return received

    def close(self) -> int:
        """Stop receiving signals, and return the exit status for those that arrived; 0 for none.

        From now on a signal that ends waiting ends this process at once, as it ends a program that
        does nothing about it. So none is lost.
        """
        for number in PASSED_ON:
            if signal.getsignal(number) is _noted:
                ends = number in THAT_END_WAITING
                signal.signal(number, signal.SIG_DFL if ends else signal.SIG_IGN)
        self._read()
        ending = [number for number in self.signals() if number in THAT_END_WAITING]
        return exit_codes.SIGNALLED + ending[-1] if ending else 0

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._signals += [number for number in os.read(self._woken, 4096) if number != _WAKE]

    def wake(self) -> None:
        """Make `wait` return. Any thread may call this."""
        with contextlib.suppress(BlockingIOError):  # A full pipe wakes it, too.
            os.write(self._wake, bytes([_WAKE]))


def start_daemon_thread(target: Callable[[], None]) -> threading.Thread:
    """Run `target` on a thread that does not delay the end of the process."""
    thread = threading.Thread(target=target, daemon=True, name="coord run")
    thread.start()
    return thread


def _noted(number: int, frame: FrameType | None) -> None:
    """Do nothing: `signal.set_wakeup_fd` has already written the number into the pipe."""
