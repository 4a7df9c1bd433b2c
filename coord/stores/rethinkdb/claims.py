"""`rules.claim`, said to the server: when a row may be claimed, and what becomes of it.

`asked` are the claim's parameters, `row` the fields of the row as coord writes them (`careful.view` where somebody else
may have).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from coord.lease import MAX_TOKEN
from coord.operations import Claim
from coord.stores.rethinkdb import driver, errors, history
from coord.stores.rethinkdb.rows import lease, sound


class Shape(NamedTuple):
    """Which parts a claim has: what it has not need not be sent, nor looked at by the server. What follows from the row
    that is expected is worked out here.

    free: whether the row must be one that may be had, for nothing else makes it so. closed: whether the row is vacant,
    and so was given back. floor: whether it may lift the token.
    """

    careful: bool
    expected: bool
    free: bool
    closed: bool
    skew: bool
    lost: bool
    info: bool
    floor: bool

    @classmethod
    def of(cls, claim: Claim, careful: bool) -> Shape:
        row = None if careful else claim.expected
        vacant = row is not None and row.holder is None
        mine = row is not None and row.holder == claim.holder and row.beat < claim.beat
        return cls(
            careful,
            claim.expected is not None,
            not (claim.takeover or vacant or mine),
            vacant,
            claim.skew is not None,
            claim.lost is not None and row is None,
            bool(claim.info),
            careful or (row is None and claim.floor > 0),
        )


def parameters(claim: Claim) -> dict[str, Any]:
    """What is filled into the form of its shape."""
    values = {name: getattr(claim, name) for name in ("role", "holder", "beat", "ttl", "skew", "floor")}
    if claim.lost is not None:
        values["lost_token"] = claim.lost[0]
    if claim.expected is not None:
        values |= {f"expected_{name}": value for name, value in claim.expected._asdict().items()}
        values["token"] = min(max(claim.expected.token, claim.floor), MAX_TOKEN - 1) + 1
    if claim.info:
        # As a text, so that `$reql_type$` in it means nothing, and nesting is no trouble.
        info = dict(claim.info)
        values["info"] = json.dumps(info, allow_nan=False)
    return {**values, **history.opening(claim)}


def blank() -> dict[str, Any]:
    """What a claim looks at where there is no row."""
    return {"holder": None, "token": 0, "beat": 0, "ttl": 0, "renewed_at": driver.reql().epoch_time(0), "history": []}


def may_be_had(asked: Mapping[str, Any], row: Any, shape: Shape) -> Any:
    """Whether the claim applies."""
    r = driver.reql()
    conditions = []
    if shape.expected:
        conditions += [row[name].eq(asked[f"expected_{name}"]) for name in ("holder", "token", "beat")]
    if shape.free:
        free = [row["holder"].eq(None), r.and_(row["holder"].eq(asked["holder"]), row["beat"].lt(asked["beat"]))]
        if shape.skew:
            free.append(r.now().sub(row["renewed_at"]).gt(row["ttl"].add(asked["skew"])))
        conditions.append(r.or_(*free))
    if not shape.careful:
        # What only a row written by hand has otherwise is left to the careful form.
        conditions.append(r.le(0, row["token"], MAX_TOKEN - 1))
    return r.and_(*conditions) if conditions else r.expr(True)


def misread(claim: Claim, row: Mapping[str, Any] | None) -> bool:
    """Whether a quick claim that changed nothing may have taken this row, which it left, for what it is not."""
    if row is None:
        return False
    seen = lease(row, None)
    as_expected = claim.expected is not None and seen.sight == claim.expected and (seen.vacant or claim.takeover)
    return not sound(row) or as_expected or seen.token >= MAX_TOKEN


def taken(asked: Mapping[str, Any], row: Any, shape: Shape) -> Any:
    """The row once the claim is applied."""
    r = driver.reql()
    now = r.now().to_epoch_time()

    def with_token(token: Any) -> Any:
        return {
            "id": asked["role"],
            "holder": asked["holder"],
            "token": token,
            "beat": asked["beat"],
            "ttl": asked["ttl"],
            "renewed_at": r.now(),
            "since": now,
            "info": r.json(asked["info"]) if shape.info else {},
            "history": history.after_claim(asked, row, token, closed=shape.closed, lost=shape.lost),
        }

    if shape.expected and not shape.careful:
        return with_token(asked["token"])
    return _next(asked, row, shape).do(with_token)


def _next(asked: Mapping[str, Any], row: Any, shape: Shape) -> Any:
    r, token = driver.reql(), row["token"]
    last = r.branch(token.gt(asked["floor"]), token.floor(), asked["floor"]) if shape.floor else token.floor()
    if not shape.careful:
        return last.add(1)  # `may_be_had` has looked at its bounds
    return r.branch(token.lt(MAX_TOKEN), last.add(1), r.error(f"{errors.REFUSAL}the token is at its end"))
