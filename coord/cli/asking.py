"""`coord step-down` and `coord transfer`: the leader is asked, and does it itself. No lease is written here."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from coord import checks
from coord.cli import consent, exit_codes, foreign, options
from coord.cli.lookup import as_dict, opened
from coord.errors import NotLeader
from coord.lease import Lease

if TYPE_CHECKING:
    from coord.cli.handover import Outcome
    from coord.coordinator import Coordinator

Command = TypeVar("Command", bound=Callable[..., Any])
STATUSES = {
    exit_codes.FAILED: "nothing was done (nobody leads, or you said no), or somebody else got the role",
    exit_codes.TIMED_OUT: "--timeout passed, and the same leader leads",
}


def _asking(command: Command) -> Command:
    for option in (
        options.url,
        options.as_json,
        click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds to wait for that."),
        click.option("--no-wait", is_flag=True, help="Do not wait until the leader has handed over."),
        click.option("--by", metavar="NAME", help="Who asks, for the role's history.  [default: user@host]"),
        options.yes,
    ):
        command = option(command)
    return command


def _candidates(ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    from coord.cli import completing

    return completing.candidates(ctx, begun)


@click.command(epilog=exit_codes.help_of(STATUSES))
@options.role
@click.option("--cooldown", type=float, metavar="SECONDS", help="How long it is not to stand again. [default: its ttl]")
@_asking
def step_down(role: str, cooldown: float | None, **given: Any) -> None:
    """Ask the leader of ROLE to end its work and to give the role up, and wait until it has.

    Whoever waits for the role gets it next. Asks you first.
    """
    if cooldown is not None:
        checks.number(cooldown, "cooldown", low=0)

    def request(coordinator: Coordinator, by: str) -> Lease:
        return coordinator.request_step_down(role, by=by, cooldown=cooldown)

    _ask(role, "step down from", request, **given)


@click.command(epilog=exit_codes.help_of(STATUSES))
@options.role
@click.option(
    "--to",
    required=True,
    metavar="CANDIDATE",
    shell_complete=_candidates,
    help="Who gets it: the id of one that waits (coord candidates), the beginning of it, or the name in its info.",
)
@_asking
def transfer(role: str, to: str, **given: Any) -> None:
    """Ask the leader of ROLE to end its work and to hand the role to CANDIDATE, and wait until it has.

    Asks you first.
    """

    def request(coordinator: Coordinator, by: str) -> Lease:
        return coordinator.request_transfer(role, to, by=by)

    _ask(role, f"hand {foreign.quoted(to)} the role", request, to, **given)


def _ask(
    role: str,
    what: str,
    request: Callable[[Coordinator, str], Lease],
    to: str | None = None,
    *,
    yes: bool,
    by: str | None,
    no_wait: bool,
    timeout: float,
    as_json: bool,
    url: str | None,
) -> None:
    checks.role(role)
    checks.number(timeout, "timeout", low=0)
    with opened(url) as coordinator:
        try:
            heir = _heir(coordinator, role, to)
            consent.obtain(f"Ask {_leader(coordinator, role)} to {what} {foreign.quoted(role)}?", yes=yes)
            asked = request(coordinator, consent.asker() if by is None else by)
        except NotLeader:
            click.echo(f"coord: nobody leads {foreign.quoted(role)}", err=True)
            sys.exit(exit_codes.FAILED)
        if no_wait:
            _say(asked, None, as_json)
            return
        from coord.cli import handover

        came = coordinator.engine.call(functools.partial(handover.outcome, coordinator.inner, asked, timeout))
    _say(asked, came, as_json)
    if came.seconds is None:
        sys.exit(exit_codes.TIMED_OUT)
    if heir is not None and (came.after is None or came.after.holder != heir):
        sys.exit(exit_codes.FAILED)


def _leader(coordinator: Coordinator, role: str) -> str:
    lease = coordinator.leader(role)
    if lease is None:
        raise NotLeader(role)
    return f"{foreign.who(lease.holder, lease.info)} (token {lease.token})"


def _heir(coordinator: Coordinator, role: str, to: str | None) -> str | None:
    """The id of the candidate that `to` names. Raises `BadArgument`; `NotLeader` when nobody leads at all."""
    if to is None:
        return None
    _leader(coordinator, role)
    found = coordinator.engine.call(functools.partial(coordinator.inner.waiting_candidate, role, to))
    return found.candidate


def _say(asked: Lease, came: Outcome | None, as_json: bool) -> None:
    if as_json:
        ended = came.ended if came is not None else None
        click.echo(
            foreign.dump(
                {
                    "asked": as_dict(asked),
                    "seconds": None if came is None or came.seconds is None else round(came.seconds, 3),
                    "reason": ended.reason if ended else "",
                    "by": ended.by if ended else "",
                    "leader": None if came is None or came.after is None else as_dict(came.after),
                }
            )
        )
        return
    who, role = foreign.who(asked.holder, asked.info), foreign.quoted(asked.role)
    if came is None:
        click.echo(f"{who} was asked")
    elif came.seconds is None:
        click.echo(f"{who} still leads {role} (token {asked.token})", err=True)
    else:
        why = came.ended.reason if came.ended is not None and came.ended.reason else "its lease ran out"
        now = "nobody leads now"
        if came.after is not None:
            now = f"{foreign.who(came.after.holder, came.after.info)} leads now (token {came.after.token})"
        click.echo(f"{who} leads {role} no more: {foreign.plain(why)} after {came.seconds:.1f} s; {now}")
