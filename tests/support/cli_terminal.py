"""A program that has a terminal of its own."""

from __future__ import annotations

import os
import pty
import select
import time

from tests.support.processes import MARK, python_environment


class Terminal:
    """A program that has a terminal of its own, as the leader of its session."""

    def __init__(self, *arguments: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ |= {**python_environment(), "TERM": "dumb", **MARK}
            os.execv(arguments[0], arguments)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def read_until(self, text: str, within: float = 15) -> str:
        """What came since the last call, up to and with `text`."""
        until = time.monotonic() + within
        while text not in self.seen:
            remaining = until - time.monotonic()
            assert remaining > 0, f"{text!r} did not come; what did: {self.seen!r}"
            if select.select([self.fd], [], [], remaining)[0]:
                try:
                    self.seen += os.read(self.fd, 4096).decode()
                except OSError:
                    raise AssertionError(
                        f"{text!r} did not come before the end: {self.seen!r}"
                    ) from None
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def foreground(self) -> int:
        return os.tcgetpgrp(self.fd)

    def status(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
