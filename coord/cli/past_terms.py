"""`coord history`: the last terms of a role."""

from __future__ import annotations

import time

import click

from coord import checks
from coord.cli import exit_codes, foreign, options
from coord.cli.lookup import opened
from coord.lease import Lease
from coord.past import PastTerm

COLUMNS = ("token", "leader", "from", "until", "lasted", "ended", "asked by", "candidate", "info")


@click.command(epilog=exit_codes.help_of())
@options.role
@options.as_json
@options.url
def history(role: str, as_json: bool, url: str | None) -> None:
    """Print the last terms of ROLE, newest first: who led, from when, until when, why it ended, and who asked for it.

    "expired" is all that is known of a leader that fell silent: it alone could tell why.
    """
    checks.role(role)
    with opened(url) as coordinator:
        terms = coordinator.history(role)
        lease = coordinator.leader(role)
        where = coordinator.url
    if as_json:
        from coord.cli.overview import term_as_dict

        click.echo(foreign.dump([term_as_dict(term) for term in terms]))
        return
    if not terms:
        click.echo(f"nothing is known of {foreign.quoted(role)} on {where}")
        return
    from coord.cli import tables

    tables.show(COLUMNS, [_row(term, lease) for term in terms])


def _row(term: PastTerm, lease: Lease | None) -> tuple[object, ...]:
    from coord.cli.moments import lasting, moment

    leads = term.until is None and lease is not None and lease.token == term.token
    ended = term.reason or ("leads" if leads else "ran out")
    lasted = "" if term.until is None and not leads else lasting((term.until or time.time()) - term.since)
    return (
        term.token,
        foreign.who(term.holder, term.info),
        moment(term.since),
        moment(term.until),
        lasted,
        ended,
        term.by,
        term.holder,
        foreign.pairs(term.info, but=("host", "pid")),
    )
