"""Asking the leader of a role, wherever it is, to step down or to hand over (`coord/orders.py`)."""

from __future__ import annotations

from coord import checks
from coord.async_lookups import AsyncLookups
from coord.candidate import Candidate
from coord.errors import BadArgument, NotLeader
from coord.lease import Lease
from coord.orders import Order

SHORTEST = 4
"""Characters of a candidate's id that are enough to name it, where they name only one."""


class AsyncOrders(AsyncLookups):
    """Each posts an order on the board, and the leader carries it out by itself; none of them writes a lease."""

    async def request_step_down(self, role: str, *, by: str = "", cooldown: float | None = None) -> Lease:
        """Ask the leader of `role` to step down; the lease of whom was asked. Returns before it has been done.

        by: who asks, for the role's history; at most 200 characters.
        cooldown: seconds for which the leader then does not stand for the role (None: its ttl).
        Raises `NotLeader` when nobody leads, `StoreUnavailable`, or `StoreRefused`.
        """
        by = _asker(by)
        cooldown = None if cooldown is None else checks.number(cooldown, "cooldown", low=0)
        return await self._order(await self._led(role), None, by, cooldown)

    async def request_transfer(self, role: str, to: str, *, by: str = "") -> Lease:
        """Ask the leader of `role` to hand it to a candidate that waits; the lease of whom was asked.

        to: the candidate: its id, the first four or more characters of it, or the `name` in its info.
        Raises what `request_step_down` raises, and `BadArgument` where `to` names nobody that waits, or several.
        """
        by = _asker(by)
        lease = await self._led(role)
        return await self._order(lease, (await self.waiting_candidate(role, to)).candidate, by, None)

    async def waiting_candidate(self, role: str, to: str) -> Candidate:
        """The one candidate waiting for `role` that `to` names, as in `request_transfer`."""
        checks.name(to, "to", 200, "a candidate: its id, or its name; at most 200 bytes")
        waiting = await self.candidates(role)
        named = [one for one in waiting if one.candidate == to] or [
            one
            for one in waiting
            if one.info.get("name") == to or (len(to) >= SHORTEST and one.candidate.startswith(to))
        ]
        if len(named) != 1:
            there = ", ".join(one.candidate for one in (named or waiting)[:5]) or "nobody"
            how = "names several of those that wait" if named else "waits"
            raise BadArgument("to", to, f"one candidate that waits for {role!r} ({there} {how})")
        return named[0]

    async def _led(self, role: str) -> Lease:
        rows = await self.read([checks.role(role)])
        lease = next((row for row in rows if row.led), None)
        if lease is None:
            raise NotLeader(role, "nobody leads it")
        return lease

    async def _order(self, lease: Lease, to: str | None, by: str, cooldown: float | None) -> Lease:
        notice = Order(lease.role, lease.token, to, by, cooldown).notice(lease.ttl)
        await self._retried(lambda timeout: self.board.post([notice], timeout))
        return lease


def _asker(by: str) -> str:
    return by and checks.name(by, "by", 200, "who asks: a string of at most 200 bytes")
