"""What the board asks of a store: notices are written, read, told and taken away, many at once in one query.

Nothing on the board ever decides who leads: the lease alone does. A board that is empty, old, wrong or out of reach
costs people a sight of who waits, and a leader a hint; never a leadership. So writes need not survive a crash of the
store, and one whose answer was lost may be repeated blindly: the last one counts.

All methods are bounded by `timeout` (seconds), connecting included, and raise `StoreUnavailable` or `StoreRefused`
(`NotSetUp` where an older coord set up the store and there is no board yet). Each is one query.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Protocol

from coord.notice import CANDIDATE, Notice

COUNTED, ROLES = 256, 64


def counted_roles(notices: Sequence[Notice]) -> list[str]:
    """The roles whose candidates a post of these counts."""
    return sorted({one.role for one in notices if one.kind == CANDIDATE})[:ROLES]


class Board(Protocol):
    """The board of one store. A notice runs out by the store's own clock, and from then on is not there."""

    async def post(self, notices: Sequence[Notice], timeout: float) -> Mapping[str, int]:
        """Write these, each in place of what has its key. May take away a few that have run out, on the way.

        By role, how many candidates for it are on the board then (some may have run out; no more than `COUNTED` are
        counted), for up to `ROLES` of the roles of which candidates were posted.
        """

    async def withdraw(self, keys: Collection[str], timeout: float) -> None:
        """Take away the notices with these keys, those that are there."""

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Notice]:
        """The notices about these roles (None: about every role), in any order."""

    def watch(self) -> AsyncIterator[Notice]:
        """The loud notices: first all that are there, then each when it is posted (anew, too), at once.

        Several posts under one key may come as one. Ends by raising `StoreUnavailable` (open it anew) or
        `StoreRefused`; never ends otherwise until it is closed (`aclose`).
        """

    async def purge(self, timeout: float) -> int:
        """Delete all that have run out; how many. They are not seen either way: this is for the space they take."""
