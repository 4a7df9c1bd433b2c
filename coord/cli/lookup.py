"""`coord leader` and `coord status`: who leads."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from coord import checks
from coord.cli import exit_codes, options
from coord.lease import Lease

if TYPE_CHECKING:
    from coord.coordinator import Coordinator


@click.command()
@click.argument("role")
@options.as_json
@options.url
def leader(role: str, as_json: bool, url: str | None) -> None:
    """Print who leads ROLE. Exit status 1 when nobody does."""
    checks.role(role)
    with opened(url) as coordinator:
        lease = coordinator.leader(role)
    if as_json:
        click.echo(json.dumps(None if lease is None else as_dict(lease)))
    elif lease is None:
        click.echo(f"nobody leads {role!r}", err=True)
    else:
        click.echo(f"{lease.holder}  token {lease.token}  {lease.remaining:.1f} s left  {json.dumps(dict(lease.info))}")
    sys.exit(exit_codes.FAILED if lease is None else 0)


@click.command()
@options.as_json
@options.url
def status(as_json: bool, url: str | None) -> None:
    """Print all the roles that somebody leads."""
    with opened(url) as coordinator:
        leases = coordinator.leaders()
        where = coordinator.url
    if as_json:
        click.echo(json.dumps([as_dict(lease) for lease in leases]))
        return
    if not leases:
        click.echo(f"nobody leads anything on {where}")
        return
    from coord.cli import tables

    rows = [
        (lease.role, lease.holder or "", str(lease.token), f"{lease.remaining:.1f} s of {lease.ttl:g}", _info(lease))
        for lease in leases
    ]
    tables.show(("role", "holder", "token", "left", "info"), rows)


def as_dict(lease: Lease) -> dict[str, Any]:
    """A lease for JSON: seconds, and `renewed_at` in seconds since 1970."""
    return {
        "role": lease.role,
        "holder": lease.holder,
        "token": lease.token,
        "ttl": lease.ttl,
        "remaining": round(lease.remaining, 3),
        "renewed_at": lease.renewed_at,
        "info": dict(lease.info),
    }


def _info(lease: Lease) -> str:
    return "  ".join(f"{key}={value}" for key, value in lease.info.items())


@contextlib.contextmanager
def opened(url: str | None) -> Iterator[Coordinator]:
    """A coordinator, closed at the end."""
    from coord.coordinator import Coordinator

    coordinator = Coordinator(url)
    try:
        yield coordinator
    finally:
        coordinator.close()
