"""What a swap does to a row, for the stores that compute it in Python. `stores/rethinkdb/` says the
same in ReQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from coord.core.lease import Lease
from coord.core.operations import Claim, Release, Renew


def claim(row: Lease, asked: Claim, wall: float) -> Lease | None:
    """The row after the claim, or None when it does not apply. `row.remaining` is by the store's
    clock, now."""
    if asked.expected is not None and row.revision != asked.expected:
        return None
    # As in the other swaps, only with a new beat: a first claim that comes late, or twice, must
    # leave alone what its candidate holds by now. A feed may have shown its write long before, and
    # a challenger be counting from there.
    mine = row.holder == asked.holder and asked.beat > row.beat
    run_out = asked.skew is not None and row.remaining < -asked.skew
    if not (row.vacant or mine or asked.takeover or run_out):
        return None
    return Lease(
        role=asked.role,
        holder=asked.holder,
        token=max(row.token, asked.floor) + 1,
        beat=asked.beat,
        ttl=asked.ttl,
        renewed_at=wall,
        remaining=asked.ttl,
        since=wall,
        info=asked.info,
    )


def renew(row: Lease, asked: Renew, wall: float) -> Lease | None:
    """The row after the renewal, or None.

    Neither `remaining` nor `ttl` gets less within a term: the holder may still count on what it was
    promised before, and a challenger waits for the row's ttl."""
    if row.holder != asked.holder or row.token != asked.token or asked.beat <= row.beat:
        return None
    ttl = max(row.ttl, asked.ttl)
    remaining = max(row.remaining, asked.ttl)
    info = row.info if asked.info is None else asked.info
    renewed_at = max(row.renewed_at, wall)
    return Lease(
        row.role, row.holder, row.token, asked.beat, ttl, renewed_at, remaining, info, row.since
    )


def unchanged_but_renewed(asked: Sequence[Renew], wall: float) -> list[Lease]:
    """The rows after renewals that found all as their holders had left it, but for what they say of
    the holders."""
    info: dict[str, Any] = {}  # one for all: candidates keep what they saw
    return [
        Lease(one.role, one.holder, one.token, one.beat, one.ttl, wall, one.ttl, info)
        for one in asked
    ]


def release(row: Lease, asked: Release, wall: float) -> Lease | None:
    """The row after the release, or None. The token stays; with `linger` the holder does too, for
    that long, or the one it is handed over to."""
    if row.holder != asked.holder or row.token != asked.token or asked.beat <= row.beat:
        return None
    if asked.to is not None and asked.linger > 0:
        # Beat 0 is nobody's: this sight was never there, and what `to` sends next is newer.
        handed = replace(row, holder=asked.to, beat=0, ttl=asked.linger, remaining=asked.linger)
        return replace(handed, renewed_at=wall, since=0.0, info={})
    if asked.linger > 0:
        return replace(
            row, beat=asked.beat, ttl=asked.linger, remaining=asked.linger, renewed_at=wall
        )
    return replace(row, holder=None, beat=asked.beat, remaining=0.0, renewed_at=wall, since=0.0)
