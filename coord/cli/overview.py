"""All roles at a glance: who leads, since when, how many wait, how the last term ended. For
`status` and `top`."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from coord.api.coordinator import AsyncCoordinator
from coord.cli import output
from coord.cli.output import format_duration, format_time, lease_as_dict, term_as_dict
from coord.core.announcements import Candidate
from coord.core.history import PastTerm
from coord.core.lease import Lease
from coord.errors import BadArgument, NotSetUp

COLUMNS = ("role", "leader", "token", "since", "left", "waiting", "last loss", "info")
NOBODY = "nobody"


@dataclass(frozen=True)
class Overview:
    """What was seen. `waiting` is None, and `note` says why, where the store has no board."""

    leases: Sequence[Lease]
    waiting: Counter[str] | None
    lost: dict[str, PastTerm] = field(default_factory=dict)
    note: str = ""

    def rows(self, most: int | None = None) -> list[tuple[object, ...]]:
        """The cells of COLUMNS, at most so many rows."""
        return [self._row(lease) for lease in self.leases[:most]]

    def as_json(self) -> list[dict[str, Any]]:
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
            output.format_info(lease.info, but=("host", "pid")),
        )


async def load_overview(
    source: AsyncCoordinator, *, every: bool, lost: dict[str, PastTerm] | None = None
) -> Overview:
    """Three queries at once: leases, board, histories (unless `lost` has them). `every` for vacant
    roles, too."""
    rows, board, ended = await asyncio.gather(
        source.session.read(None),
        _waiting(source),
        _losses(source) if lost is None else _known(lost),
    )
    waiting, note = board
    found = {row.role: row for row in rows if every or row.led}
    if every and waiting is not None:
        found |= {role: Lease(role) for role in waiting if role not in found}
    return Overview(sorted(found.values(), key=lambda row: row.role), waiting, ended, note)


async def _waiting(source: AsyncCoordinator) -> tuple[Counter[str] | None, str]:
    try:
        candidates: list[Candidate] = await source.candidates()
    except (NotSetUp, BadArgument) as err:
        return None, f"who waits is not known: {err}"
    return Counter(one.role for one in candidates), ""


async def _losses(source: AsyncCoordinator) -> dict[str, PastTerm]:
    found: dict[str, PastTerm] = {}
    for term in await source.history():  # newest first
        if term.until is not None:
            found.setdefault(term.role, term)
    return found


async def _known(lost: dict[str, PastTerm]) -> dict[str, PastTerm]:
    return lost
