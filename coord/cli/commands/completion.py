"""`coord completion`: the shell script for completion with Tab, and the words from the store."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, get_completion_class

from coord.cli import exit_codes, output
from coord.core.sharing import is_agreement

if TYPE_CHECKING:
    from coord.api.sync_coordinator import Coordinator

Find = Callable[["Coordinator"], dict[str, str]]
STORE_TIMEOUT = 1.0
"""Seconds that the store may take: somebody waits in the middle of a command line."""
MAX_WORDS = 500
"""Words that are offered to the shell."""
VARIABLE = "_COORD_COMPLETE"
_PLAIN_WORD = re.compile(r"[\w@%+:,./][\w@%+=:,./-]*")
"""A word that every shell reads as one word without quotes. Other words are not offered, because
each shell quotes in its own way."""


@click.command(epilog=exit_codes.help_of())
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that lets SHELL complete commands, options, roles and candidates with Tab.

    \b
    bash: eval "$(coord completion bash)"           in ~/.bashrc; bash 4.4 or newer
    zsh:  eval "$(coord completion zsh)"            in ~/.zshrc, after compinit
    fish: coord completion fish > ~/.config/fish/completions/coord.fish
    """
    from coord.cli import entry

    kind = get_completion_class(shell)
    assert kind is not None  # click.Choice admits only shells that click knows.
    values = kind(entry, {}, "coord", VARIABLE)
    click.echo(values.source_template % values.source_vars())


def roles(ctx: click.Context, prefix: str) -> list[CompletionItem]:
    """Return the roles in the store that begin with `prefix`. It never raises."""

    def names(coordinator: Coordinator) -> dict[str, str]:
        rows = coordinator.portal.call(lambda: coordinator.session.read(None))
        return {row.role: "" for row in rows if not is_agreement(row)}

    return _complete(ctx, prefix, names)


def candidates(ctx: click.Context, prefix: str) -> list[CompletionItem]:
    """Return the candidates for the role on the command line, or for any role. It never raises."""
    # click stops at an option that has no value yet, and leaves ROLE among the unparsed words.
    role = ctx.params.get("role") or next(iter(ctx.args), None)
    return _complete(
        ctx,
        prefix,
        lambda c: {
            candidate.id: output.describe_candidate(candidate.id, candidate.info)
            for candidate in c.candidates(role)
        },
    )


def _complete(ctx: click.Context, prefix: str, find: Find) -> list[CompletionItem]:
    logging.disable()
    try:
        words = _find(ctx.params.get("url"), find)
    except Exception:  # An error message would end up in the middle of the user's command line.
        return []
    matching = sorted(
        word for word in words if word.startswith(prefix) and _PLAIN_WORD.fullmatch(word)
    )
    return [CompletionItem(word, help=words[word] or None) for word in matching[:MAX_WORDS]]


def _find(url: str | None, find: Find) -> dict[str, str]:
    from coord.api.sync_coordinator import Coordinator
    from coord.stores import urls

    full = urls.resolve(url)
    if not urls.open_admin(full).exists():
        return {}  # A lookup would create the file.
    coordinator = Coordinator(full, timeout=STORE_TIMEOUT)
    try:
        return find(coordinator)
    finally:
        coordinator.close()
