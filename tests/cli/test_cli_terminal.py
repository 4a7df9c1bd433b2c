"""`coord run` on a terminal: COMMAND is in the foreground, Ctrl-C and Ctrl-Z reach it."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.processes import ROOT, eventually, lives


class Terminal:
    """A program that has a terminal of its own, as the leader of its session."""

    def __init__(self, *arguments: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ |= {"PYTHONPATH": str(ROOT), "TERM": "dumb"}
            os.execv(arguments[0], arguments)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def read_until(self, text: str, within: float = 15) -> str:
        """What came since the last call, up to and with `text`."""
        until = time.monotonic() + within
        while text not in self.seen:
            left = until - time.monotonic()
            assert left > 0, f"{text!r} did not come; what did: {self.seen!r}"
            if select.select([self.fd], [], [], left)[0]:
                try:
                    self.seen += os.read(self.fd, 4096).decode()
                except OSError:
                    raise AssertionError(f"{text!r} did not come before the end: {self.seen!r}") from None
        found, _, self.seen = self.seen.partition(text)
        return found + text

    def foreground(self) -> int:
        return os.tcgetpgrp(self.fd)

    def status(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


COORD = (sys.executable, "-m", "coord.cli", "run", "job")


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    made: list[Terminal] = []
    yield made
    for one in made:
        if lives(one.pid):
            os.kill(one.pid, signal.SIGKILL)
            os.waitpid(one.pid, 0)
        os.close(one.fd)


def test_ctrl_c_reaches_the_command(terminals: list[Terminal], url: str) -> None:
    script = "trap 'echo interrupted; exit 7' INT; echo pid $$; while :; do sleep 0.1; done"
    terminal = Terminal(*COORD, "--url", url, "--", "sh", "-c", script)
    terminals.append(terminal)
    terminal.read_until("pid ")
    child = int(terminal.read_until("\r\n"))
    assert terminal.foreground() == child
    terminal.type("\x03")
    terminal.read_until("interrupted")
    assert terminal.status() == 7


def test_the_command_reads_the_terminal(terminals: list[Terminal], url: str) -> None:
    terminal = Terminal(*COORD, "--url", url, "--", "sh", "-c", "echo ask; read line; echo answered $line")
    terminals.append(terminal)
    terminal.read_until("ask")
    terminal.type("this\n")
    terminal.read_until("answered this")
    assert terminal.status() == 0


def test_the_terminal_is_given_back(terminals: list[Terminal], url: str) -> None:
    """Without job control the shell does not take it back by itself."""
    command = " ".join([*COORD, "--url", url, "--", "true"])
    terminal = Terminal("/bin/sh", "-c", f"{command}; read line; echo got $line")
    terminals.append(terminal)
    eventually(lambda: Path(url.removeprefix("sqlite://")).exists())
    time.sleep(0.3)
    terminal.type("line\n")
    terminal.read_until("got line")
    assert terminal.status() == 0


def test_ctrl_z_and_fg(terminals: list[Terminal], url: str) -> None:
    terminal = Terminal("/bin/bash", "--norc", "--noprofile", "-i")
    terminals.append(terminal)
    terminal.type("PS1='rea''dy> '; stty -echo\n")
    terminal.read_until("ready> ")
    script = "import time, itertools\nfor n in itertools.count(): print('tick', n, flush=True); time.sleep(0.05)"
    terminal.type(" ".join([*COORD, "--url", url, "--ttl", "10", "--", sys.executable, "-c", f'"{script}"']) + "\n")
    terminal.read_until("tick 3")
    terminal.type("\x1a")
    terminal.read_until("Stopped")
    terminal.read_until("ready> ")
    terminal.type("fg\n")
    terminal.read_until("tick ")
    terminal.type("\x03")
    terminal.read_until("KeyboardInterrupt")
    terminal.read_until("ready> ")
    terminal.type("echo status $?; exit\n")
    terminal.read_until("status 130")
