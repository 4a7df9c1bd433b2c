"""The command line. `main` is the entry point; each command's module is imported when that command is used."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

import coord
from coord.cli import exit_codes, foreign
from coord.errors import CoordError

COMMANDS = {
    "run": ("coord.cli.run", "Run a command for as long as this machine leads a role."),
    "leader": ("coord.cli.lookup", "Who leads a role."),
    "status": ("coord.cli.lookup", "All the roles that somebody leads."),
    "watch": ("coord.cli.watching", "Each change of a role's leader, as it happens."),
    "services": ("coord.cli.services", "The healthy services."),
    "init": ("coord.cli.setup_commands", "Make the store ready: tables, schema."),
    "doctor": ("coord.cli.setup_commands", "Check the store, and say what to mend."),
}


class _Lazy(click.Group):
    """Knows its commands by name and summary; `coord run` must not wait for what the others need."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(coord.__version__, prog_name="coord")
def commands() -> None:
    """Exactly one leader per role, on SQLite or a RethinkDB cluster.

    Every command takes --url; without it COORD_URL is used, and without that an SQLite file in your state directory.
    """


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit. What coord raises on purpose becomes one line on stderr, and its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what it cannot show must not end us
    try:
        commands.main(args=None if argv is None else list(argv), prog_name="coord")
    except CoordError as err:
        print(f"coord: {foreign.sentence(str(err))}", file=sys.stderr)
        sys.exit(exit_codes.of(err))
    sys.exit(0)
