"""`rules.claim`, said to the server: when a row may be claimed, and what becomes of it.

`asked` is the claim, `row` the fields of the row as coord writes them (`careful.view` where somebody else may have).
"""

from __future__ import annotations

from typing import Any

from coord.lease import MAX_TOKEN
from coord.stores.rethinkdb import driver, errors, history


def may_be_had(asked: Any, row: Any) -> Any:
    """Whether the claim applies."""
    r = driver.reql()
    expected = asked["expected"]
    as_expected = r.or_(
        expected.eq(None),
        r.and_(
            row["holder"].eq(expected["holder"]),
            row["token"].eq(expected["token"]),
            row["beat"].eq(expected["beat"]),
        ),
    )
    left = row["renewed_at"].to_epoch_time() + row["ttl"] - r.now().to_epoch_time()
    free = r.or_(
        row["holder"].eq(None),
        r.and_(row["holder"].eq(asked["holder"]), row["beat"].lt(asked["beat"])),
        asked["takeover"],
        r.and_(asked["skew"].ne(None), left.lt(asked["skew"].mul(-1))),
    )
    return r.and_(as_expected, free)


def taken(asked: Any, _old: Any, row: Any) -> Any:
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
            "info": asked["info"],
            "history": history.after_claim(asked, row, token),
        }
    )
