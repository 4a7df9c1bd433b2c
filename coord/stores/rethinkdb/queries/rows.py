"""What a stored document means, whatever it contains: people may have edited it.

A document that is no lease counts as a vacant lease that keeps its token. `strict_view` says the
same in ReQL, for the queries that need it.

A retired role (rule 12) keeps a document that has only its token, because RethinkDB cannot delete
one document and raise a floor in another in one step. Such a document counts as no row, except that
the next token of the role is above its token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from coord.core.kept import Kept
from coord.core.lease import MAX_TOKEN, Lease
from coord.core.validation import MAX_TTL, is_number
from coord.errors import StoreRefused
from coord.stores.rethinkdb import driver
from coord.stores.rethinkdb.queries import swaps

FIELDS = ("id", "holder", "token", "beat", "ttl", "renewed_at", "since", "info")


def lease(row: Mapping[str, Any], now: float | None) -> Lease:
    """Return the lease in a row.

    Args:
        row: The stored document.
        now: The server's clock in the same query, in seconds since 1970. None: it is not known, as
            in a feed, and a held lease has its whole ttl left.
    """
    holder, token, beat, ttl = row.get("holder"), row.get("token"), row.get("beat"), row.get("ttl")
    at = row.get("renewed_at")
    epoch_time = at.get("epoch_time") if isinstance(at, Mapping) else None
    renewed_at = float(epoch_time) if is_number(epoch_time) else None
    if is_retired(row):
        return Lease(str(row["id"]))
    whole = (
        is_number(token)
        and is_number(beat)
        and is_number(ttl)
        and 0 < ttl <= MAX_TTL
        and renewed_at is not None
    )
    held = whole and isinstance(holder, str) and holder != ""
    seconds = float(ttl) if is_number(ttl) and 0 < ttl <= MAX_TTL else 0.0
    remaining = seconds if now is None else (renewed_at or 0.0) + seconds - now
    info, since = row.get("info"), row.get("since")
    return Lease(
        role=str(row["id"]),
        holder=holder if held else None,
        token=min(_count(token), MAX_TOKEN),
        beat=_count(beat),
        ttl=seconds,
        renewed_at=renewed_at or 0.0,
        remaining=remaining if held else 0.0,
        info=info if isinstance(info, dict) else {},
        since=float(since) if is_number(since) else 0.0,
    )


def is_retired(row: Mapping[str, Any]) -> bool:
    """Return whether a document only keeps the token of a retired role."""
    return row.get("retired") is True and row.get("holder") is None


def retired_row(role: str, token: Any) -> dict[str, Any]:
    """Return the document of a retired role, as values or in ReQL."""
    return {"id": role, "token": token, "retired": True}


def kept(role: str, row: Mapping[str, Any] | None) -> Kept:
    """Return the text that a role keeps.

    Args:
        role: The role.
        row: The fields `token`, `kept`, `holder` and `retired` of its document; None if there is no
            document.

    Raises:
        StoreRefused: The kept value is no text, so a person wrote it.
    """
    if row is None or is_retired(row):
        return Kept(0, "")
    text = row.get("kept", "")
    if not isinstance(text, str):
        raise StoreRefused(f"the row of {role!r} is damaged: its field `kept` is no text")
    return Kept(min(_count(row.get("token")), MAX_TOKEN), text)


def is_well_formed(row: Mapping[str, Any]) -> bool:
    """Return whether a row is as coord writes it, so that the quick form of a claim reads it
    correctly."""
    parsed = lease(row, None)
    written = tuple(row.get(name) for name in ("holder", "token", "beat", "ttl"))
    return (
        written == (parsed.holder, parsed.token, parsed.beat, parsed.ttl) and parsed.renewed_at > 0
    )


def _count(value: Any) -> int:
    return math.floor(value) if is_number(value) and value > 0 else 0


def strict_view(row: Any) -> Any:
    """Return the ReQL for the fields that a claim reads, each of the right type; see `lease`."""
    r = driver.reql()
    is_time = _kind(row, "renewed_at").eq("PTYPE<TIME>")
    return r.expr(
        {
            "holder": r.branch(_held(row), row["holder"], None),
            "token": r.expr([_strict_count(row, "token"), MAX_TOKEN]).min(),
            "beat": _strict_count(row, "beat"),
            "ttl": r.branch(_has_ttl(row), row["ttl"], 0),
            "renewed_at": r.branch(is_time, row["renewed_at"], r.epoch_time(0)),
            "history": swaps.entries(row),
            "kept": row["kept"].default(""),
            "retired": _is_retired(row),
        }
    )


def is_row(row: Any) -> Any:
    """Return the ReQL for whether a document is more than the token of a retired role."""
    # Almost every row has no such field, and asking for that takes a third of the time.
    return driver.reql().or_(row.has_fields("retired").not_(), _is_retired(row).not_())


def _is_retired(row: Any) -> Any:
    retired, holder = row["retired"].default(False), row["holder"].default(None)
    return driver.reql().and_(retired.eq(True), holder.eq(None))


def _held(row: Any) -> Any:
    """Return the ReQL for whether the row is a complete lease with a holder."""
    kinds = {"holder": "STRING", "token": "NUMBER", "beat": "NUMBER", "renewed_at": "PTYPE<TIME>"}
    right = (_kind(row, name).eq(kind) for name, kind in kinds.items())
    return driver.reql().and_(*right, _has_ttl(row), row["holder"].ne(""))


def _has_ttl(row: Any) -> Any:
    is_number = _kind(row, "ttl").eq("NUMBER")
    return driver.reql().and_(is_number, row["ttl"].gt(0), row["ttl"].le(MAX_TTL))


def _strict_count(row: Any, name: str) -> Any:
    r = driver.reql()
    return r.branch(r.and_(_kind(row, name).eq("NUMBER"), row[name].gt(0)), row[name].floor(), 0)


def _kind(row: Any, name: str) -> Any:
    return row[name].default(None).type_of()
