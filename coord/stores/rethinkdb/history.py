"""`coord/past.py`, said to the server: what a claim and a release do to the terms that a row remembers."""

from __future__ import annotations

from typing import Any

from coord.lease import LossReason
from coord.past import KEPT
from coord.stores.rethinkdb import driver


def after_claim(asked: Any, row: Any, token: Any) -> Any:
    """The terms in `row` once the claim is applied with that `token`. `asked["brief"]` is what is kept of its info."""
    r = driver.reql()
    now = r.now().to_epoch_time()
    lost = asked["lost"]
    mine = r.and_(lost.ne(None), row["holder"].eq(asked["holder"]), row["token"].eq(lost[0]))
    ended = r.branch(mine, lost[1], LossReason.EXPIRED.value)
    until = r.expr([now, row["renewed_at"].to_epoch_time().add(row["ttl"])]).min()
    opened = {
        "token": token,
        "holder": asked["holder"],
        "info": asked["brief"],
        "since": now,
        "until": None,
        "reason": "",
        "by": "",
    }
    return _closed(row["history"].default([]), until, ended, "").append(opened).slice(-KEPT)


def after_release(asked: Any, old: Any) -> Any:
    """The terms in `old`, which may hold anything, once the lease is given back."""
    return _closed(entries(old), driver.reql().now().to_epoch_time(), asked["reason"], asked["by"])


def entries(row: Any) -> Any:
    """The terms of a row that somebody may have edited."""
    said = row["history"].default(None)
    is_list = said.type_of().eq("ARRAY")
    return driver.reql().branch(is_list, said.filter(lambda one: one.type_of().eq("OBJECT")), [])


def _closed(past: Any, until: Any, reason: Any, by: Any) -> Any:
    r = driver.reql()
    still_open = past.nth(-1)["until"].default(None).eq(None)
    closed = past.slice(0, -1).append(past.nth(-1).merge({"until": until, "reason": reason, "by": by}))
    return r.branch(past.is_empty(), past, still_open, closed, past)
