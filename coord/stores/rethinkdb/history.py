"""`coord/past.py`, said to the server: what a claim and a release do to the terms that a row remembers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coord.lease import LossReason
from coord.past import KEPT
from coord.stores.rethinkdb import driver


def after_claim(asked: Mapping[str, Any], row: Any, token: Any, *, lost: bool, info: bool) -> Any:
    """The terms in `row` once the claim is applied with that `token`. `asked["brief"]` is what is kept of its info.

    lost, info: whether it says how its last term ended, and anything about its holder.
    """
    r = driver.reql()
    now = r.now().to_epoch_time()
    ended = r.expr(LossReason.EXPIRED.value)
    if lost:
        mine = r.and_(row["holder"].eq(asked["holder"]), row["token"].eq(asked["lost_token"]))
        ended = r.branch(mine, asked["lost_reason"], ended)
    until = r.expr([now, row["renewed_at"].to_epoch_time().add(row["ttl"])]).min()
    opened = {
        "token": token,
        "holder": asked["holder"],
        "info": r.json(asked["brief"]) if info else {},
        "since": now,
        "until": None,
        "reason": "",
        "by": "",
    }
    return _closed(row["history"].default([]), until, ended, "").append(opened).slice(-KEPT)


def after_release(asked: Mapping[str, Any], old: Any) -> Any:
    """The terms in `old`, which may hold anything, once the lease is given back."""
    return _closed(entries(old), driver.reql().now().to_epoch_time(), asked["reason"], asked["by"])


def entries(row: Any) -> Any:
    """The terms of a row that somebody may have edited."""
    is_list = row["history"].default(None).type_of().eq("ARRAY")
    return driver.reql().branch(is_list, row["history"].filter(lambda one: one.type_of().eq("OBJECT")), [])


def _closed(past: Any, until: Any, reason: Any, by: Any) -> Any:
    r = driver.reql()
    ending = {"until": until, "reason": reason, "by": by}

    def closed(past: Any) -> Any:
        last = past.nth(-1)
        over = r.or_(past.is_empty(), last["until"].default(None).ne(None))
        return r.branch(over, past, past.change_at(-1, last.merge(ending)))

    return past.do(closed)
