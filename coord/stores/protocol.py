"""What a store must do: atomic operations on one row per role, reads, and a feed of hints.

A store is driven from one asyncio loop. Swaps (`claim`, `renew`, `release`) do not raise when the
database fails: they return a `Failure` that says whether the request may have been applied (rule 8
in `coord/core/election.py`). Reads raise `StoreUnavailable` or `StoreRefused`. Every call takes at
most `timeout` seconds, the time to connect included. After a swap that timed out, its connection is
not used again, since the late answer could be taken for the answer to another request.

A store may also keep announcements (`HasAnnouncements`), service records (`HasRecords`) and a text
for each role (`HasKept`), send a request before anybody awaits it (`Immediate`), apply many swaps
in one query (`Bulk`), and let operators revoke leases and pause roles (`Overridable`).

`coord.testing.StoreContract` is the test suite that a store must pass.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from coord.core.announcements import Announcement
from coord.core.history import PastTerm
from coord.core.kept import Kept
from coord.core.lease import Lease
from coord.core.operations import Claim, Operation, Override, Release, Renew, Result, Retire
from coord.core.records import Record, RecordWithRemaining


@runtime_checkable
class Store(Protocol):
    """A database table with one lease per role. All times are in seconds."""

    @property
    def url(self) -> str:
        """The URL of the store, without its password."""

    @property
    def max_clock_skew(self) -> float | None:
        """How far the store's clock may be off, in seconds.

        A candidate takes a lease over without watching it once the lease expired more than this
        long ago by the store's clock (rule 4). None: the store has no clock that all candidates
        share, or it must not be used. coord then sends no claim with a `skew`, and
        `Lease.remaining` is for people only: at most the ttl, and 0 for a vacant role.
        """

    async def open(self, timeout: float) -> None:
        """Connect, and check that the store can be used.

        Raises:
            StoreUnavailable: The store did not answer in time.
            NotSetUp: The tables are missing or not safe to use.
            AccessDenied: The store denies access.
        """

    async def claim(self, claim: Claim, timeout: float) -> Result:
        """Apply one claim, in one query.

        Returns:
            The answer with the row as it is afterwards, whether the claim was applied or not.
        """

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        """Apply renewals of different roles, in one query.

        Returns:
            The results in the order of `renewals`. The row of an applied renewal may lack `info`
            and `since`.
        """

    async def release(self, release: Release, timeout: float) -> Result:
        """Apply one release, in one query."""

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        """Return the committed rows of `roles` (None: of every role) that exist, in one query.

        Raises:
            StoreUnavailable: The store did not answer in time.
            StoreRefused: The store is not set up, denies access, or holds a row that is not a
                lease.
        """

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        """Return the terms in the history of `roles` (None: of every role), in one query.

        The terms of a role come newest first. The swaps themselves write them: see
        `coord/core/history.py`. Raises as `read`.
        """

    def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        """Yield the rows of `roles` that exist, then each row as soon as it changes.

        Rows are hints: a feed may lose, repeat or anticipate writes. But each row that it yields is
        one that was written, ttl included, since a candidate may count a takeover from it. Renewals
        may be left out, except those that carry `info`: such a row comes as soon as any other
        change, with its info. So does the row of a claim. Other rows may lack the info.

        Args:
            roles: The roles to watch; None means every role, including those that appear later.

        Raises:
            StoreUnavailable: The feed broke. It does not end in any other way until it is closed
                (`aclose`).
        """

    async def close(self) -> None:
        """Free everything, within a second. It does not raise."""

    def abandon(self) -> None:
        """Forget every connection without using it, in a forked child (rule 9)."""


@runtime_checkable
class Immediate(Protocol):
    """A store that can send a request at once, so that a handover does not wait for tasks."""

    def begin(self, operation: Operation, timeout: float) -> Coroutine[Any, Any, Result] | None:
        """Send a claim, a release or one renewal before the caller returns to the event loop.

        Returns:
            A coroutine that must be awaited and returns the result; None if nothing was sent.
        """


@runtime_checkable
class Bulk(Protocol):
    """A store that can apply many swaps together.

    A process then claims or releases thousands of roles in seconds.
    """

    async def swap_all(self, swaps: Sequence[Claim | Release], timeout: float) -> Sequence[Result]:
        """Apply claims and releases of different roles, in a few queries for any number of them.

        Each row is swapped atomically, but not all rows together.

        Returns:
            The results in the order of `swaps`, as `claim` and `release` return them.
        """


@runtime_checkable
class PolledFeed(Protocol):
    """A store whose feed looks at the database now and then, because nothing is pushed to it."""

    @property
    def feed_interval(self) -> float:
        """Seconds within which the feed usually shows a change."""


@runtime_checkable
class Overridable(Protocol):
    """A store in which operators can revoke leases and pause roles (rule 11).

    Its `claim` refuses every claim of a paused role. A store without this ability has no paused
    roles.
    """

    async def override(self, override: Override, timeout: float) -> Result:
        """Apply one override, in one query, as durably as a claim.

        Returns:
            The answer with the row as it is afterwards, whether the override was applied or not.
        """


@runtime_checkable
class Retirable(Protocol):
    """A store that can delete the rows of roles that nobody needs any longer (rule 12).

    It keeps a floor, which only rises: the highest token of the rows that were deleted. Whether
    each prefix that roles were retired under has a floor, each role or all roles together, is up to
    the store. A claim of a role without a row gets a token above the floors that count for the
    role, and it reads them in the step that creates the row.
    """

    async def retire(self, requests: Sequence[Retire], timeout: float) -> Sequence[bool]:
        """Delete rows of different roles, each in one atomic step with the raise of its floor.

        Returns:
            Whether each row was deleted, in the order of `requests`.

        Raises:
            StoreUnavailable: The store did not answer in time. Rows may have been deleted.
            StoreRefused: The store denies access.
        """


class Announcements(Protocol):
    """The announcements in one store: which candidates wait, and what operators request.

    They never decide who leads. If they are lost, old or out of reach, people do not see who waits,
    and a leader misses a request; no leadership ends. So writes need not survive a crash of the
    store, and a write whose answer was lost may be repeated. An announcement expires by the store's
    clock. Each method is one query, takes at most `timeout` seconds, and raises `StoreUnavailable`
    or `StoreRefused` (`NotSetUp` where there is no table for announcements).
    """

    async def post(self, notices: Sequence[Announcement], timeout: float) -> Mapping[str, int]:
        """Write announcements; each replaces the one with its key. May delete expired ones.

        Returns:
            How many candidates are announced for each role of a candidate in `notices`: for at most
            `MAX_COUNTED_ROLES` roles, counted up to `MAX_COUNTED`. Expired ones may be included.
        """

    async def withdraw(self, keys: Collection[str], timeout: float) -> None:
        """Delete the announcements with these keys, if they exist."""

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Announcement]:
        """Return the announcements about `roles` (None: about every role), in any order."""

    def watch(self) -> AsyncIterator[Announcement]:
        """Yield the urgent announcements that exist, then each one when it is posted.

        Several posts under one key may arrive as one.

        Raises:
            StoreUnavailable: The feed broke.
            StoreRefused: There are no announcements, or the store denies access. The feed does not
                end in any other way until it is closed (`aclose`).
        """

    async def purge(self, timeout: float) -> int:
        """Delete the expired announcements, which nobody sees, to free their space.

        Returns:
            How many were deleted.
        """


class Records(Protocol):
    """One table of service records.

    The record is that of `doublethink.ServiceRegistry`: `id`, `role`, `load`, `ttl`, `host`, `pid`,
    `first_heartbeat`, `last_heartbeat`, and any other fields of the service. A store adds none.
    Times are the store's, and the store judges health: a record is healthy while
    `now - last_heartbeat < ttl`. Each method is one query, takes at most `timeout` seconds, and
    raises `StoreUnavailable` or `StoreRefused`.
    """

    async def register(
        self, record: Mapping[str, Any], nonce: str, timeout: float
    ) -> Record | None:
        """Write a record, whether it exists or not, with `last_heartbeat` = now.

        `first_heartbeat` is that of the existing record, otherwise the given one, otherwise now.

        Returns:
            The record as stored; None if a `remove` with this `nonce` came first, so that this is a
            duplicate that arrived late.
        """

    async def refresh(self, record: Mapping[str, Any], timeout: float) -> Record | None:
        """Write a record as `register` does, if it exists. A late duplicate restores nothing.

        Returns:
            The record as stored; None if it does not exist.
        """

    async def remove(self, key: str | int, nonce: str | None, timeout: float) -> bool:
        """Delete a record.

        Args:
            key: The id of the record.
            nonce: The nonce of a registration that may still arrive. The store keeps a tombstone
                that refuses it; lookups do not return the tombstone, and `purge` deletes it later.
                None: keep no tombstone.
            timeout: Seconds that the query may take.

        Returns:
            Whether the record existed.
        """

    async def least_loaded(self, role: str, timeout: float) -> Record | None:
        """Return the healthy record of `role` with the lowest load; None if there is none."""

    async def sample(self, role: str, count: int, timeout: float) -> list[Record]:
        """Return at most `count` healthy records of `role`, drawn at random."""

    async def healthy(
        self, role: str | None, timeout: float, *, key: str | None = None
    ) -> list[Record]:
        """Return the healthy records of `role` (None: of every role), in any order.

        With `key`, return only the record with that id.
        """

    async def list_all(self, role: str | None, timeout: float) -> list[RecordWithRemaining]:
        """Return the records of `role` (None: of every role), healthy or not.

        Malformed records are left out.
        """

    async def purge(self, ttls: float, timeout: float) -> int:
        """Delete the records without a heartbeat for more than `ttls` of their own ttls.

        Returns:
            How many were deleted.
        """

    async def malformed(self, timeout: float) -> list[Record]:
        """Return the malformed records (`coord.core.records.problems`)."""

    async def publish(self, record: Mapping[str, Any], remaining: float, timeout: float) -> bool:
        """Write the record of a leader, which expires in `remaining` seconds, under its role as id.

        It does not replace the healthy record of a service, nor that of a leader with a higher
        `token`.

        Returns:
            Whether it was written.
        """

    async def withdraw(self, role: str, token: int, timeout: float) -> bool:
        """Delete the record of a leader of `role` with this `token` or a lower one.

        Returns:
            Whether it was deleted.
        """

    def watch(self, role: str) -> AsyncIterator[None]:
        """Yield at once, and whenever a record of `role` appears or disappears.

        These are hints, which may be lost or repeated. Heartbeats yield nothing.

        Raises:
            StoreUnavailable: The feed broke. It does not end in any other way until it is closed.
        """


@runtime_checkable
class HasAnnouncements(Protocol):
    """A store with announcements: candidates are listed, and leaders receive requests."""

    def announcements(self) -> Announcements:
        """Return the announcements of this store. Makes no connection."""


@runtime_checkable
class HasRecords(Protocol):
    """A store with service records."""

    def records(self, table: str) -> Records:
        """Return the service records in `table`. Makes no connection."""


@runtime_checkable
class HasKept(Protocol):
    """A store that keeps a text for each role. The text outlives the terms of the role.

    A renewal or a release with `keep` replaces the text, in the same atomic step as the rest of the
    row: a refused request leaves it alone, so nobody writes it under an older token. Nothing else
    changes the text, neither a claim, nor the end of a lease, nor a raised token floor. The write
    is as durable as a claim before it is answered. Reads, feeds and answers never carry the text.
    It has at most `coord.core.kept.MAX_KEPT_BYTES` bytes of UTF-8, and no NUL. coord sends `keep`
    only to stores that have this method.
    """

    async def kept(self, role: str, timeout: float) -> Kept:
        """Return the text that the row of `role` keeps, and the token of the row, up to date.

        Raises:
            StoreUnavailable: The store did not answer in time.
            StoreRefused: As `Store.read`.
        """


Level = Literal["ok", "warn", "error"]


class Finding(NamedTuple):
    """One thing that `coord doctor` checked.

    Attributes:
        level: "ok", "warn" or "error".
        what: What was checked.
        detail: What the check showed.
        advice: What to do; "" if there is nothing to do.
    """

    level: Level
    what: str
    detail: str
    advice: str = ""


class Admin(Protocol):
    """Sets up and checks the database of one URL: `coord init` and `coord doctor`.

    The function `admin(url)` of a backend returns it.
    """

    def exists(self) -> bool:
        """Return whether the database exists, so that looking at it does not create it."""

    async def setup(self, options: Mapping[str, Any], timeout: float) -> Sequence[str]:
        """Create what is missing; safe to repeat.

        Args:
            options: The values of the command line's options, by their names; None for an option
                that was not given.
            timeout: Seconds that it may take.

        Returns:
            A line of text for each change.

        Raises:
            BadArgument: The backend does not know an option that was given.
            StoreUnavailable: The database did not answer in time.
            StoreRefused: The database refused.
        """

    async def check(self, timeout: float) -> Sequence[Finding]:
        """Check the database, and return what is wrong with it and how to fix that."""

    async def raise_token_floor(self, floor: int, roles: Sequence[str], timeout: float) -> int:
        """Make every later token greater than `floor`, for all roles that exist and for `roles`.

        Returns:
            How many rows changed.
        """
