"""One feed for all roles that a session watches.

A feed gives hints: they wake candidates and followers, and decide nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Set
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from coord.core.lease import Lease
from coord.runtime.retry import Backoff, reconnecting

if TYPE_CHECKING:
    from coord.stores.protocol import Store

T = TypeVar("T")

Listener = Callable[[Lease], None]
CandidateListener = Callable[[Lease, int], bool]
"""Called with a row and with the number of candidates of this process that hear of a vacant role
later than this one, itself included. Returns whether the candidate can claim a vacant role."""

TURN = 0.02
"""Seconds for which one candidate of this process alone knows that a role is vacant."""
SETTLED = 0.05
"""Seconds from the first row of the new leader until the other candidates hear of it."""
LONGEST_TURN = 0.2
"""Seconds after which all candidates hear, although the role changes again and again."""
COALESCE_DELAY = 0.005
"""Seconds to wait for more roles before the feed is opened again with them."""


class _Turn:
    """A vacant role, which some candidates of this process have heard of and others not yet."""

    __slots__ = ("heard", "lease", "timer", "until")

    def __init__(self, lease: Lease, until: float) -> None:
        self.lease, self.until = lease, until
        self.heard: list[CandidateListener] = []
        self.timer: asyncio.TimerHandle | None = None


class SharedFeed:
    """Shares a store's feed among listeners, on one event loop.

    It opens the feed again after a failure, and to add a role. The first rows of a feed are the
    present ones, so nothing that happens between two feeds is missed.

    Many candidates of one process may wait for the same role. Only one of them can win it, so when
    it becomes vacant they take turns: the one that has waited longest hears of it at once, the
    others a moment later, and then only of the last row. The processor is free meanwhile for the
    claim, its answer and the work of the new leader.
    """

    def __init__(self, store: Callable[[], Store], broken: Callable[[], None]) -> None:
        """Create a feed without listeners.

        Args:
            store: Returns the store to watch.
            broken: Called when the feed ended, before it is opened again.
        """
        self._store, self._broken = store, broken
        self._listeners: dict[str, list[Listener]] = {}
        self._candidates: dict[str, list[CandidateListener]] = {}
        self._turns: dict[str, _Turn] = {}
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._watched: frozenset[str] = frozenset()

    def subscribe(self, role: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` with each row of `role` from now on.

        Returns:
            A function that unsubscribes the listener.
        """
        self._listeners.setdefault(role, []).append(listener)
        self._follow(role)
        return lambda: self._remove(role, listener, self._listeners)

    def subscribe_candidate(self, role: str, listener: CandidateListener) -> Callable[[], None]:
        """Call `listener` with each row of `role` from now on, in turn with the other candidates.

        Returns:
            A function that unsubscribes the listener.
        """
        self._candidates.setdefault(role, []).append(listener)
        self._follow(role)
        return lambda: self._remove(role, listener, self._candidates)

    def _follow(self, role: str) -> None:
        # A role that is watched already counts as new: the new listener needs a first row, too.
        self._watched = self._watched - {role}
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="coord feed")

    @property
    def _roles(self) -> Set[str]:
        return self._listeners.keys() | self._candidates.keys()

    def _remove(self, role: str, listener: T, group: dict[str, list[T]]) -> None:
        listeners = group.get(role, [])
        if listener in listeners:
            listeners.remove(listener)
        if not listeners:
            # The open feed still includes the role; the next one does not.
            group.pop(role, None)
        if role in self._turns and role not in self._candidates:
            self._end_turn(role)
        if not (self._listeners or self._candidates) and self._task is not None:
            self._task.cancel()
            self._task = None

    async def close(self) -> None:
        """End the feed."""
        self._listeners.clear()
        self._candidates.clear()
        for role in tuple(self._turns):
            self._end_turn(role)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        backoff = Backoff(0.05, 5.0)
        while self._listeners or self._candidates:
            # While the store does not answer, a new role waits for the next attempt.
            await asyncio.sleep(backoff.next() if backoff.failing else COALESCE_DELAY)
            roles = self._watched = frozenset(self._roles)
            self._changed.clear()
            feed = asyncio.ensure_future(
                reconnecting(partial(self._open, roles), self._notify, backoff, self._broken)
            )
            try:
                await self._until_changed()
            finally:
                feed.cancel()
                await asyncio.gather(feed, return_exceptions=True)

    async def _until_changed(self) -> None:
        while self._watched >= self._roles:
            self._changed.clear()
            await self._changed.wait()

    def _open(self, roles: frozenset[str]) -> AsyncIterator[Lease]:
        return self._store().watch(roles)

    def _notify(self, lease: Lease) -> None:
        for listener in tuple(self._listeners.get(lease.role, ())):
            listener(lease)
        candidates = self._candidates.get(lease.role)
        if candidates is None:
            return
        turn = self._turns.get(lease.role)
        if len(candidates) == 1 and turn is None:  # nearly all roles
            candidates[0](lease, 1)
        elif lease.vacant:
            until = asyncio.get_running_loop().time() + LONGEST_TURN
            self._begin_turn(turn or _Turn(lease, until), lease)
        elif turn is not None and lease.led:
            if turn.lease.vacant:
                self._postpone(turn, lease, SETTLED)
            else:  # a renewal, which does not keep the others waiting
                turn.lease = lease
            for candidate in turn.heard:
                if candidate in candidates:
                    candidate(lease, 1)
        else:  # the row may name one of them, or an expiry may be due
            self._end_turn(lease.role)
            self._notify_candidates(lease)

    def _notify_candidates(self, lease: Lease) -> None:
        for candidate in tuple(self._candidates.get(lease.role, ())):
            candidate(lease, 1)

    def _begin_turn(self, turn: _Turn, lease: Lease) -> None:
        """Tell the first candidate that can claim a vacant role, and the others later."""
        candidates = tuple(self._candidates[lease.role])
        self._postpone(turn, lease, TURN)
        for candidate in candidates:
            if candidate not in turn.heard:
                turn.heard.append(candidate)
            if candidate(lease, len(candidates)):
                return
        self._end_turn(lease.role)

    def _postpone(self, turn: _Turn, lease: Lease, seconds: float) -> None:
        self._turns[lease.role], turn.lease = turn, lease
        if turn.timer is not None:
            turn.timer.cancel()
        loop = asyncio.get_running_loop()
        at = min(loop.time() + seconds, turn.until)
        turn.timer = loop.call_at(at, self._turn_over, lease.role)

    def _turn_over(self, role: str) -> None:
        turn = self._end_turn(role)
        for candidate in tuple(self._candidates.get(role, ())):
            if turn is not None and candidate not in turn.heard:
                candidate(turn.lease, 1)

    def _end_turn(self, role: str) -> _Turn | None:
        turn = self._turns.pop(role, None)
        if turn is not None and turn.timer is not None:
            turn.timer.cancel()
        return turn
