"""`coord leader`: who leads a role."""

from __future__ import annotations

import functools
import sys
import time
from typing import TYPE_CHECKING

import click

from coord.cli import exit_codes, options, output
from coord.cli.options import open_coordinator
from coord.cli.output import lease_as_dict
from coord.core import validation
from coord.core.history import PastTerm
from coord.core.lease import Lease

if TYPE_CHECKING:
    pass


@click.command(epilog=exit_codes.help_of({exit_codes.FAILED: "nobody leads"}))
@options.role
@options.as_json
@options.url
def leader(role: str, as_json: bool, url: str | None) -> None:
    """Print who leads ROLE."""
    validation.role(role)
    with open_coordinator(url) as coordinator:
        lease = coordinator.leader(role)
    if as_json:
        click.echo(output.to_json(None if lease is None else lease_as_dict(lease)))
    elif lease is None:
        click.echo(f"nobody leads {output.quote(role)}", err=True)
    else:
        left = f"token {lease.token}  {lease.remaining:.1f} s left"
        click.echo(f"{output.sanitize(lease.holder)}  {left}  {output.format_info(lease.info)}")
    sys.exit(exit_codes.FAILED if lease is None else 0)


# -- `coord status`: all roles at a glance.


@click.command(epilog=exit_codes.help_of())
@click.option("--all", "every", is_flag=True, help="Vacant roles, too.")
@options.as_json
@options.url
def status(every: bool, as_json: bool, url: str | None) -> None:
    """Print all the roles that somebody leads.

    The leader, its token, since when it leads, the time left, how many wait for the role, and how
    the last term ended."""
    show(every=every, as_json=as_json, url=url)


def show(*, every: bool, as_json: bool, url: str | None) -> None:
    """Print it once."""
    from coord.cli import overview

    with open_coordinator(url) as coordinator:
        seen = coordinator.portal.call(
            functools.partial(overview.load_overview, coordinator.inner, every=every)
        )
        where = coordinator.url
    if as_json:
        click.echo(output.to_json(seen.as_json()))
        return
    if seen.note:
        click.echo(f"coord: {output.one_line(seen.note)}", err=True)
    if not seen.leases:
        click.echo(f"nobody {'has led' if every else 'leads'} anything on {where}")
        return

    output.print_table(overview.COLUMNS, seen.rows())


# -- `coord candidates`: who waits for a role.

CANDIDATE_COLUMNS = ("role", "candidate", "who", "priority", "waits for", "info")


@click.command(epilog=exit_codes.help_of())
@options.any_role
@options.as_json
@options.url
def candidates(role: str | None, as_json: bool, url: str | None) -> None:
    """Print who waits for ROLE, or for any role: the highest priority first, then who has waited
    longest.

    It may be as old as a ttl.
    """
    if role is not None:
        validation.role(role)
    with open_coordinator(url) as coordinator:
        found = coordinator.candidates(role)
        where = coordinator.url
    if as_json:
        fields = ("role", "candidate", "priority", "since", "info")
        click.echo(output.to_json([{name: getattr(one, name) for name in fields} for one in found]))
        return
    if not found:
        what = "anything" if role is None else output.quote(role)
        click.echo(f"nobody waits for {what} on {where}")
        return
    from coord.cli.output import format_duration

    now = time.time()
    rows = [
        (
            one.role,
            one.candidate,
            output.describe_candidate(one.candidate, one.info),
            one.priority or "",
            format_duration(now - one.since),
            output.format_info(one.info, but=("host", "pid")),
        )
        for one in sorted(found, key=lambda one: one.role)
    ]
    output.print_table(CANDIDATE_COLUMNS, rows)


# -- `coord history`: the last terms of a role.

HISTORY_COLUMNS = (
    "token",
    "leader",
    "from",
    "until",
    "lasted",
    "ended",
    "asked by",
    "candidate",
    "info",
)


@click.command(epilog=exit_codes.help_of())
@options.role
@options.as_json
@options.url
def history(role: str, as_json: bool, url: str | None) -> None:
    """Print the last terms of ROLE, newest first: who led, from when, until when, why it ended, and
    who asked for it.

    "expired" is all that is known of a leader that fell silent: it alone could tell why.
    """
    validation.role(role)
    with open_coordinator(url) as coordinator:
        terms = coordinator.history(role)
        lease = coordinator.leader(role)
        where = coordinator.url
    if as_json:
        from coord.cli.output import term_as_dict

        click.echo(output.to_json([term_as_dict(term) for term in terms]))
        return
    if not terms:
        click.echo(f"nothing is known of {output.quote(role)} on {where}")
        return

    output.print_table(HISTORY_COLUMNS, [_row(term, lease) for term in terms])


def _row(term: PastTerm, lease: Lease | None) -> tuple[object, ...]:
    from coord.cli.output import format_duration, format_time

    leads = term.until is None and lease is not None and lease.token == term.token
    ended = term.reason or ("leads" if leads else "ran out")
    lasted = (
        ""
        if term.until is None and not leads
        else format_duration((term.until or time.time()) - term.since)
    )
    return (
        term.token,
        output.describe_candidate(term.holder, term.info),
        format_time(term.since),
        format_time(term.until),
        lasted,
        ended,
        term.by,
        term.holder,
        output.format_info(term.info, but=("host", "pid")),
    )


# -- `coord watch` prints each change of a role's leader as it happens.


@click.command(epilog=exit_codes.help_of())
@options.any_role
@options.as_json
@options.url
def watch(role: str | None, as_json: bool, url: str | None) -> None:
    """Print who leads ROLE, or each role, and then a line for each change, at once, until
    interrupted.

    Without ROLE all roles are watched, those that appear later, too.
    """
    if role is not None:
        validation.role(role)
    with open_coordinator(url) as coordinator:
        coordinator.check()
        if role is None:
            for change in coordinator.watch_leaders():
                _tell(change.role, change.leader, as_json, every=True)
        else:
            for lease in coordinator.watch_leader(role):
                _tell(role, lease, as_json, every=False)


def _tell(role: str, leader: Lease | None, as_json: bool, *, every: bool) -> None:
    if as_json:
        said = {
            "at": time.time(),
            "role": role,
            "leader": None if leader is None else lease_as_dict(leader),
        }
        click.echo(output.to_json(said))
        return
    clock = time.strftime("%H:%M:%S")
    if leader is None:
        click.echo(f"{clock}  nobody leads {output.quote(role)}")
        return
    about = f"{output.sanitize(role)}  " if every else ""
    who = (
        f"token {leader.token}  {output.sanitize(leader.holder)}  {output.format_info(leader.info)}"
    )
    click.echo(f"{clock}  {about}{who}")
