"""Signals as a terminal leaves them, for the tests and the programs that they start."""

from __future__ import annotations

import os
import signal
from pathlib import Path

ENDING = ("SIGHUP", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2")


def restore() -> None:
    """A run under nohup or in the background of a script is begun with SIGHUP or SIGINT ignored,
    which its children inherit; tests that send them would wait without end. SIGHUP gets a handler that
    does nothing, for exec puts that back to the default: programs that tests start end by it, and
    the run itself still outlives its terminal."""
    if signal.getsignal(signal.SIGINT) != signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    mask = getattr(signal, "pthread_sigmask", None)
    if mask is not None:
        mask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP, signal.SIGTERM})


def make_immune(word: str) -> None:
    """Let this process and its forks send no signal to a process whose command line has `word`.

    It then seems to belong to another user. Its process group must be another than COMMAND's."""
    kill = os.kill

    def kill_others(pid: int, number: int) -> None:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            words = []
        if word in words:
            raise PermissionError
        kill(pid, number)

    os.kill = kill_others
