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
from coord.past import brief
from coord.stores.rethinkdb import driver, errors, history


class Shape(NamedTuple):
    """Which parts a claim has: what it has not need not be looked at by the server."""

    careful: bool
    expected: bool
    takeover: bool
    skew: bool
    lost: bool
    info: bool

    @classmethod
    def of(cls, claim: Claim, careful: bool) -> Shape:
        return cls(
            careful,
            claim.expected is not None,
            claim.takeover,
            claim.skew is not None,
            claim.lost is not None,
            bool(claim.info),
        )


def parameters(claim: Claim) -> dict[str, Any]:
    """What is filled into the form of its shape."""
    values = {name: getattr(claim, name) for name in ("role", "holder", "beat", "ttl", "skew", "floor")}
    if claim.expected is not None:
        values |= {f"expected_{name}": value for name, value in claim.expected._asdict().items()}
    if claim.lost is not None:
        values["lost_token"], values["lost_reason"] = claim.lost
    if claim.info:
        # As texts, so that `$reql_type$` in them means nothing, and nesting is no trouble.
        info = dict(claim.info)
        values["info"], values["brief"] = json.dumps(info, allow_nan=False), json.dumps(brief(info), allow_nan=False)
    return values


def may_be_had(asked: Mapping[str, Any], row: Any, shape: Shape) -> Any:
    """Whether the claim applies."""
    r = driver.reql()
    conditions = []
    if shape.expected:
        conditions += [row[name].eq(asked[f"expected_{name}"]) for name in ("holder", "token", "beat")]
    if not shape.takeover:
        free = [row["holder"].eq(None), r.and_(row["holder"].eq(asked["holder"]), row["beat"].lt(asked["beat"]))]
        if shape.skew:
            free.append(r.now().sub(row["renewed_at"]).gt(row["ttl"].add(asked["skew"])))
        conditions.append(r.or_(*free))
    return r.and_(*conditions) if conditions else r.expr(True)


def taken(asked: Mapping[str, Any], row: Any, shape: Shape) -> Any:
    """The row once the claim is applied."""
    r = driver.reql()
    token = r.branch(
        row["token"].lt(MAX_TOKEN),
        r.branch(row["token"].gt(asked["floor"]), row["token"].floor(), asked["floor"]).add(1),
        r.error(f"{errors.REFUSAL}the token is at its end"),
    )
    return token.do(
        lambda token: {
            "id": asked["role"],
            "holder": asked["holder"],
            "token": token,
            "beat": asked["beat"],
            "ttl": asked["ttl"],
            "renewed_at": r.now(),
            "since": r.now().to_epoch_time(),
            "info": r.json(asked["info"]) if shape.info else {},
            "history": history.after_claim(asked, row, token, lost=shape.lost, info=shape.info),
        }
    )
