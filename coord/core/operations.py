"""What a candidate asks of a store, and what can come back: plain values, so that the core needs no
store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Union

from coord.core.lease import Lease, Revision


@dataclass(frozen=True, slots=True)
class Claim:
    """Take the role, atomically (rule 1): `token = max(token, floor) + 1`, `holder`, `beat`, `ttl`
    and `info` are set.

    Applied when the row is `expected` (or nothing is expected: a first claim) **and** the lease is
    vacant, or held by this very candidate with an older beat, or `takeover` (the candidate saw
    `expected` for the row's whole ttl on its own clock), or `skew` is a number and the lease ran
    out more than that many seconds ago by the store's clock (rule 4). `lost` is this candidate's
    last term and why it ended, for the history (`coord/core/history.py`)."""

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
    """Prolong (rule 2): only where `holder` and `token` are mine and `beat` is new; never shortens,
    never revives.

    `info` replaces what the row says about the holder, when it is given.
    """

    role: str
    holder: str
    token: int
    beat: int
    ttl: float
    info: Mapping[str, Any] | None = field(default=None, hash=False, compare=False)


@dataclass(frozen=True, slots=True)
class Release:
    """Give back (rule 3): only where `holder` and `token` are mine; the row keeps its token.

    With `linger` above 0 the holder stays in the row for that many seconds more and cannot renew:
    the role is to rest for so long before it passes on.

    With `to`, another candidate's id, it is that one who stands in the row for the `linger`
    seconds, with beat 0: it may claim at once, for the row names it (rule 8), and the others only
    when that time is over. `reason` and `by` (who asked) go into the history."""

    role: str
    holder: str
    token: int
    beat: int
    linger: float = 0.0
    to: str | None = None
    reason: str = "released"
    by: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """Read the row of a role, up to date."""

    role: str


Operation = Union[Claim, Renew, Release, Read]


@dataclass(frozen=True, slots=True)
class Answer:
    """The store's own word: whether the operation changed the row, and the row as it stands after
    it."""

    applied: bool
    lease: Lease


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer. `unknown`: it was sent, and may have been applied or may yet be, at any later time
    (rule 8).

    `permanent`: the store was reached and refuses (rights, set-up); it will not mend by itself.
    `detail` is for people, and holds no secrets."""

    unknown: bool
    detail: str = ""
    permanent: bool = False


Result = Union[Answer, Failure]
