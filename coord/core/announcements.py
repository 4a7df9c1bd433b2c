"""Announcements beside the leases: candidates that wait, and requests to leaders.

They never decide who leads. Rows may be written by anybody, so malformed ones are ignored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from coord.core.lease import MAX_TOKEN, PAUSED, LossReason, copy_info
from coord.core.validation import MAX_TTL, is_number

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
    """A candidate that waits for a role.

    Attributes:
        role: The role.
        id: The id of the candidate (`leadership.candidate`).
        info: What it says about itself.
        priority: A leader gives way to a candidate with a higher priority.
        since: When it began to wait: wall time of its own machine, in seconds since 1970.
        resting: Whether it waits for the end of a cooldown, or has failed. No leader gives way to
            it then.
    """

    role: str
    id: str
    info: Mapping[str, Any] = field(default_factory=dict, hash=False)
    priority: int = 0
    since: float = 0.0
    resting: bool = False

    def announcement(self, ttl: float) -> Announcement:
        """Return the announcement to post; `ttl` is in seconds.

        It is urgent if the priority is above 0, so that a leader notices it.
        """
        body = {
            "id": self.id,
            "info": dict(self.info),
            "priority": self.priority,
            "since": round(self.since, 3),
        }
        if self.resting:
            body["resting"] = True
        return Announcement(self.key, self.role, CANDIDATE, body, ttl, self.priority > 0)

    @property
    def key(self) -> str:
        """The key of its announcement. Those of one role have the same prefix."""
        return key_prefix(self.role) + self.id

    @classmethod
    def of(cls, announcement: Announcement) -> Candidate | None:
        """Return the candidate in an announcement; None if it is another kind or malformed."""
        body = announcement.body
        candidate, info, priority, since = (
            body.get(name) for name in ("id", "info", "priority", "since")
        )
        if announcement.kind != CANDIDATE:
            return None
        if not isinstance(candidate, str) or not isinstance(info, dict):
            return None
        if not isinstance(priority, int) or isinstance(priority, bool) or not is_number(since):
            return None
        resting = body.get("resting") is True
        return cls(announcement.role, candidate, copy_info(info), priority, float(since), resting)


def key_prefix(role: str) -> str:
    """Return the prefix of the keys of all candidates for a role.

    It is a digest, because a key with the role itself could be too long.
    """
    return f"{hashlib.blake2b(role.encode(), digest_size=10).hexdigest()} "


def by_priority(announcements: Iterable[Announcement]) -> list[Candidate]:
    """Return the candidates among announcements: those that do not rest first, then the highest
    priority and the longest wait."""
    candidates = (Candidate.of(announcement) for announcement in announcements)
    return sorted(
        (candidate for candidate in candidates if candidate is not None),
        key=lambda candidate: (
            candidate.resting,
            -candidate.priority,
            candidate.since,
            candidate.id,
        ),
    )


def encode_body(body: Mapping[str, Any]) -> str:
    """Return a body as it is stored: JSON in ASCII, in which no store interprets anything."""
    return json.dumps(dict(body), allow_nan=False, separators=(",", ":"))


def decode_announcement(
    key: object,
    role: object,
    kind: object,
    body: object,
    *,
    ttl: object,
    urgent: object,
    posted_at: object,
    seconds_left: float,
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
        seconds_left: Seconds until it expires, by the store's clock.
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
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(decoded, dict):
        return None
    at = float(posted_at) if is_number(posted_at) else 0.0
    remaining = min(seconds_left, float(ttl))
    return Announcement(key, role, kind, decoded, float(ttl), bool(urgent), at, remaining)


LIFETIME_TTLS, MIN_LIFETIME = 2.0, 60.0
"""A request lasts this many ttls of the lease, and at least this many seconds.

A leader that lost its feed listens again within ten seconds, and the clocks of two database nodes
may differ by half a minute. A request is for one term, so a long lifetime does no harm.
"""
PAUSE_LIFETIME = 86_400.0
"""Seconds that a request to leave the role paused lasts, at least. `resume` looks for it while the
leader ends its work, which may take many ttls."""


class HandoverRequest(NamedTuple):
    """A request to the leader of a role: to step down, or to hand the role to one candidate.

    It is an urgent announcement. The leader does it itself: first the work ends, then the lease is
    released. Nobody writes the lease of another candidate. The request names one term, so that it
    does not affect the next leader if it arrives late.

    Attributes:
        role: The role.
        token: The token of the term that is to end.
        to: The id of the next leader; None means any candidate.
        by: Who requests it.
        cooldown: Seconds for which the leader is no candidate afterwards; None means its default.
        key: The key of the announcement.
        hold: Seconds for which the role is reserved for `to`; None means the default.
    """

    role: str
    token: int
    to: str | None = None
    by: str = ""
    cooldown: float | None = None
    key: str = ""
    hold: float | None = None

    def announcement(self, ttl: float) -> Announcement:
        """Return the announcement to post; `ttl` is the ttl of the lease, in seconds."""
        body: dict[str, Any] = {"token": self.token, "to": self.to, "by": self.by}
        body["cooldown"] = self.cooldown
        if self.hold is not None:
            body["hold"] = self.hold
        least = PAUSE_LIFETIME if self.to == PAUSED else MIN_LIFETIME
        lifetime = max(LIFETIME_TTLS * ttl, least)
        return Announcement(self.key, self.role, REQUEST, body, lifetime, urgent=True)

    @classmethod
    def of(cls, announcement: Announcement) -> HandoverRequest | None:
        """Return the request in an announcement; None if it is another kind or malformed."""
        token, to, by, cooldown = (
            announcement.body.get(name) for name in ("token", "to", "by", "cooldown")
        )
        if (
            announcement.kind != REQUEST
            or not is_number(token, MAX_TOKEN)
            or not (to is None or (isinstance(to, str) and to))
        ):
            return None
        pause = float(cooldown) if is_number(cooldown, MAX_TOKEN) and cooldown >= 0 else None
        by = by if isinstance(by, str) else ""
        hold = announcement.body.get("hold")
        kept = float(hold) if is_number(hold, MAX_TTL) and hold > 0 else None
        return cls(announcement.role, int(token), to, by, pause, announcement.key, kept)


class Handover(NamedTuple):
    """The decision to hand the role over now.

    Attributes:
        to: The id of the next leader; None means any candidate; `PAUSED` means nobody, until the
            role is resumed.
        by: Who asked.
        key: The key of the request; "" if a higher priority is the reason.
        rest: Seconds that the leader waits before it is a candidate again; None means the default.
        hold: Seconds for which the role is reserved for `to`; None means the default.
    """

    to: str | None
    by: str
    key: str
    rest: float | None
    hold: float | None = None

    @property
    def withdrawn(self) -> bool:
        """Whether the request is withdrawn at once. A request to pause stays until it expires: it
        says to `coord resume` what the role becomes when the work has ended."""
        return self.key != "" and self.to != PAUSED

    @property
    def reason(self) -> LossReason:
        """Why the term ends by this."""
        return LossReason.PAUSED if self.to == PAUSED else LossReason.STEPPED_DOWN


def decide_handover(
    announcements: Iterable[Announcement],
    *,
    token: int,
    candidate: str,
    priority: int,
    tenure: float,
    min_tenure: float,
) -> Handover | float | None:
    """Decide whether a leader hands its role over because of the announcements about the role.

    A request takes effect at once. A candidate with a higher priority that does not rest gets the
    role when the term has lasted `min_tenure` seconds.

    Args:
        announcements: The announcements about the role.
        token: The token of the leader's term.
        candidate: The id of the leader.
        priority: The priority of the leader.
        tenure: Seconds that the term has lasted.
        min_tenure: Seconds that a term lasts at least before a higher priority ends it.

    Returns:
        The decision to hand over now; or the seconds until a higher priority ends the term; or None
        if the leader goes on.
    """
    announcements = list(announcements)
    for announcement in announcements:
        request = HandoverRequest.of(announcement)
        if request is not None and request.token == token and request.to != candidate:
            rest = request.cooldown if request.to is None else request.cooldown or 0.0
            return Handover(request.to, request.by, request.key, rest, request.hold)
    preferred = next(
        (
            waiting
            for waiting in by_priority(announcements)
            if waiting.priority > priority and waiting.id != candidate and not waiting.resting
        ),
        None,
    )
    if preferred is None:
        return None
    if tenure < min_tenure:
        return min_tenure - tenure
    return Handover(preferred.id, f"priority {preferred.priority}", "", 0.0)


MAX_COUNTED, MAX_COUNTED_ROLES = 256, 64
"""How many candidates of a role are counted, and for how many roles, when announcements are
posted."""


def counted_roles(announcements: Sequence[Announcement]) -> list[str]:
    """Return the roles whose candidates a store counts when it posts these announcements."""
    roles = {item.role for item in announcements if item.kind == CANDIDATE}
    return sorted(roles)[:MAX_COUNTED_ROLES]
