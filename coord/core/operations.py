"""The requests of a candidate to a store, and the results: plain values, so that the core needs no
store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Union

from coord.core.lease import MIN_TTL, Lease, Revision
from coord.errors import StoreRefused, StoreUnavailable, with_message

MAX_OVERRIDE_BEAT = 2**40
"""The largest beat of an override. Every store and every JSON parser keeps it exactly."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Take the role, in one atomic step (rule 1).

    The store applies it if the row is at `expected` (or nothing is expected) **and** one of these
    is true: the role is vacant; this candidate holds it already, with a lower beat; `takeover` is
    set; or `skew` is a number and the lease expired more than so many seconds ago by the store's
    clock (rule 4). It never applies it to a paused role (rule 11). The new token is
    `max(token of the row, floor) + 1`.

    Attributes:
        role: The role.
        holder: The id of the candidate.
        beat: The number of this request, for the new row.
        ttl: The duration of the lease after this claim, in seconds.
        expected: The revision that the row must be at; None for a first claim, which expects none.
        takeover: Whether the candidate has observed `expected` for the whole ttl of the row.
        skew: How far the store's clock may be off, in seconds; None means that the store's clock
            does not decide.
        floor: The highest token that the candidate knows of.
        info: What the candidate says about itself.
        lost: The token of the candidate's last term, and why it ended, for the history
            (`coord/core/history.py`).
    """

    role: str
    holder: str
    beat: int
    ttl: float
    expected: Revision | None = None
    takeover: bool = False
    skew: float | None = None
    floor: int = 0
    info: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)
    lost: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Renew:
    """Prolong the lease (rule 2).

    The store applies it if `holder` and `token` are those of the row and `beat` is higher. It never
    shortens a lease.

    Attributes:
        role: The role.
        holder: The id of the candidate.
        token: The token of its term.
        beat: The number of this request.
        ttl: The duration of the lease after this renewal, in seconds.
        info: What the holder says about itself from now on; None keeps the info of the row.
        keep: The text that the row keeps from now on, also under later holders
            (`coord/core/kept.py`); None leaves the kept text as it is.
    """

    role: str
    holder: str
    token: int
    beat: int
    ttl: float
    info: Mapping[str, Any] | None = field(default=None, hash=False, compare=False)
    keep: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Release:
    """Give the role back (rule 3). The row keeps its token.

    The store applies it if `holder` and `token` are those of the row and `beat` is higher.

    Attributes:
        role: The role.
        holder: The id of the candidate.
        token: The token of its term.
        beat: The number of this request.
        linger: Seconds for which nobody else gets the role. The row keeps its holder for so long,
            who cannot renew any longer.
        to: The id of a candidate for which the role is reserved for `linger` seconds. The row names
            this candidate with beat 0, and it may claim at once (rule 8).
        reason: Why the term ends, for the history.
        by: Who requested it, for the history.
        keep: The text that the row keeps from now on, as in `Renew`.
    """

    role: str
    holder: str
    token: int
    beat: int
    linger: float = 0.0
    to: str | None = None
    reason: str = "released"
    by: str = ""
    keep: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Override:
    """Give the row to a holder that no candidate is, for an operator (rule 11).

    `REVOKED` takes the lease away from its holder; `PAUSED` keeps every candidate from the role,
    until another override replaces it by `REVOKED`. The store applies it if the row is at
    `expected`. The row keeps its token. If it has a holder, it also keeps its ttl and the time that
    remains, because that holder may still lead; otherwise both become `ttl`.

    Attributes:
        role: The role.
        expected: The revision that the row must be at; that of an empty lease if there is no row.
        holder: The new holder: `REVOKED` or `PAUSED`.
        beat: A random number from 1 to `MAX_OVERRIDE_BEAT`, so that no two overrides result in the
            same revision.
        ttl: Seconds for which the row of a vacant role is watched before a candidate takes it.
        info: The info of the new row: who requested it.
        reason: Why a term ends by this, for the history.
        by: Who requested it, for the history.
    """

    role: str
    expected: Revision
    holder: str
    beat: int
    ttl: float = MIN_TTL
    info: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)
    reason: str = "evicted"
    by: str = ""


class Retire(NamedTuple):
    """Delete the row of a role that nobody needs any longer (rule 12).

    The store applies it if the row is vacant, is at `expected`, was written before `before` and
    keeps no text. In the same atomic step it raises a floor to the token of the row, either that of
    `prefix` or one of this role alone. The token of a role without a row begins above all its
    floors.

    Attributes:
        role: The role.
        prefix: What the names of the roles begin with that are retired together; "" for all roles.
        expected: The revision that the row must be at.
        before: Wall time in seconds since 1970.
    """

    role: str
    prefix: str
    expected: Revision
    before: float


class Read(NamedTuple):
    """Read the row of a role, up to date."""

    role: str


Operation = Union[Claim, Renew, Release, Read]
"""What a candidate sends. An `Override` is not among them: only operators send it."""


class Answer(NamedTuple):
    """The answer of the store.

    Attributes:
        applied: Whether the request changed the row.
        lease: The row after the request.
    """

    applied: bool
    lease: Lease


class Failure(NamedTuple):
    """There is no answer.

    Attributes:
        unknown: Whether the request was sent: it may have been applied, or may be applied at any
            later time (rule 8).
        detail: The reason, for people, without secrets.
        refusal: The exception to raise if the store was reached and refuses, because of rights or
            its setup: `StoreRefused` or a subclass. Trying again does not help. None if it may.
    """

    unknown: bool
    detail: str = ""
    refusal: type[StoreRefused] | None = None

    @classmethod
    def of_refusal(cls, error: StoreRefused) -> Failure:
        """Return the result of a request that was not applied, because the store refuses it."""
        return cls(unknown=False, detail=str(error), refusal=type(error))

    @property
    def permanent(self) -> bool:
        """Whether the store refuses, so that trying again does not help."""
        return self.refusal is not None

    def error(self) -> StoreRefused | StoreUnavailable:
        """Return the exception for a caller who waits for the answer."""
        if self.refusal is None:
            return StoreUnavailable(self.detail)
        return with_message(self.refusal, self.detail)


Result = Union[Answer, Failure]
