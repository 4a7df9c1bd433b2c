"""What `coord run` prints on stderr.

A thread writes the messages, so that a stderr that is full and that nobody reads delays neither
renewals nor signals nor the end of `coord run`.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time

from coord.cli import output

MAX_PENDING = 1_000
"""Messages that may wait to be written. More are dropped, and counted."""
FLUSH_TIMEOUT = 1.0
"""Seconds that the last messages may take at the end."""


class Messages:
    """Prints lines on stderr, in order, without blocking the caller. Any thread may call it.

    The thread starts with the first message, because `coord run` must fork before.
    """

    def __init__(self) -> None:
        self.program = "coord run"
        """The command that each line names."""
        self._pending: queue.Queue[str] = queue.Queue(MAX_PENDING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._dropped = 0

    def print(self, text: str) -> None:
        """Print `text` as one line that begins with the name of the command."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, daemon=True, name="coord run")
                self._thread.start()
        try:
            self._pending.put_nowait(text)
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Wait until all messages are written, at most `FLUSH_TIMEOUT` seconds."""
        until = time.monotonic() + FLUSH_TIMEOUT
        while self._pending.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.005)

    def _write(self) -> None:
        while True:
            text = self._pending.get()
            dropped, self._dropped = self._dropped, 0
            if dropped:
                self._line(f"{dropped} messages were dropped, because stderr was full")
            self._line(text)
            self._pending.task_done()

    def _line(self, text: str) -> None:
        print(f"{self.program}: {output.one_line(text)}", file=sys.stderr, flush=True)


class MessageHandler(logging.Handler):
    """Prints log records as messages."""

    def __init__(self, messages: Messages) -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.print(self.format(record))


messages = Messages()
"""The messages of this process."""
