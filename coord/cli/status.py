"""`coord status`: all roles at a glance."""

from __future__ import annotations

import functools

import click

from coord.cli import exit_codes, foreign, options
from coord.cli.lookup import opened


@click.command(epilog=exit_codes.help_of())
@click.option("--all", "every", is_flag=True, help="Vacant roles, too.")
@options.as_json
@options.url
def status(every: bool, as_json: bool, url: str | None) -> None:
    """Print all the roles that somebody leads.

    The leader, its token, since when it leads, the time left, how many wait for the role, and how the last term ended.
    """
    show(every=every, as_json=as_json, url=url)


def show(*, every: bool, as_json: bool, url: str | None) -> None:
    """Print it once."""
    from coord.cli import overview

    with opened(url) as coordinator:
        seen = coordinator.engine.call(functools.partial(overview.look, coordinator.inner, every=every))
        where = coordinator.url
    if as_json:
        click.echo(foreign.dump(seen.as_json()))
        return
    if seen.note:
        click.echo(f"coord: {foreign.sentence(seen.note)}", err=True)
    if not seen.leases:
        click.echo(f"nobody {'has led' if every else 'leads'} anything on {where}")
        return
    from coord.cli import tables

    tables.show(overview.COLUMNS, seen.rows())
