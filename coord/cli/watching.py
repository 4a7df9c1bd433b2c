"""`coord watch` prints each change of a role's leader as it happens; `coord services` prints the healthy services."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from coord import checks
from coord.cli import options
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
                click.echo(json.dumps({"at": time.time(), "leader": None if lease is None else as_dict(lease)}))
                continue
            clock = time.strftime("%H:%M:%S")
            if lease is None:
                click.echo(f"{clock}  nobody leads {role!r}")
            else:
                click.echo(f"{clock}  token {lease.token}  {lease.holder}  {json.dumps(dict(lease.info))}")


@click.command()
@click.argument("role", required=False)
@options.as_json
@options.url
def services(role: str | None, as_json: bool, url: str | None) -> None:
    """Print the healthy services, of ROLE or of every role, the least loaded first."""
    with opened(url) as coordinator:
        found = coordinator.services.healthy_services(role)
        where = coordinator.url
    if as_json:
        click.echo(json.dumps([dict(record) for record in found], default=str))
        return
    if not found:
        click.echo(f"no healthy services on {where}")
        return
    from coord.cli import tables

    known = ("role", "id", "load", "host", "last_heartbeat")
    tables.show(known, [[_plain(record.get(name)) for name in known] for record in found])


def _plain(value: Any) -> str:
    """Foreign text for a terminal: control characters are shown, not obeyed."""
    text = "" if value is None else str(value)
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
