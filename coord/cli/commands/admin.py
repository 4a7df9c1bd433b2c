"""`coord init` makes a store ready, `coord doctor` checks one."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

import click

from coord.cli import exit_codes, options, output
from coord.core import validation
from coord.stores.protocol import Finding


@click.command(epilog=exit_codes.help_of())
@click.option(
    "--replicas",
    type=click.IntRange(min=1),
    metavar="N",
    help="RethinkDB: of each new table. [default: 3]",
)
@click.option(
    "--guard/--no-guard",
    default=None,
    help="RethinkDB: have the server refuse deletes and falling tokens in the table of leases. [default: as it is]",
)
@click.option(
    "--token-floor",
    type=int,
    metavar="N",
    help="After a restore: lift every fencing token below N to N.",
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    help="With --token-floor: a role that the backup may lack. Repeatable.",
)
@options.url
def init(
    replicas: int | None,
    guard: bool | None,
    token_floor: int | None,
    roles: tuple[str, ...],
    url: str | None,
) -> None:
    """Make the store ready: the tables of a RethinkDB database, or a SQLite file with its schema.

    May be run again: what is there already is left as it is. After restoring a backup,
    --token-floor makes sure that no fencing token is handed out a second time; N is any number
    above all that were."""
    if token_floor is not None:
        validation.token_floor(token_floor)
    elif roles:
        raise click.UsageError("--role goes with --token-floor")
    for role in roles:
        validation.role(role)
    from coord.api.coordinator import Coordinator
    from coord.stores import urls

    full = urls.resolve(url)
    if full.startswith("rethinkdb:"):
        from coord.stores.rethinkdb.setup import set_up

        report = asyncio.run(set_up(full, replicas=replicas, guard=guard))
        for line in (*report.done, *report.notes):
            click.echo(line)
    elif replicas is not None:
        raise click.UsageError("--replicas is for RethinkDB")
    elif guard is not None:
        _guard_elsewhere(full, guard)
    coordinator = Coordinator(full)
    try:
        coordinator.check()
    finally:
        coordinator.close()
    if token_floor is not None:
        lifted, made = asyncio.run(_raise_tokens(full, token_floor, roles))
        click.echo(f"no token is below {token_floor}: {lifted} lifted, {made} roles made")
    click.echo(f"{coordinator.url} is ready")


def _guard_elsewhere(url: str, guard: bool) -> None:
    """What SQLite's triggers do without being asked."""
    if not url.startswith("sqlite:"):
        raise click.UsageError("--guard is for RethinkDB")
    if not guard:
        raise click.UsageError("the guard of a SQLite file is always on")
    click.echo("the guard of a SQLite file is always on: it refuses deletes and falling tokens")


async def _raise_tokens(url: str, token_floor: int, roles: Sequence[str]) -> tuple[int, int]:
    if url.startswith("rethinkdb:"):
        from coord.stores.rethinkdb.setup import raise_token_floor

        return await raise_token_floor(url, token_floor, roles)
    from coord.stores import urls
    from coord.stores.sqlite import SQLiteStore, admin

    store = urls.open_url(url)
    if not isinstance(store, SQLiteStore):
        raise click.UsageError(
            "--token-floor is for a store that can be restored: SQLite or RethinkDB"
        )
    try:
        return await admin.raise_token_floor(store, token_floor, roles)
    finally:
        await store.close()


@click.command(epilog=exit_codes.help_of({exit_codes.FAILED: "something must be mended"}))
@options.as_json
@options.url
def doctor(as_json: bool, url: str | None) -> None:
    """Check the store, and say what to mend."""
    from coord.stores import urls

    full = urls.resolve(url)
    findings = [*asyncio.run(_findings(full)), *_records(full)]
    _show(findings, as_json)
    sys.exit(exit_codes.FAILED if any(finding.level == "error" for finding in findings) else 0)


async def _findings(url: str) -> Sequence[Finding]:
    if url.startswith("rethinkdb:"):
        from coord.stores.rethinkdb.doctor import check

        return await check(url)
    from coord.stores import urls

    path = getattr(urls.open_url(url), "path", None)
    if path is None:
        return [Finding("ok", "memory", "this store lives and dies with its process")]
    from coord.stores.sqlite import admin

    return list(admin.check(path))


def _records(url: str) -> list[Finding]:
    """Service records that no lookup uses, since somebody wrote them wrongly."""
    from coord.api.coordinator import Coordinator
    from coord.errors import CoordError

    coordinator = Coordinator(url)
    path = getattr(coordinator.store, "path", None)
    if path is not None and not os.path.exists(path):
        return []  # looking would make the file
    try:
        bad = coordinator.services.bad_records()
    except CoordError:
        return []  # what keeps us from looking has been found above
    finally:
        coordinator.close()
    advice = "mend or delete it; until then lookups and purges leave it out"
    return [
        Finding(
            "warn",
            f"service record {str(one.record.get('id'))[:60]!r}",
            "; ".join(one.problems),
            advice,
        )
        for one in bad
    ]


def _show(findings: Sequence[Finding], as_json: bool) -> None:
    rows = [(one.level, one.what, one.detail, one.advice) for one in findings]
    if as_json:
        click.echo(
            output.to_json(
                [dict(zip(("level", "what", "detail", "advice"), row, strict=True)) for row in rows]
            )
        )
        return

    output.print_table(("", "what", "found", "what to do"), rows, output.LONGEST)
