"""`coord/past.py`, said to the server: what a claim and a release do to the terms that a row remembers.

Each is kept as a text: JSON of how it began and, on a line of its own, of how it ended. A server takes a row apart and
puts it together anew with each write of it, and sixteen objects are most of that; sixteen texts are not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from coord.lease import LossReason
from coord.operations import Claim, Release
from coord.past import KEPT, brief
from coord.stores.rethinkdb import driver

_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def opening(claim: Claim) -> dict[str, str]:
    """Parameters of a claim: what its term begins with, and why the one before may have ended."""
    began = _encode({"holder": claim.holder, "info": brief(claim.info)})
    ended = LossReason.EXPIRED.value
    expected, lost = claim.expected, claim.lost
    if lost is not None and expected is not None and (expected.holder, expected.token) == (claim.holder, lost[0]):
        ended = lost[1]
    reasons = {"ended": _encode(ended), "lost_reason": _encode("" if lost is None else lost[1])}
    return {"opening": f",{began[1:-1]},", **reasons}


def closing(release: Release) -> dict[str, str]:
    """Parameters of a release: why its term ends."""
    return {"closing": "," + _encode({"reason": release.reason, "by": release.by})[1:]}


def after_claim(asked: Mapping[str, Any], row: Any, token: Any, *, closed: bool, lost: bool) -> Any:
    """The terms in `row` once the claim is applied with that `token`.

    closed: the last of them has ended. lost: whether the claim says how a term of its candidate ended, which may be it.
    """
    r = driver.reql()
    opened = ['{"token":', _text(token), asked["opening"], '"since":', _text(r.now().to_epoch_time())]
    if not closed:
        reason = asked["ended"]
        if lost:
            mine = r.and_(row["holder"].eq(asked["holder"]), row["token"].eq(asked["lost_token"]))
            reason = r.branch(mine, asked["lost_reason"], reason)
        runs_out = row["renewed_at"].to_epoch_time().add(row["ttl"])
        opened += [',"ended":[', _text(runs_out), ",", reason, "]"]  # looked at only where that one has not ended
    return row["history"].append(r.add(*opened, "}")).slice(-KEPT)


def after_release(asked: Mapping[str, Any], old: Any) -> Any:
    """The terms in `old` once the lease is given back: its last term is the one that ends here."""
    past = old["history"]
    return past.change_at(-1, past.nth(-1).add(*_ending(asked))).default([])


def after_careful_release(asked: Mapping[str, Any], old: Any) -> Any:
    """The same where `old` may hold anything."""
    r = driver.reql()

    def ended(past: Any) -> Any:
        last, ending = past.nth(-1), r.add(*_ending(asked))
        lasts = last["until"].default(None).eq(None)  # as an object, as an older coord kept it
        return r.branch(
            past.is_empty(),
            past,
            last.type_of().eq("STRING"),
            past.change_at(-1, last.add(ending)),
            lasts,
            past.change_at(-1, last.merge(r.json(ending))),
            past,
        )

    return entries(old).do(ended)


def entries(row: Any) -> Any:
    """The terms of a row that somebody may have edited."""
    r = driver.reql()
    is_list = row["history"].default(None).type_of().eq("ARRAY")
    return r.branch(
        is_list, row["history"].filter(lambda one: r.expr(["STRING", "OBJECT"]).contains(one.type_of())), []
    )


def _ending(asked: Mapping[str, Any]) -> list[Any]:
    return ['\n{"until":', _text(driver.reql().now().to_epoch_time()), asked["closing"]]


def _text(number: Any) -> Any:
    return number.coerce_to("string")
