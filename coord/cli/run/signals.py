"""What the runner's main thread waits for, in one select(): signals, other threads, and the
guardian's reports."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable
from types import FrameType

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

_HEARD = 0
"""In the pipe: a thread has something to say. Every other byte is the number of a signal."""


class SignalInbox:
    """Takes over this process's signals: they come as bytes through a pipe, in order, and interrupt
    nothing."""

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
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # we may write to a terminal that COMMAND has
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)

    def wait(self, seconds: float | None) -> None:
        """Until something comes, at most so long. The guardian's reports are then taken in."""
        reports = self._guarded.fileno()
        awaited = (
            [self._woken] if self._guarded.gone else [self._woken, reports]
        )  # at its end it is always readable
        ready, _, _ = select.select(awaited, [], [], None if seconds is None else max(seconds, 0.0))
        if self._woken in ready:
            self._signals += [number for number in os.read(self._woken, 4096) if number != _HEARD]
        if reports in ready:
            self._guarded.hear()

    def signals(self) -> list[int]:
        """Those that came since the last call, in order."""
        taken, self._signals = self._signals, []
        return taken

    def wake(self) -> None:
        """Have `wait` return. From any thread."""
        with contextlib.suppress(BlockingIOError):  # full: it is awake
            os.write(self._wake, bytes([_HEARD]))


def start_daemon_thread(target: Callable[[], None]) -> threading.Thread:
    """Run it beside the main thread, which must stay free for signals. It does not hold up the end
    of the process."""
    thread = threading.Thread(target=target, daemon=True, name="coord run")
    thread.start()
    return thread


def _noted(number: int, frame: FrameType | None) -> None:
    """The number went into the pipe already (signal.set_wakeup_fd)."""
