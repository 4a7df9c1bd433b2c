"""The command line. `main` is the entry point; each command's module is imported when that command
is used."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

import coord
from coord.cli import exit_codes, output
from coord.errors import CoordError

COMMANDS = {
    "run": ("coord.cli.run.command", "Run a command for as long as this machine leads a role."),
    "leader": ("coord.cli.commands.roles", "Who leads a role."),
    "status": ("coord.cli.commands.roles", "All roles: who leads, since when, who waits."),
    "top": ("coord.cli.commands.top", "All roles, live."),
    "watch": ("coord.cli.commands.roles", "Each change of a role's leader, as it happens."),
    "history": ("coord.cli.commands.roles", "Who led a role, when, and why it ended."),
    "candidates": ("coord.cli.commands.roles", "Who waits for a role."),
    "step-down": ("coord.cli.commands.handover", "Ask the leader of a role to give it up."),
    "transfer": ("coord.cli.commands.handover", "Ask the leader of a role to hand it to another."),
    "services": ("coord.cli.commands.services", "The healthy services."),
    "purge": ("coord.cli.commands.services", "Delete what has run out: services, notices."),
    "init": ("coord.cli.commands.admin", "Make the store ready: tables, schema."),
    "doctor": ("coord.cli.commands.admin", "Check the store, and say what to mend."),
    "completion": ("coord.cli.commands.completion", "The script for completion with Tab."),
}


class _NobodyReads(Exception):
    """Whoever read our output has gone."""


class _Lazy(click.Group):
    """Knows its commands by name and summary; `coord run` must not wait for what the others
    need."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name.replace("-", "_"))
        assert isinstance(found, click.Command)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click would end us with 1, which means something else here
            raise _NobodyReads from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(
    cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(coord.__version__, prog_name="coord")
def commands() -> None:
    """Exactly one leader per role, on SQLite or a RethinkDB cluster.

    Every command takes --url; without it COORD_URL is used, and without that an SQLite file in your
    state directory."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit. What goes wrong on purpose is one line on stderr, and an exit
    status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what it cannot show must not end us
    try:
        status = commands.main(
            args=None if argv is None else list(argv), prog_name="coord", standalone_mode=False
        )
        sys.stdout.flush()
    except CoordError as err:
        status = _say(str(err), exit_codes.of(err))
    except NoArgsIsHelpError as err:
        err.show()
        status = err.exit_code
    except click.UsageError as err:
        path = "coord" if err.ctx is None else err.ctx.command_path
        status = _say(f"{err.format_message()} ({path} --help tells more)", err.exit_code)
    except click.ClickException as err:
        status = _say(err.format_message(), err.exit_code)
    except (click.Abort, KeyboardInterrupt):
        status = exit_codes.INTERRUPTED
    except (_NobodyReads, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more at its end
        status = exit_codes.NOBODY_READS
    sys.exit(status if isinstance(status, int) else 0)


def _say(text: str, status: int) -> int:
    print(f"coord: {output.one_line(text)}", file=sys.stderr)
    return status
