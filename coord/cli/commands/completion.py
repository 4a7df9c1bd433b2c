"""What Tab completes from the store: quick, and silent when the store is not."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, get_completion_class

from coord.cli import exit_codes, output

if TYPE_CHECKING:
    from coord.api.coordinator import Coordinator

Find = Callable[["Coordinator"], dict[str, str]]
WITHIN = 1.0
"""Seconds that the store may take."""
MOST = 500
"""Words that are offered."""
_ONE_WORD = re.compile(r"[\w@%+:,./][\w@%+=:,./-]*")
"""A shell takes it for one word as it stands. Others are left to whoever types them: shells quote
in many ways."""


def roles(ctx: click.Context, begun: str) -> list[CompletionItem]:
    """The roles that have ever been led and begin so."""
    return _offered(
        ctx, begun, lambda c: {row.role: "" for row in c.portal.call(lambda: c.session.read(None))}
    )


def candidates(ctx: click.Context, begun: str) -> list[CompletionItem]:
    """The candidates that wait for the role on the command line, or for any."""
    role = ctx.params.get("role") or next(
        iter(ctx.args), None
    )  # click stops at an option that has no value yet
    return _offered(
        ctx,
        begun,
        lambda c: {
            one.candidate: output.describe_candidate(one.candidate, one.info)
            for one in c.candidates(role)
        },
    )


def _offered(ctx: click.Context, begun: str, find: Find) -> list[CompletionItem]:
    logging.disable()
    try:
        found = _found(ctx.params.get("url"), find)
    except Exception:  # whatever it is: a shell in the middle of a line is no place to say so
        return []
    words = sorted(word for word in found if word.startswith(begun) and _ONE_WORD.fullmatch(word))
    return [CompletionItem(word, help=found[word] or None) for word in words[:MOST]]


def _found(url: str | None, find: Find) -> dict[str, str]:
    from coord.api.coordinator import Coordinator

    coordinator = Coordinator(url, timeout=WITHIN)
    path = getattr(coordinator.store, "path", None)
    if path is not None and not os.path.exists(path):
        return {}  # looking would make the file
    try:
        return find(coordinator)
    finally:
        coordinator.close()


# -- `coord completion`: the script by which a shell completes `coord` with Tab.

VARIABLE = "_COORD_COMPLETE"


@click.command(epilog=exit_codes.help_of())
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script with which SHELL completes commands, options, roles and candidates with Tab.

    \b
    bash: eval "$(coord completion bash)"           in ~/.bashrc; bash 4.4 or newer
    zsh:  eval "$(coord completion zsh)"            in ~/.zshrc, after compinit
    fish: coord completion fish > ~/.config/fish/completions/coord.fish
    """
    from coord.cli import commands

    kind = get_completion_class(shell)
    assert kind is not None  # one of the choices
    values = kind(commands, {}, "coord", VARIABLE)
    click.echo(values.source_template % values.source_vars())
