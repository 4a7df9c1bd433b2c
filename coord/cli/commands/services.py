"""`coord services`: the healthy services of the registry."""

from __future__ import annotations

import click

from coord.cli import exit_codes, options, output
from coord.cli.options import open_coordinator
from coord.errors import BadArgument, NotSetUp

SERVICE_FIELDS = ("role", "id", "load", "host", "last_heartbeat")


@click.command(epilog=exit_codes.help_of())
@click.argument("role", required=False)
@options.as_json
@options.url
def services(role: str | None, as_json: bool, url: str | None) -> None:
    """Print the healthy services, of ROLE or of every role, the least loaded first."""
    with open_coordinator(url) as coordinator:
        found = coordinator.services.healthy_services(role)
        where = coordinator.url
    if as_json:
        click.echo(output.to_json(found))
        return
    if not found:
        click.echo(f"no healthy services on {where}")
        return

    output.print_table(
        SERVICE_FIELDS, [[record.get(name) for name in SERVICE_FIELDS] for record in found]
    )


# -- `coord purge`: deletes what has run out and only takes space. It never touches a lease.

MAX_LISTED = ("role", "id", "host", "ttl", "last_heartbeat")


@click.command(epilog=exit_codes.help_of({exit_codes.FAILED: "nothing was done: you said no"}))
@click.option(
    "--ttls",
    type=float,
    default=2.0,
    show_default=True,
    help="Of a service's own ttls it must have been silent for so many; 1 or more.",
)
@options.yes
@options.as_json
@options.url
def purge(ttls: float, yes: bool, as_json: bool, url: str | None) -> None:
    """Delete the records of services that have been silent for long, and what has run out on the
    board.

    Shows the services and asks first. Leases are never touched.
    """
    with open_coordinator(url) as coordinator:
        stale = coordinator.services.stale_services(ttls)
        if not as_json:
            _show(stale)
        options.confirm(
            f"Delete {_services(len(stale))} and what has run out on the board?", yes=yes
        )
        deleted = coordinator.services.purge_stale_services(ttls)["deleted"]
        inner, notices = coordinator.inner, None
        try:
            notices = coordinator.portal.call(
                lambda: inner.announcements.purge(inner.session.timeout)
            )
        except (NotSetUp, BadArgument) as err:
            click.echo(f"coord purge: {output.one_line(str(err))}", err=True)
    if as_json:
        click.echo(output.to_json({"services": deleted, "notices": notices, "stale": stale}))
        return
    about = "" if notices is None else f" and {notices} notice{'' if notices == 1 else 's'}"
    click.echo(f"deleted {_services(deleted)}{about}")


def _services(count: int) -> str:
    return f"{count} service record{'' if count == 1 else 's'}"


def _show(stale: list[dict[str, object]]) -> None:

    if stale:
        output.print_table(
            MAX_LISTED, [[record.get(name) for name in MAX_LISTED] for record in stale]
        )
