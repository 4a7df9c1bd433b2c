"""`coord watch` prints each change of a role's leader as it happens."""

from __future__ import annotations

import time

import click

from coord import checks
from coord.cli import exit_codes, foreign, options
from coord.cli.lookup import as_dict, opened
from coord.lease import Lease


@click.command(epilog=exit_codes.help_of())
@options.any_role
@options.as_json
@options.url
def watch(role: str | None, as_json: bool, url: str | None) -> None:
    """Print who leads ROLE, or each role, and then a line for each change, at once, until interrupted.

    Without ROLE all roles are watched, those that appear later, too.
    """
    if role is not None:
        checks.role(role)
    with opened(url) as coordinator:
        coordinator.check()
        if role is None:
            for change in coordinator.watch_leaders():
                _tell(change.role, change.leader, as_json, every=True)
        else:
            for lease in coordinator.watch_leader(role):
                _tell(role, lease, as_json, every=False)


def _tell(role: str, leader: Lease | None, as_json: bool, *, every: bool) -> None:
    if as_json:
        said = {"at": time.time(), "role": role, "leader": None if leader is None else as_dict(leader)}
        click.echo(foreign.dump(said))
        return
    clock = time.strftime("%H:%M:%S")
    if leader is None:
        click.echo(f"{clock}  nobody leads {foreign.quoted(role)}")
        return
    about = f"{foreign.plain(role)}  " if every else ""
    who = f"token {leader.token}  {foreign.plain(leader.holder)}  {foreign.pairs(leader.info)}"
    click.echo(f"{clock}  {about}{who}")
