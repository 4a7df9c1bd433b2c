"""The values that everything else speaks in: the lease of a role, what a candidate saw of it, why a
term ended."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

MAX_TOKEN = 2**53
"""No token goes above this: beyond it a JSON number, and so RethinkDB, is no longer exact."""


class Revision(NamedTuple):
    """What tells one state of a lease from every other: no two writes to a role ever leave the same
    triple.

    `beat` is counted by the holder, one up for each request that it *sends*, so that even a write
    that was shown and then lost in a failover is not mistaken for the one that replaced it
    (`docs/design-notes.md`, "Beats")."""

    holder: str | None
    token: int
    beat: int


@dataclass(frozen=True, slots=True, init=False)
class Lease:
    """The stored record of a role, as it stood when it was read.

    `remaining` is in seconds, by the store's own clock at that moment: 0 or less once the lease has
    run out, and 0 for a vacant one. `renewed_at`, and `since`, when the term began (0: unknown),
    are wall time (seconds since 1970) for people to read; nothing is decided by them."""

    role: str
    holder: str | None = None
    token: int = 0
    beat: int = 0
    ttl: float = 0.0
    renewed_at: float = 0.0
    remaining: float = 0.0
    info: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)
    since: float = field(default=0.0, compare=False)

    def __init__(
        self,
        role: str,
        holder: str | None = None,
        token: int = 0,
        beat: int = 0,
        ttl: float = 0.0,
        renewed_at: float = 0.0,
        remaining: float = 0.0,
        info: Mapping[str, Any] | None = None,
        since: float = 0.0,
    ) -> None:
        # A third of the time of a frozen dataclass's own, of which a batch of renewals makes a
        # thousand.
        _set_role(self, role)
        _set_holder(self, holder)
        _set_token(self, token)
        _set_beat(self, beat)
        _set_ttl(self, ttl)
        _set_renewed_at(self, renewed_at)
        _set_remaining(self, remaining)
        _set_info(self, {} if info is None else info)
        _set_since(self, since)

    @property
    def revision(self) -> Revision:
        return Revision(self.holder, self.token, self.beat)

    @property
    def vacant(self) -> bool:
        return self.holder is None

    @property
    def reserved(self) -> bool:
        """Whether it waits for the candidate that it was handed over to (`Release.to`), who does
        not lead yet."""
        return self.holder is not None and self.beat == 0

    @property
    def led(self) -> bool:
        """Whether somebody leads, by the store's clock when it was read."""
        return self.holder is not None and self.beat > 0 and self.remaining > 0

    def older_than(self, other: Lease) -> bool:
        """Whether `other` must have been written after this, going by the two alone (a feed may
        repeat itself)."""
        if self.token != other.token:
            return self.token < other.token
        if self.holder == other.holder:
            return self.beat < other.beat
        # Within a term: its holder's writes, then perhaps the one it was handed over to, then
        # nobody.
        return self.holder is not None and (
            other.holder is None or (other.reserved and not self.reserved)
        )


(
    _set_role,
    _set_holder,
    _set_token,
    _set_beat,
    _set_ttl,
    _set_renewed_at,
    _set_remaining,
    _set_info,
    _set_since,
) = (getattr(Lease, one.name).__set__ for one in fields(Lease))


class LossReason(str, enum.Enum):
    """Why a term ended. Given to `on_lost`, to the log and to `LeadershipLost`."""

    EXPIRED = "expired"
    """The deadline passed with no renewal that was answered in time, though the store could be
    reached."""
    TAKEN = "taken"
    """The store says that the lease is no longer ours."""
    RELEASED = "released"
    """We were asked to stop standing, and gave the role back."""
    STORE_UNREACHABLE = "store_unreachable"
    """The deadline passed while the store did not answer."""
    STEPPED_DOWN = "stepped_down"
    """We were asked to hand the role over."""
    CALLBACK_FAILED = "callback_failed"
    """An `on_elected` callback raised."""
    FORKED = "forked"
    """This process is a fork of the one that leads."""
    SUSPENDED = "suspended"
    """The machine slept past the deadline."""
    NO_PROGRESS = "no_progress"
    """The job showed no progress for its `at_most`. It may still run, so the lease is left to run
    out."""

    def __str__(self) -> str:
        return self.value
