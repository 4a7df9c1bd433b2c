"""What faults are injected into, and what is known of one."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from coord import AsyncCoordinator
from tests.chaos.crew import Crew, Member
from tests.chaos.recorder import now
from tests.chaos.stage import Stage


class NotNow(Exception):
    """This kind finds nothing to hit at the moment."""


@dataclass
class Fault:
    """`hit`: the processes that it was aimed at; `everybody`: it was the store, for all of them.
    `missed`: it came to nothing. `token`: the term that an order meant; `to` and `to_is`: whom it
    was to go to, and how that one was."""

    kind: str
    begin: float = 0.0
    end: float = 0.0
    hit: list[str] = field(default_factory=list)
    everybody: bool = False
    detail: str = ""
    missed: bool = False
    token: int = 0
    to: str = ""
    to_is: str = ""
    members: list[Member] = field(default_factory=list)

    def take(self, *members: Member) -> None:
        """It begins, on these."""
        for member in members:
            member.busy = True
            self.members.append(member)
            self.hit.append(member.name)
        self.begin = now()

    def as_dict(self) -> dict[str, Any]:
        names = (
            "kind",
            "begin",
            "end",
            "hit",
            "everybody",
            "detail",
            "missed",
            "token",
            "to",
            "to_is",
        )
        return {name: getattr(self, name) for name in names}


@dataclass
class Scene:
    """What faults are injected into."""

    crew: Crew
    stage: Stage
    ttl: float
    chance: random.Random
    operators: Sequence[AsyncCoordinator]
    """For what operators ask, each of a node of its own (whose clock may be far off); no proxy is
    in the way."""
    store_busy: bool = False
    longest: float = math.inf
    """The longest that `lasting` returns, in ttls."""

    def between(self, low: float, high: float) -> float:
        """A duration between two shares of the ttl."""
        return self.chance.uniform(low, high) * self.ttl

    def lasting(self, low: float, high: float) -> float:
        """How long a fault lasts: the same, but at most `longest` ttls."""
        return self.between(min(low, self.longest), min(high, self.longest))

    def victim(self, leader: float = 0.75) -> Member:
        """The leader, mostly."""
        free, first = self.crew.free(), self.crew.leader
        if first is not None and first in free and self.chance.random() < leader:
            return first
        if len(free) <= 1:
            raise NotNow
        return self.chance.choice(free)
