"""The calls of one decorated function, role by role.

The role of a call may depend on its arguments, so their number is limited.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from coord.api.default import default
from coord.api.guarded_call import GuardedCall
from coord.api.sync_coordinator import Coordinator
from coord.errors import TooManyRoles


class GuardedCalls:
    """Makes a `GuardedCall` for each role of a decorated function.

    Args:
        max_roles: How many roles the process keeps at a time, if they depend on the arguments.
        coordinator: The coordinator; None means the default one of the process.
        scope: "process" or "call": how long a role is kept.
        settings: The other settings of `GuardedCall`.
    """

    def __init__(
        self,
        max_roles: int,
        coordinator: Coordinator | None,
        *,
        scope: str,
        **settings: Any,
    ) -> None:
        self._max_roles, self._coordinator = max_roles, coordinator
        self._keeps = scope == "process"
        self._settings = {"scope": scope, **settings}
        self._plain: GuardedCall | None = None
        self._kept: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def plain(self, role: str) -> GuardedCall:
        """Return the calls of a function that has one role."""
        if self._plain is None:
            self._plain = GuardedCall(role, self._coordinator, **self._settings)
        return self._plain

    def templated(self, role: str) -> GuardedCall:
        """Return the calls for one of many roles.

        Raises:
            TooManyRoles: The process keeps `max_roles` of them, and uses all.
        """
        call = GuardedCall(role, self._coordinator, **self._settings)
        if self._keeps:
            with self._lock:
                if role not in self._kept and len(self._kept) >= self._max_roles:
                    self._make_room(role)
                self._kept[role] = None
                self._kept.move_to_end(role)
                # Else another thread could give the room to its role before this call begins.
                call.reserve()
        return call

    def _make_room(self, role: str) -> None:
        coordinator = self._coordinator or default.get()
        for unused in self._kept:
            if coordinator.forget_shared(unused):
                del self._kept[unused]
                return
        raise TooManyRoles(role, self._max_roles)
