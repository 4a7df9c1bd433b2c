"""All roles of a store at one moment: what `coord status`, `coord top` and the web page show."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from coord.api.display import lease_as_dict, term_as_dict
from coord.core.announcements import Candidate
from coord.core.history import PastTerm
from coord.core.lease import Lease
from coord.core.sharing import is_agreement
from coord.errors import BadArgument, NotSetUp

if TYPE_CHECKING:
    from coord.api.coordinator import AsyncCoordinator


@dataclass(frozen=True)
class Overview:
    """The roles of a store.

    Attributes:
        leases: The leases, sorted by role.
        candidates: The candidates that wait, by priority and waiting time; None if the store cannot
            list them.
        terms: The last terms of each role, the newest of a role first.
        note: Why `candidates` is None, for people.
    """

    leases: Sequence[Lease]
    candidates: Sequence[Candidate] | None
    terms: Sequence[PastTerm] = ()
    note: str = ""

    @cached_property
    def waiting(self) -> Counter[str] | None:
        """How many candidates wait for each role; None if that is not known."""
        if self.candidates is None:
            return None
        return Counter(candidate.role for candidate in self.candidates)

    @cached_property
    def lost(self) -> dict[str, PastTerm]:
        """The last term of each role that has ended."""
        newest: dict[str, PastTerm] = {}
        for term in self.terms:
            if term.until is not None:
                newest.setdefault(term.role, term)
        return newest

    def as_json(self) -> list[dict[str, Any]]:
        """Return the roles as values that JSON can hold."""
        return [
            {
                **lease_as_dict(lease),
                "led": lease.led,
                "paused": lease.paused,
                "revoked": lease.revoked,
                "waiting": None if self.waiting is None else self.waiting[lease.role],
                "last_loss": None
                if (lost := self.lost.get(lease.role)) is None
                else term_as_dict(lost),
            }
            for lease in self.leases
        ]


async def load_overview(
    source: AsyncCoordinator,
    *,
    every: bool,
    role: str | None = None,
    terms: Sequence[PastTerm] | None = None,
) -> Overview:
    """Load roles with three concurrent queries: leases, candidates and histories.

    Args:
        source: The coordinator to ask.
        every: Whether to include roles without a leader. Roles that an operator has paused are
            included in any case, and rows in which a group agrees on its shards or slots never.
        role: The only role to load; None means all roles.
        terms: The terms of an earlier call, to save that query, which returns most of the data;
            None means load them.

    Raises:
        StoreUnavailable: The store did not answer within the timeout of the coordinator.
        StoreRefused: The store will go on refusing.
    """
    rows, (candidates, note), past = await asyncio.gather(
        source.session.read(None if role is None else [role]),
        _candidates(source, role),
        source.history(role) if terms is None else _known(terms),
    )
    agreements = {row.role for row in rows if is_agreement(row)}
    shown = (row for row in rows if row.role not in agreements)
    leases = {row.role: row for row in shown if every or row.led or row.withheld}
    if every and candidates is not None:
        waiting = {candidate.role for candidate in candidates} - agreements
        leases |= {role: Lease(role) for role in waiting if role not in leases}
    return Overview(sorted(leases.values(), key=lambda row: row.role), candidates, past, note)


async def _candidates(
    source: AsyncCoordinator, role: str | None
) -> tuple[list[Candidate] | None, str]:
    try:
        return await source.candidates(role), ""
    except (NotSetUp, BadArgument) as err:
        return None, f"cannot list the waiting candidates: {err}"


async def _known(terms: Sequence[PastTerm]) -> Sequence[PastTerm]:
    return terms
