"""What `coord init` and `coord doctor` do to a namespace of Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from coord.core import validation
from coord.errors import BadArgument
from coord.stores.failures import RequestError
from coord.stores.redis import errors, rows, scripts
from coord.stores.redis.store import RedisStore
from coord.stores.redis.url import RedisURL, parse_url

if TYPE_CHECKING:
    from coord.stores.protocol import Finding

T = TypeVar("T")

MAX_RAISED = 500
"""Leases that one script raises."""


class RedisAdmin:
    """Sets up and checks one namespace. Implements `protocol.Admin`.

    Args:
        url: The server or the sentinels, the user and the namespace.
    """

    def __init__(self, url: RedisURL) -> None:
        self._url = url
        self._keys = rows.Keys(url)

    def __repr__(self) -> str:
        return f"<RedisAdmin {self._url.redacted}>"

    def exists(self) -> bool:
        """Return True: looking at a server never creates anything."""
        return True

    async def _with_store(self, work: Callable[[RedisStore], Awaitable[T]]) -> T:
        store = RedisStore(self._url)
        try:
            return await work(store)
        except RequestError as err:
            raise err.error() from None
        finally:
            await store.close()

    async def setup(self, options: Mapping[str, Any], timeout: float) -> Sequence[str]:
        """Create the namespace if it is missing. Safe to repeat, and to run many times at once.

        Args:
            options: The options of `coord init`. Redis knows `service_tables`, which need no setup.
            timeout: Seconds that it may take.

        Returns:
            A line of text for each change.

        Raises:
            BadArgument: An option was given that Redis does not know.
            StoreUnavailable: The server did not answer in time.
            StoreRefused: The server refused.
        """
        for name, value in options.items():
            if value is not None and name != "service_tables":
                raise BadArgument(name, value, "must not be given: Redis has no such option")

        async def create(store: RedisStore) -> list[str]:
            created = await store.scripts.run(scripts.INIT, [self._keys.meta], [], timeout)
            if not created:
                return []
            # A replica that does not know the namespace yet would have none after a promotion.
            info = (await store.client.command(timeout, "INFO", "replication")).decode()
            replicas = int(info.partition("connected_slaves:")[2].split()[0] or 0)
            lines = [f"created the namespace {self._url.namespace!r}"]
            if replicas:
                wait = max(1, int(timeout * 500))
                reached = await store.client.command(timeout, "WAIT", replicas, wait)
                lines.append(f"{reached} of {replicas} replicas have it")
            return lines

        return await self._with_store(create)

    async def check(self, timeout: float) -> Sequence[Finding]:
        """Check the server and the namespace, and return what is wrong and how to fix that."""
        from coord.stores.redis import doctor

        return await doctor.check(self._url, timeout)

    async def raise_token_floor(self, floor: int, roles: Sequence[str], timeout: float) -> int:
        """Make every later token greater than `floor`, for all roles that exist and for `roles`.

        Roles that have no lease yet are covered, too: the namespace itself has a floor.

        Args:
            floor: A number that is at least as great as every token that was ever given.
            roles: Roles that get a vacant lease with this token if they have no lease.
            timeout: Seconds that it may take.

        Returns:
            How many leases were changed or created.

        Raises:
            BadArgument: `floor` is not a token, or a role is not valid.
        """
        token = validation.token_floor(floor)
        new = [validation.role(role) for role in roles]
        deadline = asyncio.get_running_loop().time() + timeout

        async def raise_all(store: RedisStore) -> int:
            names = await store.client.command(timeout, "SMEMBERS", self._keys.roles)
            existing = sorted(name.decode() for name in names)
            count = 0
            for members, create in ((existing, 0), (new, 1)):
                for start in range(0, max(len(members), 1), MAX_RAISED):
                    part = members[start : start + MAX_RAISED]
                    keys = [self._keys.meta, self._keys.roles, *map(self._keys.lease, part)]
                    remaining = max(deadline - asyncio.get_running_loop().time(), 0.001)
                    reply = await store.scripts.run(
                        scripts.RAISE_FLOOR, keys, [token, create, *part], remaining
                    )
                    if reply[0] == b"not set up":
                        raise errors.not_set_up(self._url)
                    count += int(reply[0])
            return count

        return await self._with_store(raise_all)


def admin(url: str) -> RedisAdmin:
    """Return the administration of the namespace of `url`. It does not connect.

    Raises:
        BadArgument: The URL is invalid. The message holds no password.
    """
    return RedisAdmin(parse_url(url))
