"""`coord watch` prints each change of a role's leader as it happens."""

from __future__ import annotations

import time

import click

from coord import checks
from coord.cli import foreign, options
from coord.cli.lookup import as_dict, opened


@click.command()
@click.argument("role")
@options.as_json
@options.url
def watch(role: str, as_json: bool, url: str | None) -> None:
    """Print who leads ROLE, and then a line for each change, at once, until interrupted."""
    checks.role(role)
    with opened(url) as coordinator:
        coordinator.check()
        for lease in coordinator.watch_leader(role):
            if as_json:
                click.echo(foreign.dump({"at": time.time(), "leader": None if lease is None else as_dict(lease)}))
                continue
            clock = time.strftime("%H:%M:%S")
            if lease is None:
                click.echo(f"{clock}  nobody leads {foreign.quoted(role)}")
            else:
                said = f"token {lease.token}  {foreign.plain(lease.holder)}  {foreign.pairs(lease.info)}"
                click.echo(f"{clock}  {said}")
