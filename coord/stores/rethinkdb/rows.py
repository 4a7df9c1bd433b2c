"""What a stored document means. Total: a row that was written by hand may hold anything.

What cannot be used is a vacant lease that keeps its token. `queries.py` says the same in ReQL where the server must.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from coord.checks import MAX_TTL
from coord.lease import MAX_TOKEN, Lease

FIELDS = ("id", "holder", "token", "beat", "ttl", "renewed_at", "since")


def lease(row: Mapping[str, Any], now: float | None) -> Lease:
    """The lease that `row` holds. `now` is the server's clock (seconds since 1970), in the same query.

    Without it (a feed has no clock) a held lease has its whole ttl left.
    """
    holder, token, beat, ttl = row.get("holder"), row.get("token"), row.get("beat"), row.get("ttl")
    at = row.get("renewed_at")
    renewed_at = at.get("epoch_time") if isinstance(at, Mapping) and at.get("$reql_type$") == "TIME" else None
    whole = _number(token) and _number(beat) and _number(ttl) and 0 < ttl <= MAX_TTL and renewed_at is not None
    held = whole and isinstance(holder, str) and holder != ""
    seconds = float(ttl) if _number(ttl) and 0 < ttl <= MAX_TTL else 0.0
    left = seconds if now is None else (renewed_at or 0.0) + seconds - now
    info, since = row.get("info"), row.get("since")
    return Lease(
        role=str(row["id"]),
        holder=holder if held else None,
        token=min(_count(token), MAX_TOKEN),
        beat=_count(beat),
        ttl=seconds,
        renewed_at=renewed_at or 0.0,
        remaining=left if held else 0.0,
        info=info if isinstance(info, dict) else {},
        since=float(since) if _number(since) else 0.0,
    )


def sound(row: Mapping[str, Any]) -> bool:
    """Whether it is as coord writes it, so that the quick form of a claim takes it for what it is."""
    seen = lease(row, None)
    written = tuple(row.get(name) for name in ("holder", "token", "beat", "ttl"))
    return written == (seen.holder, seen.token, seen.beat, seen.ttl) and seen.renewed_at > 0


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _count(value: Any) -> int:
    return math.floor(value) if _number(value) and value > 0 else 0
