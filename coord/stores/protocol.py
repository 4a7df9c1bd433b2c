"""What a store must do: four small atomic operations on one row a role, a read, and a feed of
hints.

A store is driven from one asyncio loop. Swaps (`claim`, `renew`, `release`) never raise for
trouble: they answer with a `Failure` that says whether the request may have been applied (rule 8 in
`coord/core/election.py`). Reads raise `StoreUnavailable` or `StoreRefused`. Every call is bounded
by its `timeout` (seconds), connecting included, and a swap that was given up must not leave a
connection behind on which its late answer could be taken for another's.

`coord.testing.StoreContract` is the suite that a store must pass.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from coord.core.announcements import Announcement
from coord.core.history import PastTerm
from coord.core.lease import Lease
from coord.core.operations import Claim, Operation, Release, Renew, Result
from coord.core.records import Record, RecordWithRemaining


@runtime_checkable
class Store(Protocol):
    """One place where leases are kept. All times are in seconds."""

    @property
    def url(self) -> str:
        """The URL it was made from, with any password taken out."""

    @property
    def max_clock_skew(self) -> float | None:
        """How far the store's clock may be off, for takeover by that clock; None switches it off
        (rule 4)."""

    async def open(self, timeout: float) -> None:
        """Reach the store and see that it is usable. Raises `StoreUnavailable`, `NotSetUp` or
        `AccessDenied`."""

    async def claim(self, claim: Claim, timeout: float) -> Result:
        """One query. Applied or not, the answer carries the row as it stands after it."""

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        """One query for all of them (each for another role); the results are in the order of the
        requests.

        What the row says of its holder (`info`, `since`) may be missing in the answer to one that
        was applied."""

    async def release(self, release: Release, timeout: float) -> Result:
        """One query."""

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        """The rows of these roles that exist (None: of every role), as last committed, in any
        order. One query."""

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        """The terms that these roles' rows remember (None: of every role), newest first within a
        role. One query.

        They were written by the swaps themselves: see `coord/core/history.py`.
        """

    def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        """Rows of these roles (None: of every role, those that appear later, too): first all that
        exist, then each as it changes, as soon as possible.

        Only a hint: may lose, repeat or anticipate writes. But what it shows of a row is of one
        write, ttl included: a challenger may count a takeover from it. A feed that shows renewals
        too spares challengers their queries. Ends by raising `StoreUnavailable`; never ends
        otherwise until it is closed (`aclose`)."""

    async def close(self) -> None:
        """Let go of everything. Never raises, and takes no longer than a second."""

    def abandon(self) -> None:
        """In a forked child: forget every connection without touching it (rule 9)."""


@runtime_checkable
class Immediate(Protocol):
    """What a store may be able to do besides: send before anybody awaits. A handover does not wait
    for tasks then."""

    def begin(self, operation: Operation, timeout: float) -> Coroutine[Any, Any, Result] | None:
        """Send a claim, a release or one renewal in this very turn of the loop. What is returned
        must be awaited, and is its result, as of the method of that name; None: that cannot be done
        now, and nothing was sent."""


@runtime_checkable
class Bulk(Protocol):
    """What a store may be able to do besides: many swaps as one. Thousands of roles are claimed and
    given back in seconds then, whether a process starts, ends, or takes over from one that was
    killed."""

    async def swap_all(self, asked: Sequence[Claim | Release], timeout: float) -> Sequence[Result]:
        """As `claim` and `release` for each (each for another role), in a few queries however many
        they are; the results are in the order of the requests. Each row is swapped atomically, not
        all of them together."""


# -- What the board asks of a store: notices are written, read, told and taken away, many at once in
# one query. Nothing on the board ever decides who leads: the lease alone does. A board that is
# empty, old, wrong or out of reach costs people a sight of who waits, and a leader a hint; never a
# leadership. So writes need not survive a crash of the store, and one whose answer was lost may be
# repeated blindly: the last one counts. All methods are bounded by `timeout` (seconds), connecting
# included, and raise `StoreUnavailable` or `StoreRefused` (`NotSetUp` where an older coord set up
# the store and there is no board yet). Each is one query.
#


class Announcements(Protocol):
    """The board of one store. A notice runs out by the store's own clock, and from then on is not
    there."""

    async def post(self, notices: Sequence[Announcement], timeout: float) -> Mapping[str, int]:
        """Write these, each in place of what has its key. May take away a few that have run out, on
        the way.

        By role, how many candidates for it are on the board then (some may have run out; no more
        than `MAX_COUNTED` are counted), for up to `MAX_COUNTED_ROLES` of the roles of which
        candidates were posted."""

    async def withdraw(self, keys: Collection[str], timeout: float) -> None:
        """Take away the notices with these keys, those that are there."""

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Announcement]:
        """The notices about these roles (None: about every role), in any order."""

    def watch(self) -> AsyncIterator[Announcement]:
        """The urgent notices: first all that are there, then each when it is posted (anew, too), at
        once.

        Several posts under one key may come as one. Ends by raising `StoreUnavailable` (open it
        anew) or `StoreRefused`; never ends otherwise until it is closed (`aclose`)."""

    async def purge(self, timeout: float) -> int:
        """Delete all that have run out; how many. They are not seen either way: this is for the
        space they take."""


# -- What the service registry asks of a store: a handful of atomic operations on one record a
# service. The record is the ancestor's own (`doublethink.ServiceRegistry`): `id`, `role`, `load`,
# `ttl`, `host`, `pid`, `first_heartbeat`, `last_heartbeat`, and whatever else the service says. A
# keeper adds nothing to it. Times are the store's, and so is every judgement of health: a record is
# healthy while `store's now - last_heartbeat < ttl`. All methods raise `StoreUnavailable` or
# `StoreRefused`, and are bounded by `timeout` (seconds), connecting included. Each is one query.
#


class Records(Protocol):
    """One table of service records."""

    async def register(
        self, record: Mapping[str, Any], nonce: str, timeout: float
    ) -> Record | None:
        """Write the record, there or not, with `last_heartbeat` = now, and return it as stored.

        `first_heartbeat` is that of the record that was there, else the given one, else now. None
        when a `remove` with this `nonce` came first: this is a duplicate that the network delivered
        late."""

    async def refresh(self, record: Mapping[str, Any], timeout: float) -> Record | None:
        """The same, but only where the record exists; None where it does not. A late duplicate
        revives nothing."""

    async def remove(self, key: str | int, nonce: str | None, timeout: float) -> bool:
        """Delete the record; whether there was one.

        With a `nonce` it leaves a mark that refuses a registration with that nonce, should one
        still be under way, and that `purge` takes away later. Lookups do not see the mark."""

    async def least_loaded(self, role: str, timeout: float) -> Record | None:
        """The healthy record of that role with the lowest load."""

    async def sample(self, role: str, count: int, timeout: float) -> list[Record]:
        """At most `count` healthy records of that role, drawn at random."""

    async def healthy(
        self, role: str | None, timeout: float, *, key: str | None = None
    ) -> list[Record]:
        """All the healthy records, of a role or of every role, in any order; with `key` only that
        id's."""

    async def list_all(self, role: str | None, timeout: float) -> list[RecordWithRemaining]:
        """The records of a role, or of every role, that can be judged, healthy or not."""

    async def purge(self, ttls: float, timeout: float) -> int:
        """Delete the records that have been silent for more than `ttls` of their own ttls; how
        many."""

    async def malformed(self, timeout: float) -> list[Record]:
        """The records that have a problem (`coord.core.records.problems`)."""

    async def publish(self, record: Mapping[str, Any], remaining: float, timeout: float) -> bool:
        """Write a leader's record, which runs out in `remaining` seconds, under its role as the id.

        Not over a living record that is not a published leader, nor over one with a higher `token`.
        Whether it was."""

    async def withdraw(self, role: str, token: int, timeout: float) -> bool:
        """Delete the published leader of that role, if it is of this `token` or a lower one."""

    def watch(self, role: str) -> AsyncIterator[None]:
        """A hint at once, and whenever a record of that role comes or goes; not for heartbeats.

        Hints may be lost or repeated. Ends by raising `StoreUnavailable` or when it is closed.
        """


@runtime_checkable
class HasAnnouncements(Protocol):
    """A store that keeps announcements, too: candidates are listed, and leaders hear requests."""

    def announcements(self) -> Announcements:
        """Return the announcements of this store. Makes no connection."""


@runtime_checkable
class HasRecords(Protocol):
    """A store that keeps service records, too."""

    def records(self, table: str) -> Records:
        """Return the service records in `table`. Makes no connection."""


# -- What operators need of a backend: `coord init` and `coord doctor`.

Level = Literal["ok", "warn", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that `coord doctor` checked.

    Attributes:
        level: How bad it is.
        what: What was checked.
        detail: What was found.
        advice: What to do; "" if nothing is to be done.
    """

    level: Level
    what: str
    detail: str
    advice: str = ""


class Admin(Protocol):
    """Sets up and checks the database behind one URL. Each backend brings its own
    (`admin(url)`)."""

    def exists(self) -> bool:
        """Return whether the database exists, so that looking at it does not create it."""

    async def setup(self, options: Mapping[str, Any], timeout: float) -> Sequence[str]:
        """Create what is missing; safe to repeat.

        Args:
            options: What the command line was given, by the name of the option; None where it was
            not given.
            timeout: Seconds that it may take.

        Returns:
            A line for each thing that was done, for people.

        Raises:
            BadArgument: The backend does not know an option that was given.
            StoreUnavailable: The database did not answer in time.
            StoreRefused: The database refused.
        """

    async def check(self, timeout: float) -> Sequence[Finding]:
        """Check the database, and say how to fix what is wrong."""

    async def raise_token_floor(self, floor: int, roles: Sequence[str], timeout: float) -> int:
        """Make every later token greater than `floor`, for all roles and for `roles`; how many rows
        it changed."""
