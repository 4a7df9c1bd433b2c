"""`coord top` on a terminal of its own."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import os
import signal
import sys

import pytest
from rich.console import Console, Group

import coord
from coord import AsyncCoordinator
from coord.stores.memory.store import MemoryStore
from coord.testing import FaultyStore
from tests.support.cli_terminal import Terminal
from tests.support.levels import some
from tests.support.processes import Runs
from tests.support.store_urls import shared_url

url = shared_url
live = importlib.import_module("coord.cli.commands.top")
COORD = (sys.executable, "-m", "coord")
LEAVES = "\x1b[?1049l"
"""What puts a terminal's screen back as it was."""


def top(terminals: list[Terminal], url: str, *more: str) -> Terminal:
    terminal = Terminal(
        "/usr/bin/env", "TERM=xterm", "COLUMNS=200", "LINES=40", *COORD, "top", "--url", url, *more
    )
    terminals.append(terminal)
    return terminal


def test_changes_show_and_ctrl_c_ends_it(terminals: list[Terminal], runs: Runs) -> None:
    with coord.connect(runs.url) as c:
        assert c.unique_service("there", {"ttl": 60, "node": "\x1b[31mred"})
        terminal = top(terminals, runs.url)
        assert "\x1b[31mred" not in terminal.read_until("there")
        terminal.read_until("\\x1b[31mred")
        assert c.unique_service("later", {"ttl": 60})
        terminal.read_until("later")
        terminal.type("\x03")
        terminal.read_until(LEAVES)
    assert terminal.status() == 0


def test_sigterm_puts_the_screen_back(terminals: list[Terminal], runs: Runs) -> None:
    with coord.connect(runs.url) as c:
        assert c.unique_service("there", {"ttl": 60})
        terminal = top(terminals, runs.url)
        terminal.read_until("there")
        os.kill(terminal.pid, signal.SIGTERM)
        terminal.read_until(LEAVES)
    assert terminal.status() == 143


def test_a_store_that_cannot_be_reached(terminals: list[Terminal]) -> None:
    terminal = top(terminals, "rethinkdb://127.0.0.1:1/db")
    terminal.read_until("coord: ")
    assert terminal.status() == 69


def test_once_and_without_a_terminal(runs: Runs) -> None:
    with coord.connect(runs.url) as c:
        assert c.unique_service("there", {"ttl": 60})
        for more in ((), ("--once",), ("--all",)):
            status, out, err = runs.answer("top", "--url", runs.url, *more)
            assert (status, err) == (0, "")
            assert "there" in out
        (row,) = json.loads(runs.answer("top", "--url", runs.url, "--json")[1])
        assert row["role"] == "there"


def text(shown: Group) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_change_is_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "REFRESH_EVERY", 60.0)

    async def main() -> None:
        store = MemoryStore()
        async with AsyncCoordinator(store=store) as c, AsyncCoordinator(store=store) as other:
            screen = live._Screen(c, every=False, console=Console(width=200))
            assert "0 with a leader" in text(await screen.look())
            changes = screen.changes()
            ahead = asyncio.ensure_future(changes.__anext__())
            await asyncio.sleep(0.1)
            assert await other.unique_service("later", {"ttl": 60})
            assert "later" in text(await asyncio.wait_for(ahead, 10))
            await changes.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())


def test_an_outage_is_reported_and_survived() -> None:
    async def main() -> None:
        store = FaultyStore(MemoryStore())
        async with AsyncCoordinator(store=store, timeout=0.2) as c:
            assert await c.unique_service("there", {"ttl": 60})
            screen = live._Screen(c, every=False, console=Console(width=200))
            assert "there" in text(await screen.look())
            store.down()
            shown = text(await screen.look())
            assert "there" in shown
            assert "the test lets it fail" in shown
            store.heal()
            shown = text(await screen.look())
            assert "there" in shown
            assert "the test lets it fail" not in shown

    asyncio.run(main())


def test_more_roles_than_lines() -> None:
    async def main() -> None:
        async with AsyncCoordinator(store=MemoryStore()) as c:
            for number in range(9):
                assert await c.unique_service(f"role-{number}", {"ttl": 60})
            screen = live._Screen(c, every=False, console=Console(width=200, height=10))
            shown = text(await screen.look())
            assert "role-5" in shown
            assert "role-6" not in shown
            assert "3 more: coord status" in shown
            assert len(shown.splitlines()) <= 10

    asyncio.run(main())


def test_a_narrow_screen() -> None:
    """Each line fits, and the most important columns are there."""

    async def main() -> None:
        async with AsyncCoordinator(store=MemoryStore()) as c:
            about = {"ttl": 60, "host": "a-host.example", "pid": 12345, "zone": "z" * 60}
            assert await c.unique_service("a-role", about)
            assert await c.unique_service("role " * 20, {**about, "name": "n" * 70})
            for width, columns in (
                (50, ["role", "leader", "left"]),
                (80, ["role", "leader", "left", "waiting"]),
            ):
                console = Console(width=width, file=io.StringIO())
                screen = live._Screen(c, every=False, console=console)
                console.print(await screen.look())
                assert isinstance(console.file, io.StringIO)
                _, _, header, *rows = console.file.getvalue().splitlines()
                assert header.split() == columns
                assert [row[:4] for row in rows] == ["a-ro", "role"]
                assert all(len(row) <= width for row in [header, *rows])

    asyncio.run(main())


@pytest.mark.parametrize("key", some(("q", "Q", "xq"), lambda key: key == "xq"))
def test_q_ends_it(terminals: list[Terminal], runs: Runs, key: str) -> None:
    with coord.connect(runs.url) as c:
        assert c.unique_service("there", {"ttl": 60})
        terminal = top(terminals, runs.url)
        terminal.read_until("there")
        terminal.type(key)
        terminal.read_until(LEAVES)
    assert terminal.status() == 0


def test_the_terminal_is_as_before(terminals: list[Terminal], runs: Runs) -> None:
    with coord.connect(runs.url) as c:
        assert c.unique_service("there", {"ttl": 60})
        command = f"{sys.executable} -m coord top --url {runs.url}; echo; stty -a; echo end of it"
        terminal = Terminal("/usr/bin/env", "TERM=xterm", "sh", "-c", command)
        terminals.append(terminal)
        terminal.read_until("there")
        terminal.type("q")
    settings = terminal.read_until("end of it")
    assert " icanon" in settings
    assert " echo " in settings
