"""Loads what `coord status` and `coord top` show about all roles."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from coord.cli import output
from coord.cli.output import format_duration, format_time, lease_as_dict, term_as_dict
from coord.core.announcements import Candidate
from coord.core.history import PastTerm
from coord.core.lease import Lease
from coord.errors import BadArgument, NotSetUp

if TYPE_CHECKING:
    from coord.api.coordinator import AsyncCoordinator

COLUMNS = ("role", "leader", "token", "since", "left", "waiting", "last loss", "info")
IMPORTANT = ("role", "leader", "left", "waiting", "token", "last loss", "since", "info")
"""COLUMNS, the most important first, for a narrow screen."""
NOBODY = "nobody"


@dataclass(frozen=True)
class Overview:
    """The roles of a store.

    Attributes:
        leases: The leases, sorted by role.
        waiting: How many candidates wait for each role; None if that is not known.
        lost: The last term of each role that has ended.
        note: Why `waiting` is None, for people.
    """

    leases: Sequence[Lease]
    waiting: Counter[str] | None
    lost: dict[str, PastTerm] = field(default_factory=dict)
    note: str = ""

    def rows(self, most: int | None = None) -> list[tuple[object, ...]]:
        """Return the cells of COLUMNS for at most `most` roles; None means all."""
        return [self._row(lease) for lease in self.leases[:most]]

    def as_json(self) -> list[dict[str, Any]]:
        """Return the roles as values that JSON can hold."""
        return [
            {
                **lease_as_dict(lease),
                "led": lease.led,
                "waiting": None if self.waiting is None else self.waiting[lease.role],
                "last_loss": None
                if (lost := self.lost.get(lease.role)) is None
                else term_as_dict(lost),
            }
            for lease in self.leases
        ]

    def _row(self, lease: Lease) -> tuple[object, ...]:
        lost = self.lost.get(lease.role)
        ended = ""
        if lost is not None and lost.until is not None:
            ended = f"{lost.reason} {format_duration(time.time() - lost.until)} ago" + (
                f" by {lost.by}" if lost.by else ""
            )
        waiting = "" if self.waiting is None else self.waiting[lease.role]
        if not lease.led:
            return (lease.role, NOBODY, lease.token, "", "", waiting, ended, "")
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


async def load_overview(
    source: AsyncCoordinator, *, every: bool, lost: dict[str, PastTerm] | None = None
) -> Overview:
    """Load all roles with three concurrent queries: leases, candidates and histories.

    Args:
        source: The coordinator to ask.
        every: Whether to include roles without a leader.
        lost: The histories of an earlier call, to save that query; None means load them.
    """
    rows, (waiting, note), ended = await asyncio.gather(
        source.session.read(None),
        _waiting(source),
        _losses(source) if lost is None else _known(lost),
    )
    found = {row.role: row for row in rows if every or row.led}
    if every and waiting is not None:
        found |= {role: Lease(role) for role in waiting if role not in found}
    return Overview(sorted(found.values(), key=lambda row: row.role), waiting, ended, note)


async def _waiting(source: AsyncCoordinator) -> tuple[Counter[str] | None, str]:
    try:
        candidates: list[Candidate] = await source.candidates()
    except (NotSetUp, BadArgument) as err:
        return None, f"cannot list the waiting candidates: {err}"
    return Counter(candidate.role for candidate in candidates), ""


async def _losses(source: AsyncCoordinator) -> dict[str, PastTerm]:
    found: dict[str, PastTerm] = {}
    for term in await source.history():  # newest first
        if term.until is not None:
            found.setdefault(term.role, term)
    return found


async def _known(lost: dict[str, PastTerm]) -> dict[str, PastTerm]:
    return lost
