"""The commands that show roles: leader, status, candidates, history, notes, watch."""

from __future__ import annotations

import functools
import sys
import time

import click

from coord.cli import exit_codes, options, output, streams
from coord.cli.options import open_coordinator
from coord.cli.output import format_duration, format_time, lease_as_dict, term_as_dict
from coord.core import validation
from coord.core.history import PastTerm
from coord.core.kept import encode_json
from coord.core.lease import Lease


@click.command(epilog=exit_codes.help_of({exit_codes.FAILED: "nobody leads"}))
@options.role
@options.as_json
@options.url
def leader(role: str, as_json: bool, url: str | None) -> None:
    """Print the leader of ROLE."""
    validation.role(role)
    with open_coordinator(url) as coordinator:
        lease = coordinator.leader(role)
        if lease is None:
            options.explain_parts(coordinator, role)
    if as_json:
        click.echo(output.to_json(None if lease is None else lease_as_dict(lease)))
    elif lease is None:
        click.echo(f"nobody leads {output.quote(role)}", err=True)
    else:
        summary = f"token {lease.token}  {lease.remaining:.1f} s left"
        name = output.candidate_name(lease.holder, lease.info)
        click.echo(f"{name}  {summary}  {output.format_info(lease.info, but=('name',))}")
    sys.exit(exit_codes.FAILED if lease is None else 0)


@click.command(epilog=exit_codes.help_of())
@click.option("--all", "every", is_flag=True, help="Include roles without a leader.")
@options.as_json
@options.url
def status(every: bool, as_json: bool, url: str | None) -> None:
    """Print all roles that have a leader.

    For each role: the leader, its token, when its term began, the time left, the number of waiting
    candidates, and how the last term ended.
    """
    show(every=every, as_json=as_json, url=url)


def show(*, every: bool, as_json: bool, url: str | None) -> None:
    """Print one table of all roles; `every` includes roles without a leader."""
    from coord.api.overview import load_overview
    from coord.cli import overview

    with open_coordinator(url) as coordinator:
        current = coordinator.portal.call(
            functools.partial(load_overview, coordinator.inner, every=every)
        )
        where = coordinator.url
    if as_json:
        click.echo(output.to_json(current.as_json()))
        return
    if current.note:
        click.echo(f"coord: {output.one_line(current.note)}", err=True)
    if not current.leases:
        click.echo(f"no role on {where} {'has had' if every else 'has'} a leader")
        return
    output.print_table(overview.COLUMNS, overview.rows(current))


CANDIDATE_COLUMNS = ("role", "candidate", "runs on", "priority", "waits for", "info")


@click.command(epilog=exit_codes.help_of())
@options.any_role
@options.as_json
@options.url
def candidates(role: str | None, as_json: bool, url: str | None) -> None:
    """Print the candidates that wait for ROLE or one of its slots, or for any role.

    The highest priority comes first, then the longest wait. The list may be up to one ttl old.
    """
    if role is not None:
        validation.role(role)
    with open_coordinator(url) as coordinator:
        waiting = coordinator.candidates(role)
        where = coordinator.url
    if as_json:
        click.echo(output.to_json([output.candidate_as_dict(candidate) for candidate in waiting]))
        return
    if not waiting:
        what = "any role" if role is None else output.quote(role)
        click.echo(f"no candidate waits for {what} on {where}")
        return
    now = time.time()
    rows = [
        (
            candidate.role,
            output.candidate_name(candidate.id, candidate.info),
            output.candidate_place(candidate.info),
            candidate.priority or "",
            format_duration(now - candidate.since),
            output.format_info(candidate.info, but=output.IDENTITY),
        )
        for candidate in sorted(waiting, key=lambda candidate: candidate.role)
    ]
    output.print_table(CANDIDATE_COLUMNS, rows)


NOTE_COLUMNS = ("note", "value")
HISTORY_COLUMNS = (
    "token",
    "leader",
    "runs on",
    "from",
    "until",
    "lasted",
    "ended",
    "requested by",
    "info",
)


@click.command(epilog=exit_codes.help_of())
@options.role
@options.as_json
@options.url
def history(role: str, as_json: bool, url: str | None) -> None:
    """Print the last terms of ROLE, newest first.

    For each term: the leader, when the term began and ended, why it ended, and who requested that.
    "expired" means that the leader stopped renewing. Its own log says why.
    """
    validation.role(role)
    with open_coordinator(url) as coordinator:
        terms = coordinator.history(role)
        lease = coordinator.leader(role)
        where = coordinator.url
        if not terms:
            options.explain_parts(coordinator, role)
    if as_json:
        click.echo(output.to_json([term_as_dict(term) for term in terms]))
        return
    if not terms:
        click.echo(f"{output.quote(role)} has no history on {where}")
        return
    output.print_table(HISTORY_COLUMNS, [_row(term, lease) for term in terms])


@click.command(epilog=exit_codes.help_of())
@options.role
@options.as_json
@options.url
def notes(role: str, as_json: bool, url: str | None) -> None:
    """Print the notes of ROLE: a few values that its leaders have written.

    They outlive the terms of the role. Programs write them with term.note(KEY, VALUE).
    """
    validation.role(role)
    with open_coordinator(url) as coordinator:
        notes_of_role = coordinator.notes(role)
        where = coordinator.url
        if not notes_of_role:
            options.explain_parts(coordinator, role)
    if as_json:
        click.echo(output.to_json(notes_of_role))
    elif not notes_of_role:
        click.echo(f"{output.quote(role)} has no notes on {where}")
    else:
        rows = [(key, encode_json(notes_of_role[key])) for key in sorted(notes_of_role)]
        output.print_table(NOTE_COLUMNS, rows)


def _row(term: PastTerm, lease: Lease | None) -> tuple[object, ...]:
    leads = term.until is None and lease is not None and lease.token == term.token
    ended = term.reason or ("leads" if leads else "ran out")
    lasted = (
        ""
        if term.until is None and not leads
        else format_duration((term.until or time.time()) - term.since)
    )
    return (
        term.token,
        output.candidate_name(term.holder, term.info),
        output.candidate_place(term.info),
        format_time(term.since),
        format_time(term.until),
        lasted,
        ended,
        term.by,
        output.format_info(term.info, but=output.IDENTITY),
    )


@click.command(epilog=exit_codes.help_of({exit_codes.FAILED: "the output cannot be written"}))
@options.any_role
@options.as_json
@options.url
def watch(role: str | None, as_json: bool, url: str | None) -> None:
    """Print the leader of ROLE, and then each change of leader as it happens.

    Without ROLE, coord watches all roles, including new ones. Ctrl-C ends it.
    """
    if role is not None:
        validation.role(role)
    with open_coordinator(url) as coordinator:
        coordinator.check()
        if role is None:
            for change in coordinator.watch_leaders():
                _print_change(change.role, change.leader, as_json, every=True)
                if streams.error():
                    break
        else:
            options.explain_parts(coordinator, role)
            for lease in coordinator.watch_leader(role):
                _print_change(role, lease, as_json, every=False)
                if streams.error():
                    break
    sys.exit(exit_codes.FAILED)


def _print_change(role: str, leader: Lease | None, as_json: bool, *, every: bool) -> None:
    if as_json:
        change = {
            "at": time.time(),
            "role": role,
            "leader": None if leader is None else lease_as_dict(leader),
        }
        click.echo(output.to_json(change))
        return
    clock = time.strftime("%H:%M:%S")
    if leader is None:
        click.echo(f"{clock}  nobody leads {output.quote(role)}")
        return
    about = f"{output.sanitize(role)}  " if every else ""
    name = output.candidate_name(leader.holder, leader.info)
    info = output.format_info(leader.info, but=("name",))
    click.echo(f"{clock}  {about}token {leader.token}  {name}  {info}")
