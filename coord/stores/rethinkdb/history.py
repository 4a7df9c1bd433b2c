"""`coord/past.py`, said to the server: what a claim and a release do to the terms that a row remembers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coord.past import KEPT
from coord.stores.rethinkdb import driver


def after_claim(
    asked: Mapping[str, Any], row: Any, token: Any, info: Any, *, quick: bool, closed: bool, lost: bool
) -> Any:
    """The terms in `row` once the claim is applied with that `token`. `info` is what is kept of its holder's.

    quick: it is as coord writes it. closed: its last term has ended. lost: whether the claim says how a term of its
    candidate ended, which may be the last one of the row.
    """
    r = driver.reql()
    now = r.now().to_epoch_time()
    opened = {
        "token": token,
        "holder": asked["holder"],
        "info": info,
        "since": now,
        "until": None,
        "reason": "",
        "by": "",
    }
    past = row["history"]
    if not closed:
        reason = asked["ended"]
        if lost:
            mine = r.and_(row["holder"].eq(asked["holder"]), row["token"].eq(asked["lost_token"]))
            reason = r.branch(mine, asked["lost_reason"], reason)
        runs_out = row["renewed_at"].to_epoch_time().add(row["ttl"])
        if quick:
            opened["ended"] = [runs_out, reason]  # looked at only where the term before has not ended
        else:
            past = _closed(past, {"until": r.expr([now, runs_out]).min(), "reason": reason, "by": ""})
    return past.append(opened).slice(-KEPT)


def after_release(asked: Mapping[str, Any], old: Any) -> Any:
    """The terms in `old`, which may hold anything, once the lease is given back."""
    return _closed(entries(old), _ending(asked))


def closed(asked: Mapping[str, Any], row: Any) -> Any:
    """The same where the row is as coord writes it: its last term is the one that ends here."""
    past = row["history"]
    return past.change_at(-1, past.nth(-1).merge(_ending(asked))).default([])


def _ending(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {"until": driver.reql().now().to_epoch_time(), "reason": asked["reason"], "by": asked["by"]}


def entries(row: Any) -> Any:
    """The terms of a row that somebody may have edited."""
    is_list = row["history"].default(None).type_of().eq("ARRAY")
    return driver.reql().branch(is_list, row["history"].filter(lambda one: one.type_of().eq("OBJECT")), [])


def _closed(past: Any, ending: Mapping[str, Any]) -> Any:
    r = driver.reql()

    def closed(past: Any) -> Any:
        last = past.nth(-1)
        over = r.or_(past.is_empty(), last["until"].default(None).ne(None))
        return r.branch(over, past, past.change_at(-1, last.merge(ending)))

    return past.do(closed)
