"""`rules.release`, said to the server: whose lease it is, and what becomes of the row.

`asked` are the release's parameters, `row` the row as it is stored, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coord.checks import MAX_TTL
from coord.stores.rethinkdb import driver, history

_LEAST = 1e-300
"""A number above 0: below it is no ttl."""
_FAR = 100_000_000_000
"""A time after all others, in seconds since 1970."""


def mine(asked: Any, row: Any) -> Any:
    """Whether the row is whole, and held as `asked` says. Quicker than by types: the server orders values by type
    first, so what lies between two numbers is a number."""
    r = driver.reql()
    return r.and_(
        row["holder"].eq(asked["holder"]),
        row["token"].eq(asked["token"]),
        r.lt(-1, row["beat"], asked["beat"]),
        r.le(_LEAST, row["ttl"], MAX_TTL),
        r.le(r.epoch_time(0), row["renewed_at"], r.epoch_time(_FAR)),
    ).default(False)


def left(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What changes when it is given back to nobody."""
    return {"beat": asked["beat"], "holder": None, "since": 0}


def given_back(asked: Mapping[str, Any], row: Any) -> dict[str, Any]:
    """All that changes then in a row as coord writes it, its history included."""
    return {
        "renewed_at": driver.reql().now(),
        "history": history.after_release(asked, row),
        **left(asked),
    }


def lingers(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What changes when nobody is to have it for a while."""
    return {"beat": asked["beat"], "ttl": asked["linger"]}


def handed_over(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What changes when a certain candidate is to have it."""
    return {"holder": asked["to"], "beat": 0, "ttl": asked["linger"], "since": 0, "info": driver.reql().literal({})}
