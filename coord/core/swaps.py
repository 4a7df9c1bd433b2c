"""What a claim, a renewal and a release do to a row.

The stores that compute swaps in Python use these functions. The other stores do the same in the
language of their server, such as `stores/rethinkdb/queries/swaps.py` in ReQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from coord.core.lease import Lease, shared_info
from coord.core.operations import Claim, Override, Release, Renew, Retire


def claim(row: Lease, operation: Claim, wall: float) -> Lease | None:
    """Return the row after a claim; None if the claim is refused.

    Args:
        row: The row; its `remaining` is valid now, by the store's clock.
        operation: The claim.
        wall: The wall time, in seconds since 1970.
    """
    if operation.expected is not None and row.revision != operation.expected:
        return None
    if row.paused:
        return None
    # As in the other swaps, only with a higher beat: a first claim that arrives late, or twice,
    # must not change what its candidate holds by now. A feed may have shown the write long before,
    # and a challenger may have begun to count then.
    own = row.holder == operation.holder and operation.beat > row.beat
    expired = operation.skew is not None and row.remaining < -operation.skew
    if not (row.vacant or own or operation.takeover or expired):
        return None
    return Lease(
        role=operation.role,
        holder=operation.holder,
        token=max(row.token, operation.floor) + 1,
        beat=operation.beat,
        ttl=operation.ttl,
        renewed_at=wall,
        remaining=operation.ttl,
        since=wall,
        info=operation.info,
    )


def renew(row: Lease, operation: Renew, wall: float) -> Lease | None:
    """Return the row after a renewal; None if the renewal is refused.

    Within a term neither `remaining` nor `ttl` decreases: the holder may still rely on an earlier
    answer, and a challenger waits for the ttl of the row. The arguments are those of `claim`.
    """
    if not _of_holder(row, operation):
        return None
    ttl = max(row.ttl, operation.ttl)
    remaining = max(row.remaining, operation.ttl)
    info = shared_info(row) if operation.info is None else operation.info
    renewed_at = max(row.renewed_at, wall)
    return Lease(
        row.role, row.holder, row.token, operation.beat, ttl, renewed_at, remaining, info, row.since
    )


def unchanged_but_renewed(renewals: Sequence[Renew], wall: float) -> list[Lease]:
    """Return the rows after renewals of rows that were as their holders had left them.

    The leases have no `info` and no `since`, because the rows were not read.
    """
    info: dict[str, Any] = {}  # the same object for all leases: nobody changes it
    return [
        Lease(
            renewal.role,
            renewal.holder,
            renewal.token,
            renewal.beat,
            renewal.ttl,
            wall,
            renewal.ttl,
            info,
        )
        for renewal in renewals
    ]


def release(row: Lease, operation: Release, wall: float) -> Lease | None:
    """Return the row after a release; None if the release is refused.

    The row keeps its token. With `linger` it keeps its holder for so many seconds, or names the
    candidate for which the role is reserved. The arguments are those of `claim`.
    """
    if not _of_holder(row, operation):
        return None
    linger = operation.linger
    if operation.to is not None and linger > 0:
        # No request has beat 0, so this is a new revision, and each request of `to` has a higher
        # beat. `to` is `PAUSED` if an operator pauses the role and its leader steps down.
        reserved = replace(row, holder=operation.to, beat=0, ttl=linger, remaining=linger)
        return replace(reserved, renewed_at=wall, since=0.0, info={})
    if linger > 0:
        return replace(row, beat=operation.beat, ttl=linger, remaining=linger, renewed_at=wall)
    return replace(row, holder=None, beat=operation.beat, remaining=0.0, renewed_at=wall, since=0.0)


def override(row: Lease, operation: Override, wall: float) -> Lease | None:
    """Return the row after an override; None if it is refused. The arguments are those of `claim`.

    A row that has a holder keeps its ttl and `remaining`: its former leader may believe that it
    leads for as long as its last renewal allows, and a challenger must wait for the ttl.
    """
    if row.revision != operation.expected:
        return None
    return Lease(
        role=operation.role,
        holder=operation.holder,
        token=row.token,
        beat=operation.beat,
        ttl=operation.ttl if row.vacant else row.ttl,
        renewed_at=wall,
        remaining=operation.ttl if row.vacant else row.remaining,
        since=wall,
        info=operation.info,
    )


def retire(row: Lease, operation: Retire, text: str) -> bool:
    """Return whether a row may be deleted.

    Args:
        row: The row.
        operation: The request to delete it.
        text: The text that the role keeps.
    """
    unused = row.vacant and row.renewed_at < operation.before
    return unused and not text and row.revision == operation.expected


def born(after: Lease, operation: Claim | Override, floor: int) -> Lease:
    """Return the first row of a role that had none.

    Args:
        after: The row after `operation`, as the other functions here return it.
        operation: The claim or the override.
        floor: The highest floor of a prefix of the role.
    """
    lowest = floor + 1 if isinstance(operation, Claim) else floor
    return after if after.token >= lowest else replace(after, token=lowest)


def _of_holder(row: Lease, operation: Renew | Release) -> bool:
    """Return whether a request is one of the present holder, and newer than the row."""
    same_term = row.holder == operation.holder and row.token == operation.token
    return same_term and operation.beat > row.beat
