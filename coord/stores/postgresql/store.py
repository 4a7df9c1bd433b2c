"""`PostgreSQLStore`: leases in one table of a PostgreSQL database. Each swap is one query."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any, TypeVar

from coord.core import swaps
from coord.core.history import PastTerm, parse
from coord.core.kept import Kept
from coord.core.lease import Lease
from coord.core.operations import Answer, Claim, Failure, Override, Release, Renew, Result, Retire
from coord.errors import StoreRefused
from coord.stores.failures import RequestError
from coord.stores.postgresql import rows, schema
from coord.stores.postgresql.announcements import PostgreSQLAnnouncements
from coord.stores.postgresql.connection import Pool
from coord.stores.postgresql.feed import LeaseFeed
from coord.stores.postgresql.records import PostgreSQLRecords
from coord.stores.postgresql.url import PostgreSQLURL, parse_url

T = TypeVar("T")

MAX_RENEWALS = 2_000
"""Renewals in one query. More of them are sent as several queries at the same time."""
MAX_SWAPS = 500
"""Claims, or releases, in one transaction. Their rows are locked until it ends."""
NOTIFY_DELAY = 0.01
"""Seconds after a claim until others are notified. At once, that would delay the next requests."""
MAX_NOTIFIED = 50
"""Roles in one notification, which may have 8,000 bytes. With more, listeners read all rows."""
_APPLIED, _NO_TOKEN = 1, 2
"""Outcomes of the function `claim`."""


class PostgreSQLStore:
    """Leases in the schema `coord` of a PostgreSQL database.

    Implements `coord.stores.protocol.Store`, `Bulk`, `HasAnnouncements`, `HasRecords`,
    `HasKept`, `Overridable` and `Retirable`. Connects when it is first used.

    Args:
        url: The servers, the user and the database.
    """

    def __init__(self, url: PostgreSQLURL | str) -> None:
        self._url = parse_url(url) if isinstance(url, str) else url
        self._calls = schema.calls(self._url.schema)
        self.pool = Pool(self._url)
        self._reset()

    def _reset(self) -> None:
        self._changed: set[str] = set()
        self._notifying: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<PostgreSQLStore {self.url}>"

    @property
    def url(self) -> str:
        """The URL, with `***` for the password."""
        return self._url.redacted

    @property
    def max_clock_skew(self) -> float | None:
        """Seconds that the server's clock may be off; None switches takeover by it off."""
        return self._url.max_clock_skew

    def announcements(self) -> PostgreSQLAnnouncements:
        """Return the announcements of the same schema, on the same connections."""
        return PostgreSQLAnnouncements(self.pool)

    def records(self, table: str) -> PostgreSQLRecords:
        """Return the service records of the registry `table`, on the same connections."""
        return PostgreSQLRecords(self.pool, table)

    async def open(self, timeout: float) -> None:
        """Check that a server can be reached which takes writes, and that it is set up.

        Args:
            timeout: Seconds that it may take.

        Raises:
            NotSetUp: The functions of this version of coord are missing. Run `coord init`.
            AccessDenied: The password is wrong, or a grant is missing.
            StoreUnavailable: No server answered in time.
        """
        # An absent role that is held by nobody cannot be released, so this changes nothing. The
        # right to call the function is needed all the same.
        probe = rows.release_parameters(Release("", "", 0, 0))
        try:
            await self.pool.run(self._calls["release"], probe, timeout)
        except RequestError as error:
            raise error.error() from None

    async def claim(self, claim: Claim, timeout: float) -> Result:
        """Take a role; see `coord.core.operations.Claim`."""
        try:
            parameters = rows.claim_parameters(claim)
            (row,) = await self.pool.run(self._calls["claim"], parameters, timeout)
        except (RequestError, StoreRefused) as error:
            return _failure(error)
        return self._claimed(row, claim.role)

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        """Prolong leases; see `coord.core.operations.Renew`."""
        if len(renewals) <= MAX_RENEWALS:
            return await self._renew(renewals, timeout)
        batches = [
            renewals[start : start + MAX_RENEWALS]
            for start in range(0, len(renewals), MAX_RENEWALS)
        ]
        results = await asyncio.gather(*(self._renew(batch, timeout) for batch in batches))
        return [result for batch in results for result in batch]

    async def swap_all(self, swaps: Sequence[Claim | Release], timeout: float) -> Sequence[Result]:
        """Claim and release many roles at once; see `coord.stores.protocol.Bulk`."""
        claims = [swap for swap in swaps if isinstance(swap, Claim)]
        releases = [swap for swap in swaps if isinstance(swap, Release) and swap.keep is None]
        keeping = [swap for swap in swaps if isinstance(swap, Release) and swap.keep is not None]
        batches = [
            *(self._claim_all(part, timeout) for part in _parts(claims)),
            *(self._release_all(part, timeout) for part in _parts(releases)),
            *(self._release_all(part, timeout) for part in _parts(keeping)),  # these are synced
        ]
        by_role: dict[str, Result] = {}
        for results in await asyncio.gather(*batches):
            by_role |= results
        return [by_role[swap.role] for swap in swaps]

    async def release(self, release: Release, timeout: float) -> Result:
        """Give a role back; see `coord.core.operations.Release`."""
        try:
            parameters = rows.release_parameters(release)
            records = await self.pool.run(self._calls["release"], parameters, timeout)
        except (RequestError, StoreRefused) as error:
            return _failure(error)
        if not records:
            return Answer(False, Lease(release.role))
        (row,) = records
        return Answer(row["applied"], rows.lease(row, release.role))

    async def override(self, override: Override, timeout: float) -> Result:
        """Apply an operator's override; see `coord.stores.protocol.Overridable`."""
        try:
            parameters = rows.override_parameters(override)
            records = await self.pool.run(self._calls["override"], parameters, timeout)
        except (RequestError, StoreRefused) as error:
            return _failure(error)
        if not records:
            return Answer(False, Lease(override.role))
        (row,) = records
        if row["applied"]:
            self._notify(override.role)
        return Answer(row["applied"], rows.lease(row, override.role))

    async def retire(self, requests: Sequence[Retire], timeout: float) -> Sequence[bool]:
        """Delete rows that nobody needs, in one transaction; see `protocol.Retirable.retire`."""
        try:
            parameters = rows.retire_parameters(requests)
            records = await self.pool.run(self._calls["retire"], parameters, timeout)
        except RequestError as error:
            raise error.error() from None
        deleted = {row["role"] for row in records}
        return [request.role in deleted for request in requests]

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        """Return the leases of these roles; None means every role."""
        records = await self._read("read", roles, timeout)
        return [rows.lease(row, row["role"]) for row in records]

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        """Return the terms that the rows of these roles remember; None means every role."""
        rows = await self._read("past", roles, timeout)
        return [term for row in rows for term in parse(row["role"], row["history"])]

    async def kept(self, role: str, timeout: float) -> Kept:
        """Return the text that the role keeps; see `coord.stores.protocol.HasKept`."""
        try:
            records = await self.pool.run(self._calls["kept"], (role,), timeout)
        except RequestError as error:
            raise error.error() from None
        return Kept(records[0]["token"], records[0]["content"]) if records else Kept(0, "")

    async def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        """Yield the leases of these roles: first all that exist, then each change.

        Raises:
            StoreUnavailable: The feed broke off. Open a new one.
        """
        feed = LeaseFeed(self.pool, None if roles is None else sorted(set(roles)))
        async with contextlib.aclosing(feed.items()) as changes:
            async for lease in changes:
                yield lease

    async def close(self) -> None:
        """Close all connections."""
        notifying, self._notifying = self._notifying, None
        if notifying is not None and notifying.get_loop() is asyncio.get_running_loop():
            notifying.cancel()
            await asyncio.gather(notifying, return_exceptions=True)
        self._reset()
        await self.pool.close()

    def abandon(self) -> None:
        """Forget all connections in a forked child (rule 9)."""
        self.pool.abandon()
        self._reset()

    async def _claim_all(self, claims: Sequence[Claim], timeout: float) -> dict[str, Result]:
        parameters = rows.in_columns([rows.claim_parameters(claim) for claim in claims])
        try:
            records = await self.pool.run(self._calls["claim_all"], parameters, timeout)
        except (RequestError, StoreRefused) as error:
            return dict.fromkeys((claim.role for claim in claims), _failure(error))
        return {row["role"]: self._claimed(row, row["role"]) for row in records}

    async def _release_all(self, releases: Sequence[Release], timeout: float) -> dict[str, Result]:
        parameters = rows.in_columns([rows.release_parameters(release) for release in releases])
        try:
            records = await self.pool.run(self._calls["release_all"], parameters, timeout)
        except (RequestError, StoreRefused) as error:
            return dict.fromkeys((release.role for release in releases), _failure(error))
        results: dict[str, Result] = {
            release.role: Answer(False, Lease(release.role)) for release in releases
        }
        for row in records:
            results[row["role"]] = Answer(row["applied"], rows.lease(row, row["role"]))
        return results

    def _claimed(self, row: Any, role: str) -> Result:
        if row["outcome"] == _NO_TOKEN:
            return Failure(unknown=False, detail="the token is at its end", refusal=StoreRefused)
        if row["outcome"] == _APPLIED:
            self._notify(role)
        return Answer(row["outcome"] == _APPLIED, rows.lease(row, role))

    async def _read(self, name: str, roles: Collection[str] | None, timeout: float) -> Any:
        names = None if roles is None else sorted(set(roles))
        if names == []:
            return []
        try:
            return await self.pool.run(self._calls[name], (names,), timeout)
        except RequestError as error:
            raise error.error() from None

    async def _renew(self, renewals: Sequence[Renew], timeout: float) -> list[Result]:
        try:
            parameters = rows.renew_parameters(renewals)
            records = await self.pool.run(self._calls["renew"], parameters, timeout)
        except (RequestError, StoreRefused) as error:
            return [_failure(error)] * len(renewals)
        for renewal in renewals:
            if renewal.info is not None:
                # A feed must show it. If it was refused, a hint is harmless.
                self._notify(renewal.role)
        if records and records[0]["role"] is None:  # all were applied as they were asked for
            leases = swaps.unchanged_but_renewed(renewals, records[0]["renewed_at"])
            return [Answer(True, lease) for lease in leases]
        by_role = {
            row["role"]: Answer(row["applied"], rows.lease(row, row["role"])) for row in records
        }
        return [
            by_role.get(renewal.role, Answer(False, Lease(renewal.role))) for renewal in renewals
        ]

    def _notify(self, role: str) -> None:
        """Tell the feeds of other processes about a role, together with those that follow."""
        self._changed.add(role)
        if self._notifying is None or self._notifying.done():
            self._notifying = asyncio.get_running_loop().create_task(
                self._notify_later(), name="coord postgresql notify"
            )

    async def _notify_later(self) -> None:
        while self._changed:
            await asyncio.sleep(NOTIFY_DELAY)
            changed, self._changed = self._changed, set()
            payload = schema.payload(sorted(changed) if len(changed) <= MAX_NOTIFIED else None)
            # A notification is a hint. Feeds also read their rows now and then.
            with contextlib.suppress(RequestError, StoreRefused):
                channel = schema.channel(self._url.schema)
                await self.pool.run("SELECT pg_notify($1, $2)", (channel, payload), 1.0)


def _parts(swaps: Sequence[T]) -> list[Sequence[T]]:
    return [swaps[start : start + MAX_SWAPS] for start in range(0, len(swaps), MAX_SWAPS)]


def _failure(error: RequestError | StoreRefused) -> Failure:
    return error.failure() if isinstance(error, RequestError) else Failure.of_refusal(error)


def open_url(url: str) -> PostgreSQLStore:
    """Return the store that `url` means. Makes no connection.

    Raises:
        BadArgument: The URL is invalid. The message holds no password.
    """
    return PostgreSQLStore(parse_url(url))
