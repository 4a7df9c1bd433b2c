"""What operators can do with a store in memory: nothing is set up, and nothing can break."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from coord.errors import BadArgument

if TYPE_CHECKING:
    from coord.stores.protocol import Finding


class MemoryAdmin:
    """Administration of a store in memory. Implements `protocol.Admin`.

    The store belongs to one process and ends with it, so no other process can administer it.

    Attributes:
        url: The URL of the store.
    """

    def __init__(self, url: str = "memory://") -> None:
        self.url = url

    def exists(self) -> bool:
        """Return True: a store in memory exists as soon as it is used."""
        return True

    async def setup(self, options: Mapping[str, Any], timeout: float) -> Sequence[str]:
        """Do nothing, because there is nothing to set up.

        Args:
            options: The options of `coord init`; a store in memory knows `service_tables`,
                whose tables need no setup.
            timeout: Not used.

        Raises:
            BadArgument: An option was given.
        """
        for name, value in options.items():
            if value is not None and name != "service_tables":
                raise BadArgument(name, value, "must be left out for a store in memory")
        return []

    async def check(self, timeout: float) -> Sequence[Finding]:
        """Return one finding, which says that no other process uses the store."""
        from coord.stores.protocol import Finding  # needed by `coord doctor` only

        what = "each process has a store of its own, which ends with it, and leaders of its own"
        return [Finding("warn", "memory", what, "use another store for more than one process")]

    async def raise_token_floor(self, floor: int, roles: Sequence[str], timeout: float) -> int:
        """Refuse: a store in memory cannot be restored from a backup.

        Raises:
            BadArgument: Always.
        """
        raise BadArgument(
            "token_floor", floor, "must be left out: a store in memory cannot be restored"
        )


def admin(url: str) -> MemoryAdmin:
    """Return the administration of the store in memory that `url` names."""
    return MemoryAdmin(url)
