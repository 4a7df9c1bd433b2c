"""`coord slots`: how many candidates may hold a role at a time."""

from __future__ import annotations

import functools

import click

from coord.cli import exit_codes, options, output
from coord.cli.options import open_coordinator
from coord.core import validation
from coord.errors import command


@click.command(epilog=exit_codes.help_of({exit_codes.FAILED: "ROLE has no slots"}))
@options.role
@click.argument("number", type=int, required=False)
@options.as_json
@options.url
def slots(role: str, number: int | None, as_json: bool, url: str | None) -> None:
    """Print how many candidates may hold ROLE at a time, or change that to NUMBER (1 to 64).

    Candidates that run learn of a change at once. Those that hold a slot with a number of NUMBER or
    above step down. A program that starts later must name the new number.
    """
    from coord.recipes import slot_elector

    validation.role(role)
    if number is not None:
        validation.slots(number, "NUMBER")
    with open_coordinator(url) as coordinator:
        session = coordinator.session
        if number is None:
            present = coordinator.portal.call(
                functools.partial(slot_elector.read_slots, session, role)
            )
        else:
            with options.interruption_notice(
                f"the number of slots of {output.quote(role)} may have been changed; "
                f"`{command('slots', role)}` shows it"
            ):
                before = coordinator.portal.call(
                    functools.partial(slot_elector.change_slots, session, role, number)
                )
            present = number
        held = sum(
            lease.role in {slot_elector.slot_role(role, slot) for slot in range(present or 0)}
            for lease in coordinator.leaders()
        )
    if present is None:
        click.echo(f"{output.quote(role)} has no slots", err=True)
        raise SystemExit(exit_codes.FAILED)
    if as_json:
        click.echo(output.to_json({"role": role, "slots": present, "held": held}))
        return
    was = "" if number is None or before in (None, number) else f" (before: {before})"
    click.echo(f"{output.quote(role)} has {present} slots{was}, {held} held")
