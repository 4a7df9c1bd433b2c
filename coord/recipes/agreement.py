"""What all users of a composition must agree on, such as the number of shards.

It is kept in the info of a row that nobody leads: the first user claims the row with the info and
releases it at once. A released row keeps its info.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from coord.core.lease import Lease
from coord.core.operations import Claim, Failure, Release
from coord.core.timing import Timing
from coord.election.candidate_options import new_candidate_id
from coord.election.retirement import AGREEMENT_AGE
from coord.election.session import Session
from coord.errors import NotSetUp, StoreUnavailable


async def agree(
    session: Session, role: str, value: Mapping[str, Any], *, refresh: bool = True
) -> Mapping[str, Any]:
    """Return what the users of `role` have agreed on: `value`, if this is the first of them.

    Args:
        session: The session.
        role: The row that keeps it.
        value: What this user says.
        refresh: Whether an old row is written again. A user does that at its start only: if its
            clock is half a day off, each row is an old one.

    Raises:
        StoreUnavailable: The store did not answer within the timeout of the session.
        StoreRefused: The store will go on refusing.
    """
    while True:
        row = await _row(session, role)
        agreed = any(key in row.info for key in value)
        old = row.vacant and abs(time.time() - row.renewed_at) > AGREEMENT_AGE / 2
        if agreed and not (refresh and old):
            return row.info
        # An old one is written again, so that from now on nobody retires it as unused.
        written = await _write(session, row, row.info if agreed else value)
        if written or not row.vacant:
            return written
        # It was retired between the read and the write, so nobody has agreed on anything.


async def change(session: Session, role: str, value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write `value`, whatever the users of `role` had agreed on, and return what they had.

    Raises: As `agree`.
    """
    row = await _row(session, role)
    while (written := await _write(session, row, value)) != value:
        row = await _row(session, role)  # somebody else has changed it meanwhile
        if written == row.info and not row.vacant:
            raise StoreUnavailable(f"cannot change {role!r}: another process is changing it")
    return row.info


async def _write(session: Session, row: Lease, value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write `value` unless the row has changed; return what it says then."""
    me, ttl = new_candidate_id(), Timing.of(session.timeout).ttl
    beat = 0

    async def claim(timeout: float) -> Lease:
        nonlocal beat
        beat += 1
        # It expects the row that was read, also if there was none: a row that somebody else has
        # written meanwhile is the agreement.
        # Nobody leads it, so no lease is waited for: one that was not released, because its
        # process died or the answer was lost, would otherwise prevent each later change.
        claim = Claim(
            row.role, me, beat, ttl, row.revision, takeover=not row.vacant, info=dict(value)
        )
        result = await session.submit(claim, timeout)
        if isinstance(result, Failure):
            raise result.error()
        return result.lease

    lease = await session.retry(claim)
    if lease.holder == me:
        # If this is not answered, the lease expires. Its info stays.
        await session.submit(
            Release(row.role, me, lease.token, beat + 1), Timing.of(ttl).attempt_timeout
        )
    return lease.info


async def _row(session: Session, role: str) -> Lease:
    try:
        rows = await session.read([role])
    except NotSetUp:  # a SQLite file that the first claim creates; other stores refuse that, too
        rows = []
    return rows[0] if rows else Lease(role)
