"""`coord step-down` and `coord transfer`: they ask the leader, and wait for the result.

The leader itself gives up the role. Nothing here writes a lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from coord.cli import exit_codes, options, output
from coord.cli.options import open_coordinator
from coord.cli.output import lease_as_dict
from coord.core import validation
from coord.core.history import PastTerm
from coord.core.lease import Lease, LossReason
from coord.errors import NotLeader, command
from coord.runtime.timers import within

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from coord.api.coordinator import AsyncCoordinator
    from coord.api.sync_coordinator import Coordinator

SUCCESSOR_TIMEOUT = 2.0
"""Seconds to wait for the next leader after the old one stepped down. If no candidate waits, there
is none."""


@dataclass(frozen=True)
class Outcome:
    """The result of a request to step down.

    Attributes:
        seconds: Seconds until the term ended; None if it has not ended.
        ended: The term that ended; None if its role has no history of it.
        after: The lease of the next leader; None if nobody leads.
    """

    seconds: float | None
    ended: PastTerm | None = None
    after: Lease | None = None


async def outcome(source: AsyncCoordinator, lease: Lease, timeout: float) -> Outcome:
    """Wait up to `timeout` seconds for the term of `lease` to end."""
    started = asyncio.get_running_loop().time()
    changes = cast("AsyncGenerator[Lease | None, Any]", source.watch_leader(lease.role))
    async with contextlib.aclosing(changes):
        now = await _until(changes, lambda now: now is None or now.token != lease.token, timeout)
        if now is _NOT_YET:
            return Outcome(None)
        seconds = asyncio.get_running_loop().time() - started
        if now is None:
            now = await _until(changes, lambda now: now is not None, SUCCESSOR_TIMEOUT)
    after = now if isinstance(now, Lease) else None
    ended = next(
        (term for term in await source.history(lease.role) if term.token == lease.token), None
    )
    return Outcome(seconds, ended, after)


class _NotYet:
    """The type of `_NOT_YET`: no such change arrived in time."""


_NOT_YET = _NotYet()


async def _until(
    changes: AsyncGenerator[Lease | None, Any],
    condition: Callable[[Lease | None], bool],
    timeout: float,
) -> Lease | _NotYet | None:
    async def first() -> Lease | _NotYet | None:
        async for now in changes:
            if condition(now):
                return now
        return _NOT_YET

    try:
        return await within(first(), timeout)
    except asyncio.TimeoutError:
        return _NOT_YET


Command = TypeVar("Command", bound=Callable[..., Any])
STEP_DOWN_STATUSES = {
    exit_codes.FAILED: "nothing was changed: nobody leads, another leader was elected, or you said "
    "no",
    exit_codes.TIMED_OUT: "the leader did not step down before --timeout",
}
TRANSFER_STATUSES = {
    exit_codes.FAILED: STEP_DOWN_STATUSES[exit_codes.FAILED]
    + "; or another candidate got the role",
    exit_codes.TIMED_OUT: STEP_DOWN_STATUSES[exit_codes.TIMED_OUT],
}


def _request_options(command: Command) -> Command:
    for option in (
        options.url,
        options.as_json,
        click.option(
            "--timeout",
            type=float,
            default=60.0,
            show_default=True,
            help="Maximum time in seconds to wait for the handover.",
        ),
        click.option("--no-wait", is_flag=True, help="Do not wait for the handover."),
        options.by,
        options.yes,
    ):
        command = option(command)
    return command


def _candidates(ctx: click.Context, _param: click.Parameter, started: str) -> list[CompletionItem]:
    from coord.cli.commands import completion

    return completion.candidates(ctx, started)


@click.command(epilog=exit_codes.help_of(STEP_DOWN_STATUSES))
@options.role
@click.option(
    "--cooldown",
    type=float,
    metavar="SECONDS",
    help="Time in seconds that the leader waits before it becomes a candidate again. "
    "[default: its ttl]",
)
@_request_options
def step_down(role: str, cooldown: float | None, **settings: Any) -> None:
    """Ask the leader of ROLE to end its work and step down, and wait until it has.

    The next candidate that waits gets the role. Asks for confirmation.
    """
    if cooldown is not None:
        validation.number(cooldown, "cooldown", low=0)

    def request(coordinator: Coordinator, by: str, token: int, _successor: str | None) -> Lease:
        return coordinator.request_step_down(role, by=by, cooldown=cooldown, token=token)

    _request(role, "step down from", request, **settings)


@click.command(epilog=exit_codes.help_of(TRANSFER_STATUSES))
@options.role
@click.option(
    "--to",
    required=True,
    metavar="CANDIDATE",
    shell_complete=_candidates,
    help="The candidate that gets the role: its id (see coord candidates), the beginning of its "
    "id, or the name in its info.",
)
@click.option(
    "--hold",
    type=float,
    metavar="SECONDS",
    help="Time for which the role is reserved for CANDIDATE. If it does not claim the role, any "
    "candidate can. [default: a third of the ttl, at most 1]",
)
@_request_options
def transfer(role: str, to: str, hold: float | None, **settings: Any) -> None:
    """Ask the leader of ROLE to end its work and hand the role to CANDIDATE, and wait until it has.

    Asks for confirmation.
    """
    validation.candidate_name(to)
    validation.hold(hold)

    def request(coordinator: Coordinator, by: str, token: int, successor: str | None) -> Lease:
        return coordinator.request_transfer(role, successor or to, by=by, hold=hold, token=token)

    _request(role, f"hand {output.quote(to)} the role", request, to, **settings)


def _request(
    role: str,
    what: str,
    request: Callable[[Coordinator, str, int, str | None], Lease],
    to: str | None = None,
    *,
    yes: bool,
    by: str,
    no_wait: bool,
    timeout: float,
    as_json: bool,
    url: str | None,
) -> None:
    from coord.stores.requests import announcements_of

    validation.number(timeout, "timeout", low=0)
    with open_coordinator(url) as coordinator:
        announcements_of(coordinator.store)
        try:
            lease = options.row_to_change(coordinator, role, to_transfer=to is not None)
            if not lease.led:
                click.echo(f"coord: nobody leads {output.quote(role)}", err=True)
                sys.exit(exit_codes.FAILED)
            successor = _successor_id(coordinator, role, to)
            leader = output.describe_candidate(lease.holder, lease.info)
            options.confirm(
                f"Ask {leader} (token {lease.token}) to {what} {output.quote(role)}?", yes=yes
            )
            # Only the term that was confirmed: another leader may have been elected meanwhile.
            with options.interruption_notice(_outcome_hint(role)):
                lease = request(coordinator, by, lease.token, successor)
        except NotLeader as err:
            click.echo(f"coord: {err}", err=True)
            sys.exit(exit_codes.FAILED)
        if no_wait:
            _print_outcome(lease, None, as_json)
            return
        with options.interruption_notice(_outcome_hint(role)):
            result = coordinator.portal.call(
                functools.partial(outcome, coordinator.inner, lease, timeout)
            )
    _print_outcome(lease, result, as_json)
    if result.seconds is None:
        sys.exit(exit_codes.TIMED_OUT)
    if successor is not None and (result.after is None or result.after.holder != successor):
        sys.exit(exit_codes.FAILED)


def _outcome_hint(role: str) -> str:
    return (
        f"the leader of {output.quote(role)} may still hand it over; "
        f"`{command('history', role)}` shows that"
    )


def _successor_id(coordinator: Coordinator, role: str, to: str | None) -> str | None:
    """Return the id of the candidate that `to` names; None if `to` is None.

    Raises:
        BadArgument: `to` names no candidate, or several.
    """
    if to is None:
        return None
    from coord.election.operators import find_successor

    look = functools.partial(find_successor, coordinator.session, role, to)
    return coordinator.portal.call(look).id


def _print_outcome(lease: Lease, result: Outcome | None, as_json: bool) -> None:
    if as_json:
        ended = result.ended if result is not None else None
        click.echo(
            output.to_json(
                {
                    "term": lease_as_dict(lease),
                    "seconds": None
                    if result is None or result.seconds is None
                    else round(result.seconds, 3),
                    "reason": ended.reason if ended else "",
                    "by": ended.by if ended else "",
                    "leader": None
                    if result is None or result.after is None
                    else lease_as_dict(result.after),
                }
            )
        )
        return
    candidate, role = output.describe_candidate(lease.holder, lease.info), output.quote(lease.role)
    if result is None:
        click.echo(f"{role}: the request to {candidate} is stored")
    elif result.seconds is None:
        click.echo(f"{role}: {candidate} is still the leader (token {lease.token})", err=True)
    else:
        reason = result.ended.reason if result.ended is not None else ""
        what = "stepped down" if reason == LossReason.STEPPED_DOWN.value else "lost the role"
        if what == "lost the role":
            what += f" ({output.sanitize(reason) or 'its lease expired'})"
        leader = "nobody is the leader now"
        if result.after is not None:
            successor = output.describe_candidate(result.after.holder, result.after.info)
            leader = f"{successor} is the leader now (token {result.after.token})"
        click.echo(f"{role}: {candidate} {what}; {leader}")
