"""`coord completion`: the script by which a shell completes `coord` with Tab."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from coord.cli import exit_codes

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
