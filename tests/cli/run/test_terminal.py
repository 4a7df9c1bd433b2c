"""`coord run` on a terminal: COMMAND is in the foreground, Ctrl-C and Ctrl-Z reach it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.support.cli_terminal import Terminal
from tests.support.store_urls import shared_url
from tests.support.waits import eventually

url = shared_url
COORD = (sys.executable, "-m", "coord", "run", "job")


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
    terminal = Terminal(
        *COORD, "--url", url, "--", "sh", "-c", "echo ask; read line; echo answered $line"
    )
    terminals.append(terminal)
    terminal.read_until("ask")
    terminal.type("this\n")
    terminal.read_until("answered this")
    assert terminal.status() == 0


@pytest.mark.stores("sqlite")
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
    terminal.type(
        " ".join([*COORD, "--url", url, "--ttl", "10", "--", sys.executable, "-c", f'"{script}"'])
        + "\n"
    )
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
