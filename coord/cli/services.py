"""`coord services`: the healthy services of the registry."""

from __future__ import annotations

import click

from coord.cli import exit_codes, foreign, options
from coord.cli.lookup import opened

SHOWN = ("role", "id", "load", "host", "last_heartbeat")


@click.command(epilog=exit_codes.help_of())
@click.argument("role", required=False)
@options.as_json
@options.url
def services(role: str | None, as_json: bool, url: str | None) -> None:
    """Print the healthy services, of ROLE or of every role, the least loaded first."""
    with opened(url) as coordinator:
        found = coordinator.services.healthy_services(role)
        where = coordinator.url
    if as_json:
        click.echo(foreign.dump(found))
        return
    if not found:
        click.echo(f"no healthy services on {where}")
        return
    from coord.cli import tables

    tables.show(SHOWN, [[record.get(name) for name in SHOWN] for record in found])
