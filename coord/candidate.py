"""A candidate that waits for its role, as the board shows it to people. Those who lead are in their lease instead."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coord.checks import is_number
from coord.notice import CANDIDATE, Notice


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who waits for `role`: its id (`leadership.candidate`), what it says about itself, its priority.

    `since` is wall time by its own machine (seconds since 1970): when it began to wait.
    """

    role: str
    candidate: str
    info: Mapping[str, Any] = field(default_factory=dict, hash=False)
    priority: int = 0
    since: float = 0.0

    def notice(self, ttl: float) -> Notice:
        """What it posts; loud where its priority is above 0, so that a leader hears of it."""
        body = {
            "candidate": self.candidate,
            "info": dict(self.info),
            "priority": self.priority,
            "since": round(self.since, 3),
        }
        return Notice(self.key, self.role, CANDIDATE, body, ttl, self.priority > 0)

    @property
    def key(self) -> str:
        """Of its notice: those of one role stand together."""
        return place(self.role) + self.candidate

    @classmethod
    def of(cls, notice: Notice) -> Candidate | None:
        """Who posted that; None for another kind of notice, or one that no candidate wrote."""
        body = notice.body
        who, info, priority, since = (body.get(name) for name in ("candidate", "info", "priority", "since"))
        if notice.kind != CANDIDATE or not isinstance(who, str) or not isinstance(info, dict):
            return None
        if not isinstance(priority, int) or isinstance(priority, bool) or not is_number(since):
            return None
        return cls(notice.role, who, info, priority, float(since))


def fresh_id() -> str:
    """An id for one incarnation of a candidate, that nobody else has. (The module `uuid` is slow to import.)"""
    return os.urandom(16).hex()


def place(role: str) -> str:
    """What the keys of all candidates for a role begin with. A digest: with the role in it a key could be too long."""
    import hashlib  # slow to import, and one that leads at once has no place among those that wait

    return f"{hashlib.blake2b(role.encode(), digest_size=10).hexdigest()} "


def ordered(notices: Iterable[Notice]) -> list[Candidate]:
    """The candidates among them: the highest priority first, then who has waited longest."""
    found = (one for notice in notices if (one := Candidate.of(notice)) is not None)
    return sorted(found, key=lambda one: (-one.priority, one.since, one.candidate))
