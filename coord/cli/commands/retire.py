"""`coord retire`: deletes the rows of roles that nobody needs any longer."""

from __future__ import annotations

import functools
import re

import click

from coord.cli import exit_codes, options, output
from coord.cli.options import open_coordinator
from coord.core import validation
from coord.errors import BadArgument

UNITS = {"s": 1.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}
"""Seconds in each unit of a duration."""


def duration(text: str, argument: str) -> float:
    """Return a duration such as `90d`, `12h`, `30min` or `45s` in seconds.

    Raises:
        BadArgument: It is not such a duration.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h|d)", text)
    if match is None:
        raise BadArgument(argument, text, "must be a number with a unit: 90d, 12h, 30min or 45s")
    seconds = float(match[1]) * UNITS[match[2]]
    return validation.number(seconds, argument, low=0)


@click.command(epilog=exit_codes.help_of({exit_codes.FAILED: "nothing was changed: you said no"}))
@click.option(
    "--unused",
    required=True,
    metavar="DURATION",
    help="Retire roles that nobody has led for this long, such as 90d, 12h, 30min or 45s.",
)
@click.option("--prefix", metavar="TEXT", help="Retire only roles whose names begin with TEXT.")
@options.url
@options.as_json
@options.yes
def retire(unused: str, prefix: str | None, url: str | None, as_json: bool, yes: bool) -> None:
    """Delete the rows of roles that nobody needs any longer, with their history.

    A role with a leader, a paused role and a role with notes stay. So does a role whose last leader
    crashed, until another candidate has led it. The fencing tokens of a retired role never fall: if
    it is claimed again, its token is above its last one. Asks for confirmation.
    """
    from coord.election.retirement import unused_roles
    from coord.stores.requests import retirable

    seconds = duration(unused, "unused")
    # An empty TEXT, as of a variable that is not set, would be all roles.
    prefix = "" if prefix is None else validation.role(prefix, "prefix")
    with open_coordinator(url) as coordinator:
        retirable(coordinator.store)
        if not yes:
            unneeded = coordinator.portal.call(
                functools.partial(unused_roles, coordinator.session, prefix, seconds)
            )
            options.confirm(f"Retire {_count(len(unneeded))}{_of(prefix)}?", yes=False)
        with options.interruption_notice(
            "some of the roles may have been retired; run the command again for the others"
        ):
            retired = coordinator.retire(prefix, unused=seconds)
    if as_json:
        click.echo(output.to_json({"retired": retired}))
    else:
        click.echo(f"retired {_count(len(retired))}{_of(prefix)}")


def _count(number: int) -> str:
    return "1 role" if number == 1 else f"{number:,} roles"


def _of(prefix: str) -> str:
    return f" whose names begin with {output.quote(prefix)}" if prefix else ""
