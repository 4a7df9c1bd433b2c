"""Options that several commands have."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from coord.cli import exit_codes

if TYPE_CHECKING:
    from coord.api.coordinator import Coordinator

Command = TypeVar("Command", bound=Callable[..., Any])


def role(command: Command) -> Command:
    """ROLE, as `role`."""
    return click.argument("role", shell_complete=_roles)(command)


def any_role(command: Command) -> Command:
    """[ROLE], as `role`: None when it is not given."""
    return click.argument("role", required=False, shell_complete=_roles)(command)


def yes(command: Command) -> Command:
    """--yes, as `yes`."""
    return click.option("-y", "--yes", is_flag=True, help="Do not ask first.")(command)


def _roles(ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    from coord.cli.commands.completion import roles

    return roles(ctx, begun)


def url(command: Command) -> Command:
    """--url, as `url`: None when it is not given."""
    return click.option(
        "--url", metavar="URL", help="The store: sqlite:///path or rethinkdb://host/database."
    )(command)


def as_json(command: Command) -> Command:
    """--json, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        command
    )


def parse_info(
    _ctx: click.Context, _param: click.Parameter, given: Iterable[str]
) -> dict[str, Any]:
    """Callback of --info: each is a JSON object, or KEY=VALUE with a string for a value. Later ones
    win."""
    info: dict[str, Any] = {}
    for text in given:
        if text.lstrip().startswith("{"):
            try:
                one = json.loads(text)
            except ValueError as err:
                raise click.BadParameter(f"{text!r} is not a JSON object: {err}") from None
            info |= one
            continue
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise click.BadParameter(f"{text!r} is neither KEY=VALUE nor a JSON object")
        info[key] = value
    return info


# -- Asking first, before something is changed, and who it is that changes it.


def confirm(question: str, *, yes: bool) -> None:
    """Go on only after a yes, on the terminal or through a pipe; `yes` has said so already. Exits
    with 1 after a no."""
    if yes:
        return
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise  # Ctrl-C
        click.echo(err=True)
        raise click.UsageError("this asks first, and nobody answers: give --yes") from None
    if not agreed:
        click.echo("nothing was done", err=True)
        sys.exit(exit_codes.FAILED)


def current_user() -> str:
    """Who runs this: `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # nobody in the list of users
        user = f"uid {os.getuid()}"
    return f"{user}@{os.uname().nodename}".encode()[:200].decode(errors="ignore")


@contextlib.contextmanager
def open_coordinator(url: str | None) -> Iterator[Coordinator]:
    """A coordinator, closed at the end."""
    from coord.api.coordinator import Coordinator

    coordinator = Coordinator(url)
    try:
        yield coordinator
    finally:
        coordinator.close()
