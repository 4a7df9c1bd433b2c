"""`coord leader`: who leads a role."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from coord import checks
from coord.cli import exit_codes, foreign, options
from coord.lease import Lease

if TYPE_CHECKING:
    from coord.coordinator import Coordinator


@click.command(epilog=exit_codes.help_of({exit_codes.FAILED: "nobody leads"}))
@options.role
@options.as_json
@options.url
def leader(role: str, as_json: bool, url: str | None) -> None:
    """Print who leads ROLE."""
    checks.role(role)
    with opened(url) as coordinator:
        lease = coordinator.leader(role)
    if as_json:
        click.echo(foreign.dump(None if lease is None else as_dict(lease)))
    elif lease is None:
        click.echo(f"nobody leads {foreign.quoted(role)}", err=True)
    else:
        left = f"token {lease.token}  {lease.remaining:.1f} s left"
        click.echo(f"{foreign.plain(lease.holder)}  {left}  {foreign.pairs(lease.info)}")
    sys.exit(exit_codes.FAILED if lease is None else 0)


def as_dict(lease: Lease) -> dict[str, Any]:
    """A lease for JSON: seconds; `renewed_at`, and `since` when the term began (0: unknown), in seconds since 1970."""
    return {
        "role": lease.role,
        "holder": lease.holder,
        "token": lease.token,
        "ttl": lease.ttl,
        "remaining": round(max(0.0, lease.remaining), 3),
        "renewed_at": lease.renewed_at,
        "since": lease.since,
        "info": lease.info,
    }


@contextlib.contextmanager
def opened(url: str | None) -> Iterator[Coordinator]:
    """A coordinator, closed at the end."""
    from coord.coordinator import Coordinator

    coordinator = Coordinator(url)
    try:
        yield coordinator
    finally:
        coordinator.close()
