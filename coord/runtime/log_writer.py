"""A thread that writes what another thread logs.

A handler of the application's log may block: on a slow disk, on a terminal that is stopped, or on
its own lock, which a thread has that a signal handler interrupted. The thread that renews leases
must go on meanwhile, so it hands its events over.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable

from coord.runtime import log, process
from coord.runtime.threads import CannotStartThread, start_thread_soon

Write = Callable[[], None]
MAX_PENDING = 1_000
"""Events that may wait to be written. More are dropped, and counted."""
FLUSH_TIMEOUT = 1.0
"""Seconds that `flush` waits at most."""


class LogWriter:
    """Writes events in their order, on a thread that runs while there are any.

    Nothing in here waits for a lock that a signal handler could meet.

    Attributes:
        fork_generation: The process that it belongs to: a forked child has no thread of it.
    """

    def __init__(self) -> None:
        self._writes: deque[Write] = deque()
        self._runs = threading.Lock()
        self._thread_id: int | None = None
        self._starts_in: int | None = None
        self._number = self._dropped = 0
        self._blocked_at: int | None = None
        self.fork_generation = process.fork_generation
        _writers.add(self)

    def put(self, write: Write) -> None:
        """Write an event soon. It is written here if no thread can be started.

        Args:
            write: Writes the event. It must not raise.
        """
        if len(self._writes) < MAX_PENDING:
            self._append(write)
        else:
            self._dropped += 1

    def flush(self, timeout: float = FLUSH_TIMEOUT) -> None:
        """Wait until the events so far are written, but not for one that blocks.

        Args:
            timeout: Seconds to wait at most. Nobody waits again for an event for which somebody
                has waited so long.
        """
        if not (self._writes or self._runs.locked()) or threading.get_ident() == self._thread_id:
            return
        number = self._number
        if self._blocked_at == number:
            return
        written = threading.Lock()
        written.acquire()
        self._append(written.release)
        if not written.acquire(timeout=timeout):
            self._blocked_at = number

    def flush_at_exit(self) -> None:
        """Wait once more, also for an event that has blocked: nothing is written later."""
        self._blocked_at = None
        self.flush()

    def _append(self, write: Write) -> None:
        self._writes.append(write)
        here = threading.get_ident()
        # Who starts the thread may be interrupted meanwhile by a signal handler that comes here. It
        # cannot wait for that, so it starts another; only one of them writes at a time.
        if self._runs.locked() or self._starts_in not in (None, here):
            return
        try:
            self._starts_in = here
            start_thread_soon(self._run, "coord log")
        except CannotStartThread:
            self._run()
        except BaseException:  # Ctrl-C, for example: the next event or flush starts it
            self._starts_in = None
            raise

    def _run(self) -> None:
        self._starts_in = None
        # Who adds an event after the last look at them sees that no thread runs.
        while self._writes and self._runs.acquire(blocking=False):
            try:
                self._thread_id = threading.get_ident()
                self._write_all()
            finally:
                self._thread_id = None
                self._runs.release()

    def _write_all(self) -> None:
        while self._writes:
            self._writes.popleft()()
            self._number += 1
            dropped, self._dropped = self._dropped, 0
            if dropped:
                log.warning("log.dropped", events=dropped)


_writers: weakref.WeakSet[LogWriter] = weakref.WeakSet()


def _flush_at_exit() -> None:
    """Write what is left, before the standard library closes the handlers."""
    for writer in list(_writers):
        if writer.fork_generation == process.fork_generation:
            writer.flush_at_exit()


atexit.register(_flush_at_exit)
