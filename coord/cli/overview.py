"""The table of all roles that `coord status` and `coord top` print."""

from __future__ import annotations

import time

from coord.api.overview import Overview
from coord.cli import output
from coord.cli.output import format_duration, format_time
from coord.core.lease import Lease

COLUMNS = ("role", "leader", "token", "since", "left", "waiting", "last loss", "info")
IMPORTANT = ("role", "leader", "left", "waiting", "token", "last loss", "since", "info")
"""COLUMNS, the most important first, for a narrow screen."""


def rows(overview: Overview, most: int | None = None) -> list[tuple[object, ...]]:
    """Return the cells of COLUMNS for at most `most` roles; None means all."""
    return [_row(overview, lease) for lease in overview.leases[:most]]


def _row(overview: Overview, lease: Lease) -> tuple[object, ...]:
    lost = overview.lost.get(lease.role)
    ended = ""
    if lost is not None and lost.until is not None:
        ended = f"{lost.reason} {format_duration(time.time() - lost.until)} ago" + (
            f" by {lost.by}" if lost.by else ""
        )
    waiting = "" if overview.waiting is None else overview.waiting[lease.role]
    if not lease.led:
        leader = output.describe_vacancy(lease)
        since = format_time(lease.since) if lease.withheld else ""
        return (lease.role, leader, lease.token, since, "", waiting, ended, "")
    return (
        lease.role,
        output.describe_candidate(lease.holder, lease.info),
        lease.token,
        format_time(lease.since),
        f"{lease.remaining:.1f} s of {lease.ttl:g}",
        waiting,
        ended,
        output.format_info(lease.info, but=output.IDENTITY),
    )
