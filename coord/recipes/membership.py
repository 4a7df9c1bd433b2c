"""The members of a group, as announcements that expire by themselves.

They decide only who should have what. A wrong list costs balance, never safety.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from coord.core.announcements import Announcement, key_prefix
from coord.core.lease import copy_info
from coord.core.timing import Timing
from coord.election.session import Session
from coord.errors import CoordError
from coord.runtime import log

MEMBER = "member"
"""The kind of the announcement of a member."""
ID_LENGTH = 16
"""Characters of a member's id. The ids of its candidates begin with it."""
READ_AGAIN_AFTER = 0.05
"""Seconds between two looks at the members, at least: many shards may change together."""


class GroupMember(NamedTuple):
    """A member of a group.

    Attributes:
        id: Its id, new at each start.
        info: What it says about itself.
    """

    id: str
    info: Mapping[str, Any]


def new_member_id() -> str:
    """Return a random id."""
    return os.urandom(ID_LENGTH // 2).hex()


def candidate_of(member: str) -> str:
    """Return a new id for a candidate of this member."""
    return member + os.urandom(ID_LENGTH // 2).hex()


def member_of(candidate: str | None) -> str | None:
    """Return the member that a candidate belongs to; None if it belongs to none."""
    is_ours = candidate is not None and len(candidate) == 2 * ID_LENGTH
    return candidate[:ID_LENGTH] if candidate is not None and is_ours else None


class Membership:
    """Announces one member, and knows the others. It lives on one loop.

    Args:
        session: The session whose announcements it uses.
        role: The row of the group.
        me: This member.
        timing: How long an announcement lasts (`ttl`), and how often it is posted (`renew_every`).
        grace: Seconds for which a member that has left is counted.
    """

    def __init__(
        self, session: Session, role: str, me: GroupMember, timing: Timing, grace: float
    ) -> None:
        self._session, self._role, self._me = session, role, me
        self._timing, self._grace = timing, grace
        self._now: Callable[[], float] = asyncio.get_running_loop().time
        self._key = f"{key_prefix(role)}{MEMBER} {me.id}"
        self._known: dict[str, GroupMember] = {me.id: me}
        self._left: dict[str, float] = {}
        self._resting: dict[str, frozenset[int]] = {}
        self._news = False
        self._post_at = self._read_at = self._now()
        self._posted_at = -math.inf
        self._announced_at = session.now().total
        self._failing = False

    @property
    def present(self) -> dict[str, GroupMember]:
        """The members that are there, by id; this one included."""
        return dict(self._known)

    @property
    def forgotten(self) -> bool:
        """Whether the announcement of this member has expired: the process was frozen, or did not
        reach the store. Then the others may have left, and another group may have begun."""
        return self._session.now().total - self._announced_at > self._timing.ttl

    def confirmed(self) -> None:
        """The group is still the one that this member has joined."""
        self._announced_at = self._session.now().total

    @property
    def resting(self) -> dict[str, frozenset[int]]:
        """The shards that members do not claim for a while, by the ids of the members."""
        return dict(self._resting)

    def rest_from(self, shards: frozenset[int]) -> None:
        """Let the others know which shards this member does not claim for a while."""
        if shards != self._resting.get(self._me.id, frozenset()):
            self._resting[self._me.id] = shards
            self._post_at, self._news = self._now(), bool(shards)

    @property
    def counted(self) -> set[str]:
        """The ids of the members that are there, or have left less than `grace` seconds ago."""
        now = self._now()
        self._left = {member: until for member, until in self._left.items() if until > now}
        return {*self._known, *self._left}

    @property
    def due(self) -> float:
        """When `refresh` has something to do, by the clock of the loop."""
        return min([self._post_at, self._read_at, *self._left.values()])

    def look_soon(self) -> None:
        """Something has changed: a member may have come or gone."""
        self._read_at = min(self._read_at, self._now() + READ_AGAIN_AFTER)

    async def refresh(self) -> None:
        """Post the announcement and read those of the others, as far as that is due. Whatever the
        store does, it does not raise."""
        now, every = self._now(), self._timing.renew_every
        timeout = min(self._timing.attempt_timeout, every)
        try:
            if now >= self._post_at:
                self._post_at = now + every / 3  # if it fails
                body: dict[str, Any] = {"id": self._me.id, "info": dict(self._me.info)}
                if resting := self._resting.get(self._me.id):
                    body["rests"] = sorted(resting)
                # The first is urgent, so that the others give this member its share at once, and
                # so is the first after a time in which the others have forgotten it.
                ttl = self._timing.ttl
                urgent, self._news = self._news or now > self._posted_at + ttl, False
                announcement = Announcement(self._key, self._role, MEMBER, body, ttl, urgent)
                sent_at, forgotten = self._session.now().total, self.forgotten
                await self._session.announcements.post([announcement], timeout)
                self._posted_at, self._post_at = now, now + every
                if not forgotten:  # otherwise `confirmed` comes first
                    self._announced_at = sent_at
            if now >= self._read_at:
                self._read_at = now + every / 3
                entries = await self._session.announcements.read([self._role], timeout)
                self._take(entries, now, every)
            self._failing = False
        except CoordError as err:
            if not self._failing:
                log.warning("announcements.not_stored", because=str(err) or type(err).__name__)
            self._failing = True

    def _take(self, entries: list[Announcement], now: float, every: float) -> None:
        next_read = now + every
        before, self._known = self._known, {self._me.id: self._me}
        own = self._resting.get(self._me.id, frozenset())
        self._resting = {self._me.id: own}
        for announcement in entries:
            member = _member(announcement)
            if member is not None and announcement.remaining > 0 and member.id != self._me.id:
                self._known[member.id] = member
                self._resting[member.id] = _rests(announcement)
                # A member that was killed is noticed when its announcement has expired.
                next_read = min(next_read, now + announcement.remaining + READ_AGAIN_AFTER)
                self._left.pop(member.id, None)
        self._read_at = max(next_read, now + READ_AGAIN_AFTER)
        if self._grace > 0:
            departed = before.keys() - self._known.keys()
            self._left.update(dict.fromkeys(departed, now + self._grace))

    async def leave(self) -> None:
        """Withdraw the announcement. If the store does not answer, it expires by itself."""
        if self._posted_at > -math.inf:
            try:
                await self._session.announcements.withdraw(
                    [self._key], self._timing.attempt_timeout
                )
            except CoordError as err:
                log.warning("announcements.not_stored", because=str(err) or type(err).__name__)


def _rests(announcement: Announcement) -> frozenset[int]:
    rests = announcement.body.get("rests")
    listed = rests if isinstance(rests, list) else []
    return frozenset(shard for shard in listed if isinstance(shard, int))


def _member(announcement: Announcement) -> GroupMember | None:
    body = announcement.body
    member, info = body.get("id"), body.get("info")
    if announcement.kind != MEMBER or not isinstance(info, dict):
        return None
    if not isinstance(member, str) or len(member) != ID_LENGTH:
        return None
    return GroupMember(member, copy_info(info))
