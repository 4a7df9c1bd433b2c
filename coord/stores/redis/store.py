"""`RedisStore`: leases in one namespace of a Redis or Valkey server. Each swap is one script."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncIterator, Collection, Sequence
from typing import TYPE_CHECKING

from coord.core.history import PastTerm
from coord.core.kept import Kept
from coord.core.lease import Lease
from coord.core.operations import Claim, Override, Release, Renew, Result, Retire
from coord.errors import StoreRefused
from coord.stores.failures import RequestError
from coord.stores.redis import errors, rows, scripts
from coord.stores.redis.connection import Call, Client, Scripts
from coord.stores.redis.feed import SUBSCRIBED, subscribe
from coord.stores.redis.rows import Keys
from coord.stores.redis.url import RedisURL, parse_url

if TYPE_CHECKING:
    from coord.stores.redis.announcements import RedisAnnouncements
    from coord.stores.redis.records import RedisRecords

MAX_RENEWALS = 500
"""Renewals in one script. The server serves nobody else while it runs, for 15 to 40 ms."""
READ_TIMEOUT = 10.0
"""Seconds that the first rows of a feed may take."""
MAX_READS = 1_000
"""Leases that one script reads."""


class RedisStore:
    """Leases in one namespace of a Redis or Valkey server.

    Implements `coord.stores.protocol.Store`, and `Bulk`, `HasAnnouncements`, `HasRecords`,
    `HasKept`, `Overridable` and `Retirable`.
    Connects when it is first used.

    Args:
        url: The server or the sentinels, the user and the namespace.
    """

    def __init__(self, url: RedisURL | str) -> None:
        self._url = parse_url(url) if isinstance(url, str) else url
        self._keys = Keys(self._url)
        self.client = Client(self._url)
        self.scripts = Scripts(self.client)
        self._announcements: RedisAnnouncements | None = None
        self._records: dict[str, RedisRecords] = {}

    def __repr__(self) -> str:
        return f"<RedisStore {self.url}>"

    @property
    def url(self) -> str:
        """The URL, with `***` for the password."""
        return self._url.redacted

    @property
    def max_clock_skew(self) -> float | None:
        """Seconds that the server's clock may be off; None switches takeover by it off."""
        return self._url.max_clock_skew

    async def open(self, timeout: float) -> None:
        """Connect, and check that the namespace exists. See `protocol.Store.open`."""
        await self.read(["coord"], timeout)

    async def claim(self, claim: Claim, timeout: float) -> Result:
        """Apply one claim. See `protocol.Store.claim`."""
        return await self._swap(claim, timeout)

    async def release(self, release: Release, timeout: float) -> Result:
        """Apply one release. See `protocol.Store.release`."""
        return await self._swap(release, timeout)

    async def override(self, override: Override, timeout: float) -> Result:
        """Apply one override. See `protocol.Overridable.override`."""
        return await self._swap(override, timeout)

    async def retire(self, requests: Sequence[Retire], timeout: float) -> Sequence[bool]:
        """Delete rows that nobody needs. See `protocol.Retirable.retire`."""
        if not requests:
            return []
        words = rows.retire_words(self._keys, requests)
        try:
            reply = await self.scripts.run(scripts.RETIRE, *words, timeout)
            if rows.refused(reply):
                raise errors.not_set_up(self._url)
        except RequestError as err:
            raise err.error() from None
        return [bool(deleted) for deleted in reply]

    async def _swap(self, swap: Claim | Override | Release, timeout: float) -> Result:
        return (await self._swap_each([swap], timeout))[0]

    async def _swap_each(
        self, swaps: Sequence[Claim | Override | Release], timeout: float
    ) -> list[Result]:
        replies = await self.scripts.run_each([self._call(swap) for swap in swaps], timeout)
        return [
            reply.failure()
            if isinstance(reply, RequestError)
            else rows.result(self._url, swap.role, reply)
            for swap, reply in zip(swaps, replies, strict=True)
        ]

    def _call(self, swap: Claim | Override | Release) -> Call:
        if isinstance(swap, Claim):
            return scripts.CLAIM, *rows.claim_words(self._keys, swap)
        if isinstance(swap, Override):
            return scripts.OVERRIDE, *rows.override_words(self._keys, swap)
        return scripts.RELEASE, *rows.release_words(self._keys, swap)

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        """Apply renewals. See `protocol.Store.renew`."""
        if len(renewals) <= MAX_RENEWALS:
            return await self._renew(renewals, timeout)
        parts = [
            renewals[start : start + MAX_RENEWALS]
            for start in range(0, len(renewals), MAX_RENEWALS)
        ]
        results = await asyncio.gather(*(self._renew(part, timeout) for part in parts))
        return [result for part in results for result in part]

    async def _renew(self, renewals: Sequence[Renew], timeout: float) -> list[Result]:
        words = rows.renew_words(self._keys, renewals)
        try:
            replies = await self.scripts.run(scripts.RENEW, *words, timeout)
        except RequestError as err:
            return rows.failure(err, len(renewals))
        if rows.refused(replies):
            return rows.failure(errors.not_set_up(self._url), len(renewals))
        return [
            rows.result(self._url, renewal.role, reply)
            for renewal, reply in zip(renewals, replies, strict=True)
        ]

    async def swap_all(self, swaps: Sequence[Claim | Release], timeout: float) -> Sequence[Result]:
        """Apply claims and releases, sent together. See `protocol.Bulk`."""
        return await self._swap_each(swaps, timeout) if swaps else []

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        """Return the leases of `roles` (None: of every role). See `protocol.Store.read`."""
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            names = await self._all_roles(timeout) if roles is None else sorted(set(roles))
            leases: list[Lease] = []
            for start in range(0, len(names), MAX_READS):
                remaining = max(deadline - asyncio.get_running_loop().time(), 0.001)
                leases += await self._read(names[start : start + MAX_READS], remaining)
        except RequestError as err:
            raise err.error() from None
        return leases

    async def _read(self, roles: Sequence[str], timeout: float) -> list[Lease]:
        keys = [self._keys.meta, *(self._keys.lease(role) for role in roles)]
        replies = await self.scripts.run(scripts.READ, keys, [], timeout)
        if rows.refused(replies):
            raise errors.not_set_up(self._url)
        return [
            rows.decode(self._url, role, reply)[1]
            for role, reply in zip(roles, replies, strict=True)
            if reply is not None
        ]

    async def _all_roles(self, timeout: float) -> list[str]:
        exists, names = await self.client.pipeline(
            timeout, [("EXISTS", self._keys.meta), ("SMEMBERS", self._keys.roles)]
        )
        if not exists:
            raise errors.not_set_up(self._url)
        return sorted(name.decode() for name in names)

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        """Return the terms in the history of `roles`. See `protocol.Store.past`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        try:
            names = await self._all_roles(timeout) if roles is None else sorted(set(roles))
            if not names:
                return []
            commands = [("LRANGE", self._keys.history(role), 0, -1) for role in names]
            histories = await self.client.pipeline(max(deadline - loop.time(), 0.001), commands)
        except RequestError as err:
            raise err.error() from None
        return [
            term
            for role, entries in zip(names, histories, strict=True)
            for term in rows.terms(role, entries)
        ]

    async def kept(self, role: str, timeout: float) -> Kept:
        """Return the text that `role` keeps. See `protocol.HasKept.kept`."""
        keys = [self._keys.meta, self._keys.lease(role)]
        try:
            return rows.kept(
                self._url, role, await self.scripts.run(scripts.KEPT, keys, [], timeout)
            )
        except RequestError as err:
            raise err.error() from None

    async def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        """Yield the leases of `roles`, and again when one changes. See `protocol.Store.watch`."""
        channels = None if roles is None else [self._keys.channel(role) for role in roles]
        feed = subscribe(self.client, channels, self._keys.all_channels)
        try:
            async with contextlib.aclosing(feed):
                async for payload in feed:
                    if payload == SUBSCRIBED:  # nothing is missed from here on
                        for lease in await self.read(roles, READ_TIMEOUT):
                            yield lease
                    elif (changed := rows.message(payload)) is not None:
                        yield changed
        except RequestError as err:
            raise err.error() from None

    def announcements(self) -> RedisAnnouncements:
        """Return the announcements of this store; always the same instance."""
        from coord.stores.redis.announcements import RedisAnnouncements  # many use leases only

        if self._announcements is None:
            self._announcements = RedisAnnouncements(self.scripts, self._url)
        return self._announcements

    def records(self, table: str) -> RedisRecords:
        """Return the service records in `table`; always the same instance for a table."""
        from coord.stores.redis.records import RedisRecords  # many use leases only

        if table not in self._records:
            self._records[table] = RedisRecords(self.scripts, self._url, table)
        return self._records[table]

    async def close(self) -> None:
        """Close all connections."""
        await self.client.close()

    def abandon(self) -> None:
        """Forget all connections, in a forked child."""
        self.client.abandon()


def open_url(url: str) -> RedisStore:
    """Return the store of `url`. It does not connect.

    Raises:
        BadArgument: The URL is invalid. The message holds no password.
        StoreRefused: The package redis is not installed.
    """
    if importlib.util.find_spec("redis") is None:
        raise StoreRefused("the package redis is not installed; run: pip install 'coord[redis]'")
    return RedisStore(parse_url(url))
