"""`coord top` shows all roles live."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from coord.cli import exit_codes, options, output
from coord.errors import CoordError

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

    from coord.api.coordinator import AsyncCoordinator
    from coord.api.overview import Overview

REFRESH_EVERY = 1.0
"""Seconds between two queries while nothing changes."""
COALESCE_DELAY = 0.05
"""Seconds between a change and the query for it, because changes often come together."""


@click.command(epilog=exit_codes.help_of({0: "done, or ended with q or Ctrl-C"}))
@click.option("--all", "every", is_flag=True, help="Include roles without a leader.")
@click.option(
    "--once", is_flag=True, help="Print one table and exit. This is the default without a terminal."
)
@options.as_json
@options.url
def top(every: bool, once: bool, as_json: bool, url: str | None) -> None:
    """Show all roles on the whole screen, like coord status.

    The screen shows each change at once, and refreshes every second. It continues during outages
    of the store. The letter q or Ctrl-C ends it. A narrow screen shows fewer columns.
    """
    if once or as_json or not sys.stdout.isatty():
        from coord.cli.commands.roles import show

        show(every=every, as_json=as_json, url=url)
        return
    number = asyncio.run(_until_signalled(url, every))
    if number != signal.SIGINT:
        sys.exit(exit_codes.SIGNALLED + number)


async def _until_signalled(url: str | None, every: bool) -> int:
    """Show the roles until a signal arrives, restore the screen, and return the signal."""
    ended_by: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def signalled(number: int) -> None:
        if not ended_by.done():
            ended_by.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, signalled, number)
    showing = asyncio.ensure_future(_live(url, every))
    both: set[asyncio.Future[Any]] = {showing, ended_by}
    with _keys(lambda key: signalled(signal.SIGINT) if key in "qQ" else None):
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if showing.done():
        showing.result()  # It ends early only by raising.
    await _end(showing)
    return ended_by.result()


@contextlib.contextmanager
def _keys(pressed: Callable[[str], None]) -> Iterator[None]:
    """Call `pressed` with each key that the user presses, if stdin is a terminal."""
    if not sys.stdin or not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    loop, fd = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def read() -> None:
        keys = os.read(fd, 100)
        if not keys:  # The terminal is gone.
            loop.remove_reader(fd)
        for key in keys.decode("ascii", "ignore"):
            pressed(key)

    def set_mode() -> None:
        tty.setcbreak(fd)

    set_mode()
    loop.add_reader(fd, read)
    loop.add_signal_handler(signal.SIGCONT, set_mode)  # The mode is lost after Ctrl-Z.
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGCONT)
        loop.remove_reader(fd)
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


async def _live(url: str | None, every: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    from coord.api.coordinator import AsyncCoordinator

    console = Console(highlight=False)
    async with AsyncCoordinator(options.resolve_url(url)) as coordinator:
        screen = _Screen(coordinator, every, console)
        first = await screen.look()
        with Live(first, console=console, screen=True, auto_refresh=False) as live:
            async for shown in screen.changes():
                live.update(shown, refresh=True)


async def _end(task: asyncio.Future[None]) -> None:
    """Cancel a task until it ends.

    Before Python 3.12, `asyncio.wait_for` can lose a cancellation.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)


class _Screen:
    """Decides what the screen shows, and when to ask the store again."""

    def __init__(self, coordinator: AsyncCoordinator, every: bool, console: Console) -> None:
        self._coordinator, self._every, self._console = coordinator, every, console
        self._seen: Overview | None = None
        self._error = ""
        self._changed = asyncio.Event()

    async def look(self) -> Group:
        """Ask the store, and return the new content of the screen."""
        from coord.api.overview import load_overview

        # Histories are most of the data, so they are loaded only after a leader has changed.
        terms = None if self._seen is None or self._changed.is_set() else self._seen.terms
        self._changed.clear()
        try:
            self._seen = await load_overview(self._coordinator, every=self._every, terms=terms)
            self._error = ""
        except CoordError as err:
            if self._seen is None:
                raise
            self._error = str(err)
            self._changed.set()
        return self._layout()

    async def changes(self) -> AsyncIterator[Group]:
        """Yield the content of the screen, again and again."""
        watching = asyncio.ensure_future(self._watch())
        try:
            while True:
                changed = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait({changed}, timeout=REFRESH_EVERY)
                changed.cancel()
                if self._changed.is_set():
                    await asyncio.sleep(REFRESH_EVERY if self._error else COALESCE_DELAY)
                yield await self.look()
        finally:
            await _end(watching)

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(CoordError):
                async for _ in self._coordinator.watch_leaders():
                    self._changed.set()
            await asyncio.sleep(REFRESH_EVERY)

    def _layout(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        from coord.cli import overview

        current = self._seen
        assert current is not None
        room = max(1, self._console.size.height - 4)
        count = sum(lease.led for lease in current.leases)
        head = f"{self._coordinator.url}  {time.strftime('%H:%M:%S')}  {count} with a leader"
        hidden = len(current.leases) - room
        more = f"{hidden} more: coord status" if hidden > 0 else ""
        message = self._error or current.note or more
        return Group(
            Text(output.sanitize(head), no_wrap=True, overflow="ellipsis", style="bold"),
            Text(
                output.one_line(message),
                no_wrap=True,
                overflow="ellipsis",
                style="red" if self._error else "",
            ),
            self._table(overview.rows(current, room)),
        )

    def _table(self, rows: list[tuple[object, ...]]) -> Table:
        from coord.cli import overview

        widths = output.fitting_columns(
            overview.COLUMNS, rows, self._console.size.width, overview.IMPORTANT
        )
        columns = [overview.COLUMNS[number] for number in widths]
        cells = [[row[number] for number in widths] for row in rows]
        return output.build_table(columns, cells, widths=[*widths.values()])
