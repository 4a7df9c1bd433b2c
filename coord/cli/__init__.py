"""The command line `coord`.

`main` is the entry point. The module of a command is imported when that command is used.
"""

from __future__ import annotations

import errno
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from coord import __version__
from coord.cli import exit_codes, output, streams, usage
from coord.errors import BadArgument, CoordError, StoreUnavailable

COMMANDS = {
    "run": ("coord.cli.run.command", "Run a command while this machine is the leader of a role."),
    "once": ("coord.cli.run.once", "Run a command once for each tick of a job."),
    "share": ("coord.cli.commands.share", "Run a command for each shard that this machine holds."),
    "leader": ("coord.cli.commands.roles", "Print the leader of a role."),
    "status": ("coord.cli.commands.roles", "Print all roles with their leaders."),
    "top": ("coord.cli.commands.top", "Show all roles live."),
    "web": ("coord.cli.commands.web", "Serve a web page that shows all roles."),
    "watch": ("coord.cli.commands.roles", "Print each change of leader as it happens."),
    "history": ("coord.cli.commands.roles", "Print the last terms of a role, and why they ended."),
    "notes": ("coord.cli.commands.roles", "Print the notes of a role."),
    "candidates": ("coord.cli.commands.roles", "Print the candidates that wait for a role."),
    "step-down": ("coord.cli.commands.handover", "Ask the leader of a role to step down."),
    "transfer": (
        "coord.cli.commands.handover",
        "Ask the leader of a role to hand it to another candidate.",
    ),
    "evict": ("coord.cli.commands.operators", "Take the lease away from a leader that hangs."),
    "pause": ("coord.cli.commands.operators", "Let nobody lead a role until it is resumed."),
    "resume": ("coord.cli.commands.operators", "Let a paused role have a leader again."),
    "slots": ("coord.cli.commands.slots", "Print or change how many may hold a role."),
    "retire": ("coord.cli.commands.retire", "Delete the rows of roles that nobody needs."),
    "services": ("coord.cli.commands.services", "Print the healthy services."),
    "purge": ("coord.cli.commands.services", "Delete expired services and announcements."),
    "init": ("coord.cli.commands.admin", "Set up the store: tables, schema."),
    "doctor": ("coord.cli.commands.admin", "Check the store and report how to fix problems."),
    "migrate": ("coord.cli.commands.migrate", "Move all roles to another store."),
    "completion": (
        "coord.cli.commands.completion",
        "Print the shell script for completion with Tab.",
    ),
}


class _NobodyReads(Exception):
    """The process that read the output has closed the pipe."""


def _load(name: str) -> click.Command:
    command = getattr(importlib.import_module(COMMANDS[name][0]), name.replace("-", "_"))
    assert isinstance(command, click.Command)
    usage.check_values(command)
    return command


class _Lazy(click.Group):
    """Imports only the command that is used, so that `coord run` starts quickly."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _load(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in COMMANDS or name.startswith("-"):
            return super().resolve_command(ctx, args)
        import difflib  # only a mistyped command needs it

        similar = difflib.get_close_matches(name, COMMANDS, n=3)
        advice = f" Did you mean {' or '.join(similar)}?" if similar else ""
        raise click.UsageError(f"No such command '{output.sanitize(name, 80)}'.{advice}", ctx)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click would exit with 1, which means FAILED here.
            raise _NobodyReads from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(
    cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="coord")
def entry() -> None:
    """coord runs a job on exactly one of your machines at a time.

    Every command accepts --url. Without it, coord uses the environment variable COORD_URL, and
    without that a SQLite file in your state directory.
    """


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    An error that coord expects is printed as one line on stderr, and sets the exit status.

    Args:
        argv: The words after `coord`; None means those of this process.
    """
    if argv is None:
        # The start allocates much that lives until the end of this process: look for garbage less
        # often than after each 700 objects.
        gc.set_threshold(10_000)
    streams.protect()
    status = _run(argv)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        streams.discard()
        status = status or exit_codes.NOBODY_READS
    if problem := streams.error():
        _say(f"cannot write to stdout: {problem}", status)
    if argv is None:
        # The search for garbage at the end of a process takes a tenth of the CPU time of a short
        # command, because it looks at each function of each module. This process ends anyway.
        gc.freeze()
    sys.exit(status)


def _run(argv: Sequence[str] | None) -> int:
    """Run a command, and return the exit status."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        status = entry.main(args=words, prog_name="coord", standalone_mode=False)
    except SystemExit as err:
        status = err.code
    except BadArgument as err:
        return _say(str(usage.name_option(err, _load(words[0]), words)), exit_codes.of(err))
    except StoreUnavailable as err:
        return _say(f"{err}; `coord doctor` checks the store", exit_codes.of(err))
    except CoordError as err:
        return _say(str(err), exit_codes.of(err))
    except NoArgsIsHelpError as err:
        err.show()
        return err.exit_code
    except click.UsageError as err:
        path = "coord" if err.ctx is None else err.ctx.command_path
        return _say(f"{err.format_message()} (see {path} --help)", err.exit_code)
    except click.ClickException as err:
        return _say(err.format_message(), err.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return exit_codes.INTERRUPTED
    except (_NobodyReads, BrokenPipeError):
        streams.discard()
        return exit_codes.NOBODY_READS
    except OSError as err:
        if err.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        text = f"cannot run this command: {os.strerror(err.errno)}; raise the limit of open files"
        return _say(f"{text} (ulimit -n)", exit_codes.UNAVAILABLE)
    return status if isinstance(status, int) else 0


def _say(text: str, status: int) -> int:
    print(f"coord: {output.one_line(text)}", file=sys.stderr)
    return status
