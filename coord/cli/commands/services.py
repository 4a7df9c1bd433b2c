"""`coord services` prints healthy services. `coord purge` deletes what has expired."""

from __future__ import annotations

import click

from coord.cli import exit_codes, options, output
from coord.cli.options import open_coordinator
from coord.core import validation
from coord.errors import BadArgument, NotSetUp
from coord.services.registry import MAX_TTLS

SERVICE_FIELDS = ("role", "id", "load", "host", "last_heartbeat")


@click.command(epilog=exit_codes.help_of())
@click.argument("role", required=False)
@options.as_json
@options.url
def services(role: str | None, as_json: bool, url: str | None) -> None:
    """Print the healthy services of ROLE, or of all roles, the lowest load first."""
    with open_coordinator(url) as coordinator:
        records = coordinator.services.healthy_services(role)
        where = coordinator.url
    if as_json:
        click.echo(output.to_json(records))
        return
    if not records:
        click.echo(f"no healthy services on {where}")
        return
    output.print_table(
        SERVICE_FIELDS, [[record.get(name) for name in SERVICE_FIELDS] for record in records]
    )


STALE_FIELDS = ("role", "id", "host", "ttl", "last_heartbeat")


@click.command(epilog=exit_codes.help_of({exit_codes.FAILED: "nothing was changed: you said no"}))
@click.option(
    "--ttls",
    type=float,
    default=2.0,
    show_default=True,
    help="Delete services that have missed heartbeats for this many of their ttls (at least 1).",
)
@options.yes
@options.as_json
@options.url
def purge(ttls: float, yes: bool, as_json: bool, url: str | None) -> None:
    """Delete the records of services that stopped sending heartbeats, and expired announcements.

    Shows the services and asks for confirmation. It never deletes a lease.
    """
    validation.number(ttls, "--ttls", low=1, high=MAX_TTLS, unit="ttls")
    with open_coordinator(url) as coordinator:
        stale = coordinator.services.stale_services(ttls)
        if not as_json:
            _show(stale)
        options.confirm(f"Delete {_services(len(stale))} and the expired announcements?", yes=yes)
        inner, expired = coordinator.inner, None
        with options.interruption_notice(
            "some records may have been deleted; run the command again for the others"
        ):
            deleted = coordinator.services.purge_stale_services(ttls)["deleted"]
            try:
                expired = coordinator.portal.call(
                    lambda: inner.announcements.purge(inner.session.timeout)
                )
            except (NotSetUp, BadArgument) as err:
                click.echo(f"coord purge: {output.one_line(str(err))}", err=True)
    if as_json:
        click.echo(output.to_json({"services": deleted, "announcements": expired, "stale": stale}))
        return
    about = "" if expired is None else f" and {expired} announcement{'' if expired == 1 else 's'}"
    click.echo(f"deleted {_services(deleted)}{about}")


def _services(count: int) -> str:
    return f"{count} service record{'' if count == 1 else 's'}"


def _show(stale: list[dict[str, object]]) -> None:
    if stale:
        output.print_table(
            STALE_FIELDS, [[record.get(name) for name in STALE_FIELDS] for record in stale]
        )
