"""`coord candidates`: who waits for a role."""

from __future__ import annotations

import time

import click

from coord import checks
from coord.cli import exit_codes, foreign, options
from coord.cli.lookup import opened

COLUMNS = ("role", "candidate", "who", "priority", "waits for", "info")


@click.command(epilog=exit_codes.help_of())
@options.any_role
@options.as_json
@options.url
def candidates(role: str | None, as_json: bool, url: str | None) -> None:
    """Print who waits for ROLE, or for any role: the highest priority first, then who has waited longest.

    It may be as old as a ttl.
    """
    if role is not None:
        checks.role(role)
    with opened(url) as coordinator:
        found = coordinator.candidates(role)
        where = coordinator.url
    if as_json:
        fields = ("role", "candidate", "priority", "since", "info")
        click.echo(foreign.dump([{name: getattr(one, name) for name in fields} for one in found]))
        return
    if not found:
        what = "anything" if role is None else foreign.quoted(role)
        click.echo(f"nobody waits for {what} on {where}")
        return
    from coord.cli import tables
    from coord.cli.moments import lasting

    now = time.time()
    rows = [
        (
            one.role,
            one.candidate,
            foreign.who(one.candidate, one.info),
            one.priority or "",
            lasting(now - one.since),
            foreign.pairs(one.info, but=("host", "pid")),
        )
        for one in sorted(found, key=lambda one: one.role)
    ]
    tables.show(COLUMNS, rows)
