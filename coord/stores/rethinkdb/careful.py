"""What `rows.lease` makes of a row, said to the server: every field of its right type, whatever is stored."""

from __future__ import annotations

from typing import Any

from coord.checks import MAX_TTL
from coord.lease import MAX_TOKEN
from coord.stores.rethinkdb import driver, history


def view(row: Any) -> Any:
    """The fields that a claim looks at. A row that is not whole is vacant, and keeps the token that is in it."""
    r = driver.reql()
    is_time = _kind(row, "renewed_at").eq("PTYPE<TIME>")
    return r.expr(
        {
            "holder": r.branch(_held(row), row["holder"], None),
            "token": r.expr([_count(row, "token"), MAX_TOKEN]).min(),
            "beat": _count(row, "beat"),
            "ttl": r.branch(_has_ttl(row), row["ttl"], 0),
            "renewed_at": r.branch(is_time, row["renewed_at"], r.epoch_time(0)),
            "history": history.entries(row),
        }
    )


def _held(row: Any) -> Any:
    """Whether the row is a whole one with a holder in it."""
    kinds = {"holder": "STRING", "token": "NUMBER", "beat": "NUMBER", "renewed_at": "PTYPE<TIME>"}
    right = (_kind(row, name).eq(kind) for name, kind in kinds.items())
    return driver.reql().and_(*right, _has_ttl(row), row["holder"].ne(""))


def _has_ttl(row: Any) -> Any:
    is_number = _kind(row, "ttl").eq("NUMBER")
    return driver.reql().and_(is_number, row["ttl"].gt(0), row["ttl"].le(MAX_TTL))


def _count(row: Any, name: str) -> Any:
    r = driver.reql()
    return r.branch(r.and_(_kind(row, name).eq("NUMBER"), row[name].gt(0)), row[name].floor(), 0)


def _kind(row: Any, name: str) -> Any:
    return row[name].default(None).type_of()
