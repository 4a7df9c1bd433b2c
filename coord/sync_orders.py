"""`AsyncOrders` for threads."""

from __future__ import annotations

import functools

from coord.async_orders import AsyncOrders
from coord.lease import Lease
from coord.lookups import Lookups


class Orders(Lookups):
    """Asking the leader of a role to give way, on the coordinator's thread."""

    @property
    def _asked(self) -> AsyncOrders:
        raise NotImplementedError

    def request_step_down(self, role: str, *, by: str = "", cooldown: float | None = None) -> Lease:
        """Ask the leader of `role` to step down; the lease of whom was asked. Returns before it has been done.

        by: who asks, for the role's history; at most 200 bytes.
        cooldown: seconds for which the leader then does not stand for the role (None: its ttl).
        Raises `NotLeader` when nobody leads, `StoreUnavailable`, or `StoreRefused`.
        """
        return self.engine.call(functools.partial(self._asked.request_step_down, role, by=by, cooldown=cooldown))

    def request_transfer(self, role: str, to: str, *, by: str = "") -> Lease:
        """Ask the leader of `role` to hand it to a candidate that waits; the lease of whom was asked.

        to: the candidate: its id, the first four or more characters of it, or the `name` in its info.
        Raises what `request_step_down` raises, and `BadArgument` where `to` names nobody that waits, or several.
        """
        return self.engine.call(functools.partial(self._asked.request_transfer, role, to, by=by))
