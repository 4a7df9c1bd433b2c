"""Options and questions that several commands share."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from coord.cli import exit_codes, output
from coord.core import validation
from coord.errors import BadArgument

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from coord.api.sync_coordinator import Coordinator
    from coord.core.lease import Lease

Command = TypeVar("Command", bound=Callable[..., Any])


def role(command: Command) -> Command:
    """Add the argument ROLE, passed as `role`."""
    return click.argument("role", shell_complete=_roles)(command)


def any_role(command: Command) -> Command:
    """Add the argument [ROLE], passed as `role`; None if it is missing."""
    return click.argument("role", required=False, shell_complete=_roles)(command)


def yes(command: Command) -> Command:
    """Add the option --yes, passed as `yes`."""
    return click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")(command)


def _roles(ctx: click.Context, _param: click.Parameter, prefix: str) -> list[CompletionItem]:
    from coord.cli.commands.completion import roles

    return roles(ctx, prefix)


def url(command: Command) -> Command:
    """Add the option --url, passed as `url`; None if it is missing."""
    return click.option(
        "--url",
        metavar="URL",
        help="URL of the store, such as sqlite:///path or postgresql://host/database. "
        "[default: COORD_URL, or a SQLite file in your state directory]",
    )(command)


def no_url(command: Command) -> Command:
    """Add the option --no-url, passed as `no_url`."""
    return click.option(
        "--no-url", is_flag=True, help="Keep the URL and the password out of COMMAND's environment."
    )(command)


def password_file(command: Command) -> Command:
    """Add the option --password-file, passed as `password_file`; None if it is missing."""
    return click.option(
        "--password-file",
        type=click.Path(),
        metavar="FILE",
        help="Read the password of the store from the first line of FILE.",
    )(command)


def verbose(command: Command) -> Command:
    """Add the option --verbose, passed as `verbose`."""
    return click.option("-v", "--verbose", is_flag=True, help="Log to stderr.")(command)


def as_json(command: Command) -> Command:
    """Add the option --json, passed as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def by(command: Command) -> Command:
    """Add the option --by, passed as `by`: its value, or the user of this process."""
    return click.option(
        "--by",
        metavar="NAME",
        callback=lambda _ctx, _param, name: (
            current_user() if name is None else validation.requester(name)
        ),
        help="Name to record in the role's history and status.  [default: user@host]",
    )(command)


def parse_info(
    _ctx: click.Context, _param: click.Parameter, values: Iterable[str]
) -> dict[str, Any]:
    """Parse the values of --info: each is a JSON object, or KEY=VALUE with a string as the value.

    A later value replaces an earlier one with the same key.

    Raises:
        BadArgument: A value is neither of them.
    """
    allowed = "must be KEY=VALUE or a JSON object"
    info: dict[str, Any] = {}
    for text in values:
        if text.lstrip().startswith("{"):
            try:
                parsed = json.loads(text)
            except ValueError as err:
                raise BadArgument("info", text, f"{allowed} ({err})") from None
            info |= parsed
            continue
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise BadArgument("info", text, allowed)
        info[key] = value
    return info


def confirm(question: str, *, yes: bool) -> None:
    """Ask the user on stdin to confirm, and exit with status 1 if the answer is no.

    Args:
        question: The question.
        yes: Whether the user has already agreed (--yes).

    Raises:
        click.UsageError: Stdin ended without an answer.
    """
    if yes:
        return
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise  # Ctrl-C
        click.echo(err=True)
        raise click.UsageError(
            "cannot ask for confirmation without a terminal: add --yes"
        ) from None
    if not agreed:
        click.echo("nothing was changed", err=True)
        sys.exit(exit_codes.FAILED)


@contextlib.contextmanager
def interruption_notice(facts: str | Callable[[], str]) -> Iterator[None]:
    """Say on stderr what is known about a change if Ctrl-C interrupts the block, which sends it.

    Args:
        facts: What is known, for people, or a function that finds it out.
    """
    try:
        yield
    except KeyboardInterrupt:
        text = facts if isinstance(facts, str) else facts()
        click.echo(f"coord: interrupted: {text}", err=True)
        raise


def current_user() -> str:
    """Return who runs this process, as `user@host`."""
    import getpass  # with termios, which only requests of people need

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # The user database has no entry.
        user = f"uid {os.getuid()}"
    return f"{user}@{os.uname().nodename}".encode()[:200].decode(errors="ignore")


def resolve_url(url: str | None) -> str:
    """Return the URL to use: the given one, or the default.

    Raises:
        BadArgument: The store is in memory: this process would see an empty store of its own.
    """
    from coord.stores import urls

    full = urls.resolve(url)
    if full.startswith("memory:"):
        raise BadArgument(
            "url",
            full,
            "must name a store that several processes can use, and memory:// is one "
            "process's own: use sqlite:///path or postgresql://host/database",
        )
    return full


def row_to_change(coordinator: Coordinator, role: str, *, to_transfer: bool = False) -> Lease:
    """Return the row of `role`, which the user wants to change; a vacant one if there is none.

    Pass its token with the change: another leader may be elected before the user has confirmed it.

    Args:
        coordinator: The coordinator to use.
        role: The role.
        to_transfer: Whether the role shall go to a candidate that the user names.

    Raises:
        BadArgument: It is no role that candidates are elected for: it has slots or shards, each of
            which is one, or it is a slot or shard that does not exist; or it cannot be transferred.
    """
    from coord.election.operators import role_row

    look = functools.partial(role_row, coordinator.session, role, to_transfer=to_transfer)
    return coordinator.portal.call(look)


def explain_parts(coordinator: Coordinator, role: str) -> None:
    """Say on stderr that a role without a row consists of slots or shards, or that it is named like
    a slot or shard that does not exist, if that is so."""
    # Only a role without a row needs it.
    from coord.core.sharing import Parts, agreement_above, parts_of, with_agreements

    names, above = with_agreements(role), agreement_above(role)
    names += [] if above is None else [above]
    rows = coordinator.portal.call(lambda: coordinator.session.read(names))
    parts = parts_of(role, rows)
    group = next((Parts.of(row) for row in rows if row.role == above), None)
    if parts is not None:
        whole = output.quote(role)
        click.echo(f"coord: each {parts.kind} of {whole} is a role of its own: {parts}", err=True)
    elif group is not None and group.lacks(role):
        whole = output.quote(group.whole)
        click.echo(f"coord: {whole} has no such {group.kind}; it has {group}", err=True)


@contextlib.contextmanager
def open_coordinator(url: str | None) -> Iterator[Coordinator]:
    """Open a coordinator for the duration of the block.

    Raises:
        BadArgument: The store is in memory.
    """
    from coord.api.sync_coordinator import Coordinator

    coordinator = Coordinator(resolve_url(url))
    try:
        yield coordinator
    finally:
        coordinator.close()
