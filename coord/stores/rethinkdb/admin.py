"""What `coord init` and `coord doctor` do to a RethinkDB database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from coord.errors import BadArgument
from coord.stores.rethinkdb.url import RethinkURL

if TYPE_CHECKING:
    from coord.stores.protocol import Finding

OPTIONS = ("replicas", "guard", "service_tables")
"""The options of `coord init` that RethinkDB knows."""


class RethinkDBAdmin:
    """Sets up and checks the database behind one URL.

    Implements `coord.stores.protocol.Admin`. Set-up and doctor are imported when they are used, so
    that a program that only leads does not load them.

    Args:
        url: The servers, the user and the database.
    """

    def __init__(self, url: RethinkURL) -> None:
        self._url = url

    def __repr__(self) -> str:
        return f"<RethinkDBAdmin {self._url.redacted}>"

    def exists(self) -> bool:
        """Return True: looking at a database on a server never creates it."""
        return True

    async def setup(self, options: Mapping[str, Any], timeout: float) -> Sequence[str]:
        """Create the database and its tables, or complete them. Safe to repeat.

        Args:
            options: `replicas` (an int) is the number of replicas of each new table. `guard` (a
                bool) installs the write hook that rejects deletes and falling tokens, or removes
                it. `service_tables` (a list of str) are more tables for service records. None
                means that an option was not given.
            timeout: Seconds that it may take.

        Returns:
            A line for each thing that was done, and for each that people should look at.

        Raises:
            BadArgument: An option is unknown or invalid.
            StoreUnavailable: The servers did not answer in time.
            StoreRefused: The servers refused, or people must decide something first.
        """
        replicas, guard = _validated(options)
        tables = options.get("service_tables") or ()
        from coord.stores.rethinkdb.setup import set_up

        report = await set_up(
            self._url, timeout, replicas=replicas, guard=guard, service_tables=tables
        )
        return [*report.done, *report.notes]

    async def check(self, timeout: float) -> Sequence[Finding]:
        """Check servers, clocks and tables, and say how to fix what is wrong.

        Args:
            timeout: Seconds that each query may take.
        """
        from coord.stores.rethinkdb import doctor

        return await doctor.check(self._url, timeout)

    async def raise_token_floor(self, floor: int, roles: Sequence[str], timeout: float) -> int:
        """Make every later token greater than `floor`, for all roles and for `roles`.

        Args:
            floor: A number that is at least as great as every token that was ever issued.
            roles: Roles that get a vacant lease with this token if they have no lease.
            timeout: Seconds that it may take.

        Returns:
            The number of leases that were changed or created.
        """
        from coord.stores.rethinkdb import setup

        raised, created = await setup.raise_token_floor(self._url, floor, roles, timeout)
        return raised + created


def _validated(options: Mapping[str, Any]) -> tuple[int | None, bool | None]:
    for name, value in options.items():
        if value is not None and name not in OPTIONS:
            raise BadArgument(
                name, value, f"must be an option that RethinkDB has: {', '.join(OPTIONS)}"
            )
    replicas, guard = options.get("replicas"), options.get("guard")
    if replicas is not None and (
        isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 1
    ):
        raise BadArgument("replicas", replicas, "must be an int of at least 1")
    if guard is not None and not isinstance(guard, bool):
        raise BadArgument("guard", guard, "must be True or False")
    return replicas, guard
