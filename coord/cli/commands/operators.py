"""`coord evict`, `coord pause` and `coord resume`.

They change the row of the role themselves, so they do not need the leader.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from coord.cli import exit_codes, options, output
from coord.cli.options import open_coordinator
from coord.cli.output import lease_as_dict
from coord.core import validation
from coord.core.lease import Lease
from coord.errors import CoordError, NotLeader, command

if TYPE_CHECKING:
    from coord.api.sync_coordinator import Coordinator


@click.command(
    epilog=exit_codes.help_of(
        {
            exit_codes.FAILED: "nothing was changed: nobody leads, another leader was elected, or "
            "you said no"
        }
    )
)
@options.role
@options.url
@options.as_json
@options.by
@options.yes
def evict(role: str, url: str | None, as_json: bool, by: str, yes: bool) -> None:
    """Take the lease of ROLE away from its leader, which hangs and does not answer step-down.

    The store refuses the leader's renewals from now on. Another candidate is elected when the lease
    that the leader was granted has run out, and not earlier. Asks for confirmation.
    """
    with open_coordinator(url) as coordinator:
        _check_store(coordinator)
        lease = options.row_to_change(coordinator, role)
        if lease.led:
            options.confirm(
                f"Evict {output.describe_candidate(lease.holder, lease.info)} "
                f"(token {lease.token}) from {output.quote(role)}?",
                yes=yes,
            )
        try:
            # Only the term that was confirmed: another leader may have been elected meanwhile.
            with options.interruption_notice(
                f"the leader of {output.quote(role)} may have been evicted; "
                f"`{command('history', role)}` and `coord status --all` show that"
            ):
                lease = coordinator.evict(role, by=by, token=lease.token)
        except NotLeader as err:
            click.echo(f"coord: {err}", err=True)
            sys.exit(exit_codes.FAILED)
    if as_json:
        click.echo(output.to_json({"term": lease_as_dict(lease)}))
        return
    click.echo(
        f"{output.quote(role)}: {_leader(lease)} is evicted; its lease runs for at most "
        f"{lease.ttl:g} s more, and then another candidate is elected"
    )


@click.command(
    epilog=exit_codes.help_of(
        {exit_codes.FAILED: "nothing was changed: you said no, or another leader was elected"}
    )
)
@options.role
@click.option(
    "--timeout",
    type=float,
    metavar="SECONDS",
    help="Maximum time that the leader may take to end its work. Then its lease is taken away. "
    "[default: its ttl]",
)
@options.url
@options.as_json
@options.by
@options.yes
def pause(
    role: str, timeout: float | None, url: str | None, as_json: bool, by: str, yes: bool
) -> None:
    """Let nobody be elected for ROLE until coord resume ROLE.

    The leader is asked to end its work and to release the role. Asks for confirmation.
    """
    validation.timeout(timeout)
    with open_coordinator(url) as coordinator:
        _check_store(coordinator)
        lease = options.row_to_change(coordinator, role)
        who = f"which {_leader(lease)} leads" if lease.led else "which nobody leads"
        options.confirm(f"Pause {output.quote(role)}, {who}?", yes=yes)
        # With --yes the user has agreed to whoever leads.
        token = None if yes else lease.token
        try:
            with options.interruption_notice(lambda: outcome_of_pause(coordinator, role)):
                ended = coordinator.pause(role, by=by, timeout=timeout, token=token)
        except NotLeader as err:
            click.echo(f"coord: {err}; nothing was changed", err=True)
            sys.exit(exit_codes.FAILED)
    if as_json:
        term = None if ended is None else lease_as_dict(ended)
        click.echo(output.to_json({"role": role, "paused": True, "term": term}))
        return
    what = "" if ended is None else f"; {_leader(ended)} is not the leader any longer"
    click.echo(f"{output.quote(role)} is paused{what}")


@click.command(epilog=exit_codes.help_of({exit_codes.FAILED: "ROLE was not paused"}))
@options.role
@options.url
@options.as_json
@options.by
def resume(role: str, url: str | None, as_json: bool, by: str) -> None:
    """Let candidates be elected for ROLE again, after coord pause ROLE."""
    validation.elected_role(role)
    with (
        open_coordinator(url) as coordinator,
        options.interruption_notice(
            f"{output.quote(role)} may have been resumed; `coord status --all` shows that"
        ),
    ):
        resumed = coordinator.resume(role, by=by)
    if as_json:
        click.echo(output.to_json({"role": role, "resumed": resumed}))
    elif resumed:
        click.echo(f"{output.quote(role)} is resumed")
    else:
        click.echo(f"coord: {output.quote(role)} is not paused", err=True)
    sys.exit(0 if resumed else exit_codes.FAILED)


def _check_store(coordinator: Coordinator) -> None:
    """Check that the store can do that, before the user is asked.

    Raises:
        BadArgument: It cannot.
    """
    from coord.stores.requests import overridable

    overridable(coordinator.store)


def outcome_of_pause(coordinator: Coordinator, role: str) -> str:
    """Return what becomes of a role whose pause was interrupted, and what to do, for people."""
    from coord.election.operators import pause_requested

    resume = f"`{command('resume', role)}` lets candidates be elected again"
    session = coordinator.session

    async def look() -> tuple[Lease, bool]:
        rows = await session.read([role])
        row = rows[0] if rows else Lease(role)
        return row, await pause_requested(session, row)

    try:
        lease, requested = coordinator.portal.call(look)
    except CoordError as err:
        return f"{output.quote(role)} may be paused ({err}); {resume}"
    if lease.paused:
        return f"{output.quote(role)} is paused; {resume}"
    if requested:
        return (
            f"{output.quote(role)} is paused as soon as {_leader(lease)}, which was asked to, has "
            f"released it; after that {resume}"
        )
    return (
        f"{output.quote(role)} is not paused yet, and the request may still arrive; "
        f"`coord status --all` shows that, and {resume}"
    )


def _leader(lease: Lease) -> str:
    return f"{output.describe_candidate(lease.holder, lease.info)} (token {lease.token})"
