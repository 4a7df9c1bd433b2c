"""Announcements beside the leases: candidates that wait, and requests to leaders.

They never decide who leads. Rows may be written by anybody, so malformed ones are ignored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coord.core.lease import MAX_TOKEN, copy_info
from coord.core.validation import is_number

CANDIDATE = "candidate"
"""The kind of an announcement of a candidate that waits."""
REQUEST = "request"
"""The kind of an announcement that asks the leader of a role to hand it over."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """One announcement about `role`.

    Attributes:
        key: 1 to 127 bytes. A later announcement with the same key replaces this one.
        role: The role.
        kind: `CANDIDATE` or `REQUEST`.
        body: A mapping that JSON can hold.
        ttl: Seconds that it lasts after it was posted, by the store's clock.
        urgent: Whether the store shows it at once to everybody who watches.
        posted_at: Seconds since 1970, for people. The store sets it.
        remaining: Seconds until it expires, by the store's clock. The store sets it.
    """

    key: str
    role: str
    kind: str
    body: Mapping[str, Any] = field(hash=False)
    ttl: float
    urgent: bool = False
    posted_at: float = 0.0
    remaining: float = 0.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who waits for `role`: its id (`leadership.candidate`), what it says about itself, its
    priority.

    `since` is wall time by its own machine (seconds since 1970): when it began to wait.
    """

    role: str
    candidate: str
    info: Mapping[str, Any] = field(default_factory=dict, hash=False)
    priority: int = 0
    since: float = 0.0

    def announcement(self, ttl: float) -> Announcement:
        """What it posts; urgent where its priority is above 0, so that a leader hears of it."""
        body = {
            "candidate": self.candidate,
            "info": dict(self.info),
            "priority": self.priority,
            "since": round(self.since, 3),
        }
        return Announcement(self.key, self.role, CANDIDATE, body, ttl, self.priority > 0)

    @property
    def key(self) -> str:
        """Of its notice: those of one role stand together."""
        return key_prefix(self.role) + self.candidate

    @classmethod
    def of(cls, notice: Announcement) -> Candidate | None:
        """Who posted that; None for another kind of notice, or one that no candidate wrote."""
        body = notice.body
        who, info, priority, since = (
            body.get(name) for name in ("candidate", "info", "priority", "since")
        )
        if notice.kind != CANDIDATE or not isinstance(who, str) or not isinstance(info, dict):
            return None
        if not isinstance(priority, int) or isinstance(priority, bool) or not is_number(since):
            return None
        return cls(notice.role, who, copy_info(info), priority, float(since))


def key_prefix(role: str) -> str:
    """Return the prefix of the keys of all candidates for a role.

    It is a digest, because a key with the role itself could be too long.
    """
    return f"{hashlib.blake2b(role.encode(), digest_size=10).hexdigest()} "


def by_priority(notices: Iterable[Announcement]) -> list[Candidate]:
    """Return the candidates among announcements, the highest priority and longest wait first."""
    found = (one for notice in notices if (one := Candidate.of(notice)) is not None)
    return sorted(found, key=lambda one: (-one.priority, one.since, one.candidate))


def encode_body(body: Mapping[str, Any]) -> str:
    """Return a body as it is stored: JSON in ASCII, in which no store interprets anything."""
    return json.dumps(dict(body), allow_nan=False, separators=(",", ":"))


def decode_announcement(
    key: object,
    role: object,
    kind: object,
    body: object,
    ttl: object,
    urgent: object,
    posted_at: object,
    left: float,
) -> Announcement | None:
    """Return the announcement in these columns; None if they are malformed.

    Args:
        key: The column of that name, as are `role` to `posted_at`.
        role: See `key`.
        kind: See `key`.
        body: The text that `encode_body` wrote.
        ttl: See `key`.
        urgent: See `key`.
        posted_at: Seconds since 1970.
        left: Seconds until it expires, by the store's clock.
    """
    if not (
        isinstance(key, str)
        and isinstance(role, str)
        and isinstance(kind, str)
        and isinstance(body, str)
    ):
        return None
    if not is_number(ttl) or ttl <= 0:
        return None
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    at = float(posted_at) if is_number(posted_at) else 0.0
    return Announcement(key, role, kind, said, float(ttl), bool(urgent), at, min(left, float(ttl)))


# -- What the leader of a role may be asked: to step down, or to hand the role to a certain
# candidate. It is asked by an urgent announcement, and does it itself, by the way of every
# step-down: first the work ends, then the lease is released. Nobody else's lease is ever written.
# An order names the term that it means, so that one which comes late does not hit the next leader.
#

LIFETIME_TTLS, MIN_LIFETIME = 2.0, 60.0
"""A request lasts this many ttls of the lease, and at least this many seconds.

A leader that lost its feed listens again within ten seconds, and the clocks of two database nodes
may differ by half a minute. A request is for one term, so a long lifetime does no harm.
"""


@dataclass(frozen=True, slots=True)
class HandoverRequest:
    """`to` is a candidate's id (None: anybody). `cooldown`: seconds for which the leader then does
    not stand; None: its own choice. `by` says who asks."""

    role: str
    token: int
    to: str | None = None
    by: str = ""
    cooldown: float | None = None
    key: str = ""

    def announcement(self, ttl: float) -> Announcement:
        """Return the announcement to post; `ttl` is the ttl of the lease, in seconds."""
        body = {"token": self.token, "to": self.to, "by": self.by, "cooldown": self.cooldown}
        return Announcement(
            self.key, self.role, REQUEST, body, max(LIFETIME_TTLS * ttl, MIN_LIFETIME), urgent=True
        )

    @classmethod
    def of(cls, notice: Announcement) -> HandoverRequest | None:
        """The order that was posted; None for another kind of notice, or one that cannot be
        used."""
        token, to, by, cooldown = (
            notice.body.get(name) for name in ("token", "to", "by", "cooldown")
        )
        if (
            notice.kind != REQUEST
            or not is_number(token, MAX_TOKEN)
            or not (to is None or (isinstance(to, str) and to))
        ):
            return None
        pause = float(cooldown) if is_number(cooldown, MAX_TOKEN) and cooldown >= 0 else None
        return cls(
            notice.role, int(token), to, by if isinstance(by, str) else "", pause, notice.key
        )


@dataclass(frozen=True, slots=True)
class Handover:
    """The decision to hand the role over now.

    Attributes:
        to: The id of the next leader; None means any candidate.
        by: Who asked.
        key: The key of the request; "" if a higher priority is the reason.
        rest: Seconds that the leader waits before it is a candidate again; None means the default.
    """

    to: str | None
    by: str
    key: str
    rest: float | None


def decide_handover(
    notices: Iterable[Announcement],
    token: int,
    candidate: str,
    priority: int,
    tenure: float,
    min_tenure: float,
) -> Handover | float | None:
    """What the leader `candidate`, under `token` for `tenure` seconds, makes of what was posted
    about its role.

    An order is carried out at once. A candidate of a higher priority gets the role once the term
    has lasted `min_tenure` seconds: until then the answer is how long that will be. None: there is
    nothing to heed."""
    notices = list(notices)
    for notice in notices:
        order = HandoverRequest.of(notice)
        if order is not None and order.token == token and order.to != candidate:
            rest = order.cooldown if order.to is None else order.cooldown or 0.0
            return Handover(order.to, order.by, order.key, rest)
    preferred = next(
        (
            one
            for one in by_priority(notices)
            if one.priority > priority and one.candidate != candidate
        ),
        None,
    )
    if preferred is None:
        return None
    if tenure < min_tenure:
        return min_tenure - tenure
    return Handover(preferred.candidate, f"priority {preferred.priority}", "", 0.0)


MAX_COUNTED, MAX_COUNTED_ROLES = 256, 64
"""How many candidates of a role are counted, and for how many roles, when announcements are
posted."""


def counted_roles(notices: Sequence[Announcement]) -> list[str]:
    """Return the roles whose candidates a store counts when it posts these announcements."""
    return sorted({one.role for one in notices if one.kind == CANDIDATE})[:MAX_COUNTED_ROLES]
