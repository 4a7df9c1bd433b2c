"""Waiting until a leader that was asked to give way has done so, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from click.shell_completion import CompletionItem

from coord.api.coordinator import AsyncCoordinator
from coord.cli import exit_codes, options, output
from coord.cli.options import open_coordinator
from coord.cli.output import lease_as_dict
from coord.core import validation
from coord.core.history import PastTerm
from coord.core.lease import Lease
from coord.errors import NotLeader

if TYPE_CHECKING:
    from coord.api.coordinator import Coordinator

SUCCESSOR = 2.0
"""Seconds to wait for the next leader, once the one that was asked has gone; where nobody waits
there is none."""


@dataclass(frozen=True)
class Outcome:
    """`seconds` until the term that was asked to end had ended; None: it lasts. `after` leads since
    then."""

    seconds: float | None
    ended: PastTerm | None = None
    after: Lease | None = None


async def outcome(source: AsyncCoordinator, asked: Lease, timeout: float) -> Outcome:
    """What came of it within `timeout` seconds."""
    begun = asyncio.get_running_loop().time()
    changes = cast("AsyncGenerator[Lease | None, Any]", source.watch_leader(asked.role))
    async with contextlib.aclosing(changes):
        now = await _until(changes, lambda now: now is None or now.token != asked.token, timeout)
        if now is _NOT_YET:
            return Outcome(None)
        seconds = asyncio.get_running_loop().time() - begun
        if now is None:
            now = await _until(changes, lambda now: now is not None, SUCCESSOR)
    after = now if isinstance(now, Lease) else None
    ended = next(
        (term for term in await source.history(asked.role) if term.token == asked.token), None
    )
    return Outcome(seconds, ended, after)


class _NotYet:
    """No such change came in time."""


_NOT_YET = _NotYet()


async def _until(
    changes: AsyncGenerator[Lease | None, Any],
    wanted: Callable[[Lease | None], bool],
    timeout: float,
) -> Lease | _NotYet | None:
    async def first() -> Lease | _NotYet | None:
        async for now in changes:
            if wanted(now):
                return now
        return _NOT_YET

    try:
        return await asyncio.wait_for(first(), timeout)
    except asyncio.TimeoutError:
        return _NOT_YET


# -- `coord step-down` and `coord transfer`: the leader is asked, and does it itself. No lease is
# written here.

Command = TypeVar("Command", bound=Callable[..., Any])
STATUSES = {
    exit_codes.FAILED: "nothing was done (nobody leads, or you said no), or somebody else got the role",
    exit_codes.TIMED_OUT: "--timeout passed, and the same leader leads",
}


def _asking(command: Command) -> Command:
    for option in (
        options.url,
        options.as_json,
        click.option(
            "--timeout",
            type=float,
            default=60.0,
            show_default=True,
            help="Seconds to wait for that.",
        ),
        click.option(
            "--no-wait", is_flag=True, help="Do not wait until the leader has handed over."
        ),
        click.option(
            "--by", metavar="NAME", help="Who asks, for the role's history.  [default: user@host]"
        ),
        options.yes,
    ):
        command = option(command)
    return command


def _candidates(ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
    from coord.cli.commands import completion

    return completion.candidates(ctx, begun)


@click.command(epilog=exit_codes.help_of(STATUSES))
@options.role
@click.option(
    "--cooldown",
    type=float,
    metavar="SECONDS",
    help="How long it is not to stand again. [default: its ttl]",
)
@_asking
def step_down(role: str, cooldown: float | None, **given: Any) -> None:
    """Ask the leader of ROLE to end its work and to give the role up, and wait until it has.

    Whoever waits for the role gets it next. Asks you first.
    """
    if cooldown is not None:
        validation.number(cooldown, "cooldown", low=0)

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
    """Ask the leader of ROLE to end its work and to hand the role to CANDIDATE, and wait until it
    has.

    Asks you first.
    """

    def request(coordinator: Coordinator, by: str) -> Lease:
        return coordinator.request_transfer(role, to, by=by)

    _ask(role, f"hand {output.quote(to)} the role", request, to, **given)


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
    validation.role(role)
    validation.number(timeout, "timeout", low=0)
    with open_coordinator(url) as coordinator:
        try:
            heir = _heir(coordinator, role, to)
            options.confirm(
                f"Ask {_leader(coordinator, role)} to {what} {output.quote(role)}?", yes=yes
            )
            asked = request(coordinator, options.current_user() if by is None else by)
        except NotLeader:
            click.echo(f"coord: nobody leads {output.quote(role)}", err=True)
            sys.exit(exit_codes.FAILED)
        if no_wait:
            _say(asked, None, as_json)
            return

        came = coordinator.portal.call(
            functools.partial(outcome, coordinator.inner, asked, timeout)
        )
    _say(asked, came, as_json)
    if came.seconds is None:
        sys.exit(exit_codes.TIMED_OUT)
    if heir is not None and (came.after is None or came.after.holder != heir):
        sys.exit(exit_codes.FAILED)


def _leader(coordinator: Coordinator, role: str) -> str:
    lease = coordinator.leader(role)
    if lease is None:
        raise NotLeader(role)
    return f"{output.describe_candidate(lease.holder, lease.info)} (token {lease.token})"


def _heir(coordinator: Coordinator, role: str, to: str | None) -> str | None:
    """The id of the candidate that `to` names. Raises `BadArgument`; `NotLeader` when nobody leads
    at all."""
    if to is None:
        return None
    _leader(coordinator, role)
    found = coordinator.portal.call(functools.partial(coordinator.session.find_candidate, role, to))
    return found.candidate


def _say(asked: Lease, came: Outcome | None, as_json: bool) -> None:
    if as_json:
        ended = came.ended if came is not None else None
        click.echo(
            output.to_json(
                {
                    "asked": lease_as_dict(asked),
                    "seconds": None
                    if came is None or came.seconds is None
                    else round(came.seconds, 3),
                    "reason": ended.reason if ended else "",
                    "by": ended.by if ended else "",
                    "leader": None
                    if came is None or came.after is None
                    else lease_as_dict(came.after),
                }
            )
        )
        return
    who, role = output.describe_candidate(asked.holder, asked.info), output.quote(asked.role)
    if came is None:
        click.echo(f"{who} was asked")
    elif came.seconds is None:
        click.echo(f"{who} still leads {role} (token {asked.token})", err=True)
    else:
        why = (
            came.ended.reason
            if came.ended is not None and came.ended.reason
            else "its lease ran out"
        )
        now = "nobody leads now"
        if came.after is not None:
            now = f"{output.describe_candidate(came.after.holder, came.after.info)} leads now (token {came.after.token})"
        click.echo(
            f"{who} leads {role} no more: {output.sanitize(why)} after {came.seconds:.1f} s; {now}"
        )
