"""When a leader gives way: to an order, or to a candidate that is preferred to it. Decides; does nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coord.candidate import ordered
from coord.notice import Notice
from coord.orders import Order


@dataclass(frozen=True, slots=True)
class Yield:
    """Hand over now: to that candidate, or to anybody. `key` is of the notice that has been heeded, `rest` in seconds
    (None: as for any step-down)."""

    to: str | None
    by: str
    key: str
    rest: float | None


def heed(
    notices: Iterable[Notice], token: int, candidate: str, priority: int, tenure: float, min_tenure: float
) -> Yield | float | None:
    """What the leader `candidate`, under `token` for `tenure` seconds, makes of what was posted about its role.

    An order is carried out at once. A candidate of a higher priority gets the role once the term has lasted
    `min_tenure` seconds: until then the answer is how long that will be. None: there is nothing to heed.
    """
    notices = list(notices)
    for notice in notices:
        order = Order.of(notice)
        if order is not None and order.token == token and order.to != candidate:
            rest = order.cooldown if order.to is None else order.cooldown or 0.0
            return Yield(order.to, order.by, order.key, rest)
    preferred = next((one for one in ordered(notices) if one.priority > priority and one.candidate != candidate), None)
    if preferred is None:
        return None
    if tenure < min_tenure:
        return min_tenure - tenure
    return Yield(preferred.candidate, f"priority {preferred.priority}", "", 0.0)
