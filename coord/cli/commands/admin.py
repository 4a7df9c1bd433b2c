"""`coord init` sets up a store. `coord doctor` checks one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import click

from coord.cli import exit_codes, options, output
from coord.core import validation
from coord.stores.protocol import Finding

SETUP_TIMEOUT = 60.0
"""Seconds for `coord init`: a cluster needs several to create a table with replicas."""
CHECK_TIMEOUT = 10.0
"""Seconds for `coord doctor`."""


@click.command(epilog=exit_codes.help_of())
@click.option(
    "--replicas",
    type=click.IntRange(min=1),
    metavar="N",
    help="Replicas for each new RethinkDB table. [default: 3]",
)
@click.option(
    "--guard/--no-guard",
    default=None,
    help="Install a write hook so that RethinkDB rejects deletes and decreasing tokens in the "
    "lease table, or remove it. [default: no change]",
)
@click.option(
    "--service-table",
    "service_tables",
    multiple=True,
    metavar="NAME",
    help="Create another table for service records, in addition to services. May be repeated.",
)
@click.option(
    "--token-floor",
    type=int,
    metavar="N",
    help="After you restored a backup: raise every fencing token below N to N.",
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    help="With --token-floor: a role that may be missing from the backup. May be repeated.",
)
@options.url
def init(
    replicas: int | None,
    guard: bool | None,
    service_tables: tuple[str, ...],
    token_floor: int | None,
    roles: tuple[str, ...],
    url: str | None,
) -> None:
    """Set up the store: tables in PostgreSQL or RethinkDB, a SQLite file, a namespace in Redis.

    You can run it again: it does not change what exists. After you restored a backup, use
    --token-floor so that coord does not issue a fencing token twice. Choose an N that is greater
    than every token issued so far.
    """
    if token_floor is not None:
        validation.token_floor(token_floor)
    elif roles:
        raise click.UsageError("--role needs --token-floor")
    for role in roles:
        validation.role(role)
    for table in service_tables:
        validation.table(table, "service_tables")
    from coord.api.sync_coordinator import Coordinator
    from coord.stores import urls

    full = options.resolve_url(url)
    admin = urls.open_admin(full)
    settings = {
        "replicas": replicas,
        "guard": guard,
        "service_tables": list(service_tables) or None,
    }
    for line in asyncio.run(admin.setup(settings, SETUP_TIMEOUT)):
        click.echo(line)
    coordinator = Coordinator(full)
    try:
        coordinator.check()
    finally:
        coordinator.close()
    if token_floor is not None:
        changed = asyncio.run(admin.raise_token_floor(token_floor, roles, SETUP_TIMEOUT))
        click.echo(f"no token is below {token_floor}: {changed} roles changed")
    click.echo(f"{coordinator.url} is ready")


@click.command(epilog=exit_codes.help_of({exit_codes.FAILED: "there is a problem to fix"}))
@options.as_json
@options.url
def doctor(as_json: bool, url: str | None) -> None:
    """Check the store and report how to fix problems."""
    from coord.stores import urls

    full = urls.resolve(url)
    admin = urls.open_admin(full)
    findings = [*asyncio.run(admin.check(CHECK_TIMEOUT))]
    if admin.exists():
        findings += _check_records(full)
    _print_findings(findings, as_json)
    sys.exit(exit_codes.FAILED if any(finding.level == "error" for finding in findings) else 0)


def _check_records(url: str) -> list[Finding]:
    """Find the service records that lookups ignore because they are malformed."""
    from coord.api.sync_coordinator import Coordinator
    from coord.errors import CoordError

    coordinator = Coordinator(url)
    try:
        malformed = coordinator.services.bad_records()
    except CoordError:
        return []  # The checks before have already reported why the store cannot be read.
    finally:
        coordinator.close()
    advice = "fix or delete the record; until then lookups and purges ignore it"
    return [
        Finding(
            "warn",
            f"service record {str(entry.record.get('id'))[:60]!r}",
            "; ".join(entry.problems),
            advice,
        )
        for entry in malformed
    ]


def _print_findings(findings: Sequence[Finding], as_json: bool) -> None:
    rows = [(finding.level, finding.what, finding.detail, finding.advice) for finding in findings]
    if as_json:
        click.echo(
            output.to_json(
                [dict(zip(("level", "what", "detail", "advice"), row, strict=True)) for row in rows]
            )
        )
        return
    output.print_table(("", "what", "found", "what to do"), rows, output.MAX_MESSAGE_LENGTH)
