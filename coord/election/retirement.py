"""Retires roles that nobody needs any longer: it deletes their rows (rule 12)."""

from __future__ import annotations

import time
from collections.abc import Sequence

from coord.core.lease import Lease
from coord.core.operations import Retire
from coord.core.sharing import is_agreement
from coord.election.session import Session
from coord.errors import StoreRefused
from coord.stores.protocol import HasAnnouncements, Retirable
from coord.stores.requests import retirable

AGREEMENT_AGE = 86_400.0
"""Seconds, at least, since the last write of an agreement that is retired. Each start of a member
writes an agreement again that is older than half of this (`coord.recipes.agreement`), so nobody can
have just begun with one that is retired, unless two clocks differ by half a day."""
PER_REQUEST = 200
"""Roles in one request. While a store deletes them, renewals wait."""


async def unused_roles(session: Session, prefix: str, unused: float) -> list[Lease]:
    """Return the leases that `retire` would delete, sorted by role.

    Args:
        session: The session to use.
        prefix: What the names of the roles begin with.
        unused: Seconds for which nobody has led the role, at least.

    Raises:
        StoreUnavailable: The store did not answer within the timeout of the session.
        StoreRefused: The store will go on refusing.
    """
    before = time.time() - unused
    rows = await session.read(None)
    vacant = (row for row in rows if row.vacant and row.role.startswith(prefix))
    unused_rows = (row for row in vacant if row.renewed_at < before)
    return sorted((row for row in unused_rows if not is_agreement(row)), key=lambda row: row.role)


async def retire(session: Session, prefix: str, unused: float) -> list[str]:
    """Delete the rows of the roles that begin with `prefix` and that nobody has used for long.

    A row that somebody changes meanwhile stays. The row in which a group agrees on its shards or
    slots is deleted silently, when the group has no other row left.

    Args:
        session: The session to use.
        prefix: What the names of the roles begin with; "" for all roles.
        unused: Seconds for which nobody has led the role, at least.

    Returns:
        The roles whose rows were deleted, sorted.

    Raises:
        BadArgument: The store cannot do that.
        StoreUnavailable: The store did not answer in time. Rows may have been deleted.
        StoreRefused: The store will go on refusing.
    """
    store = retirable(session.store)
    leases = await unused_roles(session, prefix, unused)
    deleted = await _retire(session, store, leases, prefix, time.time() - unused)
    rows, before = await session.read(None), time.time() - max(unused, AGREEMENT_AGE)
    agreements = [row for row in rows if is_agreement(row) and row.role.startswith(prefix)]
    unneeded = [
        row
        for row in agreements
        if row.vacant
        and row.renewed_at < before
        and not any(other.role.startswith(row.role) for other in rows if other is not row)
    ]
    present = await _announced(session, [row.role for row in unneeded])
    unneeded = [row for row in unneeded if row.role not in present]
    await _retire(session, store, unneeded, prefix, before)
    return deleted


async def _announced(session: Session, groups: Sequence[str]) -> set[str]:
    """Return the groups that have members, which may all rest and then hold nothing."""
    if not groups or not isinstance(session.store, HasAnnouncements):
        return set()
    store = session.announcements
    try:
        posted = await session.retry(lambda timeout: store.read(groups, timeout))
    except StoreRefused:  # there is no table for announcements, and so no member
        return set()
    return {announcement.role for announcement in posted if announcement.remaining > 0}


async def _retire(
    session: Session, store: Retirable, leases: Sequence[Lease], prefix: str, before: float
) -> list[str]:
    deleted: list[str] = []
    for start in range(0, len(leases), PER_REQUEST):
        part = leases[start : start + PER_REQUEST]
        requests = [Retire(lease.role, prefix, lease.revision, before) for lease in part]
        results = await store.retire(requests, session.timeout)
        deleted += [lease.role for lease, done in zip(part, results, strict=True) if done]
    return deleted
