"""`coord top`: all roles at a glance, live."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import click

from coord.cli import exit_codes, options, output
from coord.errors import CoordError

if TYPE_CHECKING:
    from rich.console import Console, Group

    from coord.api.coordinator import AsyncCoordinator
    from coord.cli.overview import Overview

EVERY = 1.0
"""Seconds between looks when nothing changes."""
AT_ONCE = 0.05
"""Seconds between a change and the look for it: many come together."""


@click.command(epilog=exit_codes.help_of({0: "done, or ended with Ctrl-C"}))
@click.option("--all", "every", is_flag=True, help="Vacant roles, too.")
@click.option(
    "--once", is_flag=True, help="Print one table and end; so it does without a terminal."
)
@options.as_json
@options.url
def top(every: bool, once: bool, as_json: bool, url: str | None) -> None:
    """Show all roles as coord status does, on the whole screen: each change at once, the time left
    every second.

    Goes on through outages of the store. Ctrl-C ends it.
    """
    if once or as_json or not sys.stdout.isatty():
        from coord.cli.commands.roles import show

        show(every=every, as_json=as_json, url=url)
        return
    number = asyncio.run(_until_signalled(url, every))
    if number != signal.SIGINT:
        sys.exit(exit_codes.SIGNALLED + number)


async def _until_signalled(url: str | None, every: bool) -> int:
    """Show it until a signal comes; which one that was. The screen is put back by then."""
    came: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def signalled(number: int) -> None:
        if not came.done():
            came.set_result(number)

    for one in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(one, signalled, one)
    showing = asyncio.ensure_future(_live(url, every))
    both: set[asyncio.Future[Any]] = {showing, came}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if showing.done():
        showing.result()  # raises: it does not end by itself
    await _end(showing)
    return came.result()


async def _live(url: str | None, every: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    from coord.api.coordinator import AsyncCoordinator

    console = Console(highlight=False)
    async with AsyncCoordinator(url) as coordinator:
        screen = _Screen(coordinator, every, console)
        first = await screen.look()
        with Live(first, console=console, screen=True, auto_refresh=False) as live:
            async for shown in screen.changes():
                live.update(shown, refresh=True)


async def _end(task: asyncio.Future[None]) -> None:
    """Cancel it, again if need be: before Python 3.12 `asyncio.wait_for` may swallow a
    cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)


class _Screen:
    """What is shown, and when it is looked at again."""

    def __init__(self, coordinator: AsyncCoordinator, every: bool, console: Console) -> None:
        self._coordinator, self._every, self._console = coordinator, every, console
        self._seen: Overview | None = None
        self._trouble = ""
        self._changed = asyncio.Event()

    async def look(self) -> Group:
        """Ask the store, and lay out what it says."""
        from coord.cli import overview

        # Histories are read when a leader has changed, not every second: they are the bulk of it.
        lost = None if self._seen is None or self._changed.is_set() else self._seen.lost
        self._changed.clear()
        try:
            self._seen = await overview.load_overview(
                self._coordinator, every=self._every, lost=lost
            )
            self._trouble = ""
        except CoordError as err:
            if self._seen is None:
                raise
            self._trouble = str(err)
            self._changed.set()
        return self._laid_out()

    async def changes(self) -> AsyncIterator[Group]:
        """What is to be shown next, for ever."""
        hearing = asyncio.ensure_future(self._hear())
        try:
            while True:
                changed = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait({changed}, timeout=EVERY)
                changed.cancel()
                if self._changed.is_set():
                    await asyncio.sleep(EVERY if self._trouble else AT_ONCE)
                yield await self.look()
        finally:
            await _end(hearing)

    async def _hear(self) -> None:
        while True:
            with contextlib.suppress(CoordError):
                async for _ in self._coordinator.watch_leaders():
                    self._changed.set()
            await asyncio.sleep(EVERY)

    def _laid_out(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        from coord.cli import overview

        seen = self._seen
        assert seen is not None
        room = max(1, self._console.size.height - 4)
        led = sum(lease.led for lease in seen.leases)
        head = f"{self._coordinator.url}  {time.strftime('%H:%M:%S')}  {led} led"
        hidden = len(seen.leases) - room
        more = f"{hidden} more: coord status" if hidden > 0 else ""
        told = self._trouble or seen.note or more
        return Group(
            Text(output.sanitize(head), no_wrap=True, overflow="ellipsis", style="bold"),
            Text(
                output.one_line(told),
                no_wrap=True,
                overflow="ellipsis",
                style="red" if self._trouble else "",
            ),
            output.build_table(overview.COLUMNS, seen.rows(room)),
        )
