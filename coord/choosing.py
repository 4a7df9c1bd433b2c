"""Which of the healthy services a caller gets. One look at the store each way."""

from __future__ import annotations

from coord.errors import BadArgument
from coord.records import values
from coord.records.protocol import Record, Records

WAYS = ("least", "spread")


def check(choose: object) -> str:
    """One of `WAYS`."""
    if choose not in WAYS:
        raise BadArgument("choose", choose, '"least" (the lowest load) or "spread" (the better of two at random)')
    return str(choose)


async def one(records: Records, role: str, choose: str, timeout: float) -> Record | None:
    """A healthy service of that role, or None.

    "least" is the lowest load. Everybody who looks between two heartbeats gets the same one, so a crowd lands on it.
    "spread" draws two at random and takes the lower load of them: nearly as well balanced as always finding the
    lowest, and with figures that are a heartbeat old much better (Mitzenmacher, "The Power of Two Choices in
    Randomized Load Balancing", 2001; "How Useful Is Old Information?", 2000).
    """
    if choose == "least":
        return await records.least(role, timeout)
    two = await records.sample(role, 2, timeout)
    return min(two, key=values.by_load, default=None)  # of equal loads the first, and the order is random
