"""Announcements of a coordinator: its candidates that wait, and the requests to its leaders.

Nothing here decides who leads, and nothing here delays or fails a leadership. What cannot be stored
is stored with the next round; what is not withdrawn expires.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

from coord.core.announcements import Announcement, Candidate
from coord.errors import BadArgument, StoreRefused
from coord.runtime import log
from coord.runtime.retry import Backoff, reconnecting, restart_on_failure, rng
from coord.runtime.timers import within
from coord.stores.protocol import Announcements

COALESCE_DELAY = 1.0
"""Seconds, at most, from a change to the round that stores it: one query stores many changes."""
LIFETIME_TTLS = 3.0
"""Ttls of the lease that an announcement lasts. It is stored again after 0.5 to 1.5 ttls, so one
round may fail."""
MAX_PER_QUERY = 1_000
"""Announcements in one query."""
MAX_QUERY_TIME = 5.0
"""Seconds that a query may take, at most; a sixth of the shortest ttl in it, as every attempt of a
candidate."""
CLOSE_TIMEOUT = 1.0
"""Seconds that the end of a coordinator waits until its announcements are withdrawn."""


@dataclass(slots=True, eq=False)
class _Announced:
    candidate: Candidate
    ttl: float
    due: float
    heard: Callable[[int], None]
    posted: bool = False
    """Whether it may be on the board, and is to be taken away."""


class CandidateAnnouncer:
    """`board` gives the board, or raises `BadArgument` where the store has none. Lives on one loop.

    Candidates of one ttl are posted anew together, once a ttl. When in it is drawn: processes are
    not to do it in step."""

    def __init__(self, board: Callable[[], Announcements]) -> None:
        self._board = board
        self._listed: dict[str, _Announced] = {}
        self._gone: set[str] = set()
        self._due = math.inf
        self._on_earlier_check = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._phase = rng.random()
        self._failing = self._told = False

    def add(
        self, candidate: Candidate, ttl: float, heard: Callable[[int], None]
    ) -> Callable[[], None]:
        """List it, soon; `heard` is told, now and then, how many wait for its role. Returns what
        ends that."""
        try:
            self._board()
        except BadArgument:  # a store of another package, which keeps none
            return lambda: None
        loop = asyncio.get_running_loop()
        one = _Announced(candidate, ttl, loop.time() + min(COALESCE_DELAY, ttl / 10), heard)
        one.posted = candidate.key in self._gone
        self._gone.discard(candidate.key)
        self._listed[candidate.key] = one
        self._look_at(one.due)
        if self._task is None or self._task.done():
            work = restart_on_failure(self._run, "announce candidates")
            self._task = loop.create_task(work, name="coord waiting")
        return lambda: self._remove(one)

    def _remove(self, one: _Announced) -> None:
        key = one.candidate.key
        if self._listed.get(key) is not one:
            return
        del self._listed[key]
        if one.posted:
            self._gone.add(key)
            with contextlib.suppress(RuntimeError):  # no loop runs any more
                self._look_at(asyncio.get_running_loop().time() + min(COALESCE_DELAY, one.ttl / 10))
        elif not self._listed and not self._gone:
            self._look_at(-math.inf)  # came and went before anybody was told: the task may end

    async def close(self) -> None:
        """Take all away, if the store answers."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        gone = self._gone.union(key for key, one in self._listed.items() if one.posted)
        self._listed, self._gone = {}, set()
        if gone and not self._failing:
            with contextlib.suppress(Exception):  # then it runs out
                await self._board().withdraw(gone, CLOSE_TIMEOUT)

    def _look_at(self, moment: float) -> None:
        if moment < self._due:
            self._due = moment
            self._on_earlier_check.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._listed or self._gone:
            self._on_earlier_check.clear()
            if (left := self._due - loop.time()) > 0:
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(self._on_earlier_check.wait(), left)
                continue
            self._due = math.inf
            await self._round()
            for one in self._listed.values():
                self._look_at(one.due)

    async def _round(self) -> None:
        now = asyncio.get_running_loop().time()
        due = [one for one in self._listed.values() if one.due <= now]
        timeout = min([MAX_QUERY_TIME, *(one.ttl / 6 for one in due)])
        gone = set(self._gone)
        for one in due:
            one.posted, one.due = True, self._next(one.ttl, now)
        try:
            board = self._board()
            if gone:
                await board.withdraw(gone, timeout)
                self._gone -= gone
            waiting = await self._post(
                board, [one.candidate.announcement(LIFETIME_TTLS * one.ttl) for one in due], timeout
            )
            for one in self._listed.values():
                if (number := waiting.get(one.candidate.role)) is not None:
                    one.heard(number)
        except Exception as err:  # whatever a store does, candidates go on
            self._failed(err, gone)
        else:
            self._failing = False

    def _failed(self, err: Exception, gone: set[str]) -> None:
        """The next round tries again; what was not taken away by then has nearly run out."""
        if self._failing or not self._listed:
            self._gone -= gone
        if isinstance(err, StoreRefused):  # there is no board: nothing to take away, ever
            self._gone.clear()
            for one in self._listed.values():
                one.posted = False
        self._failing = True
        if not self._told:
            self._told = True
            log.warning("announcements.not_stored", because=str(err) or type(err).__name__)

    @staticmethod
    async def _post(
        board: Announcements, notices: Sequence[Announcement], timeout: float
    ) -> dict[str, int]:
        waiting: dict[str, int] = {}
        for begin in range(0, len(notices), MAX_PER_QUERY):
            waiting.update(await board.post(notices[begin : begin + MAX_PER_QUERY], timeout))
        return waiting

    def _next(self, ttl: float, now: float) -> float:
        """When those of this ttl are posted anew: the first such moment that is half a ttl away."""
        return (math.ceil(now / ttl + 0.5 - self._phase) + self._phase) * ttl


RETRY_UNSUPPORTED = 60.0
"""Seconds until a store that had no table for announcements is asked again."""
WITHDRAW_TIMEOUT = 5.0
"""Seconds that the withdrawal of a request may take."""


class RequestListener:
    """Keeps the urgent announcements about some roles: requests, and preferred candidates.

    It lives on one loop, and listens from `start` to `stop`. It is a hint like every announcement:
    a leader that misses one leads on.

    Args:
        board: Returns the announcements of the store, or raises `BadArgument` if it keeps none.
        roles: The roles whose announcements are kept; others cost nothing.
        on_arrival: Called with the role of each announcement that is kept.
    """

    def __init__(
        self,
        board: Callable[[], Announcements],
        roles: Container[str],
        on_arrival: Callable[[str], None],
    ) -> None:
        self._board, self._roles, self._on_arrival = board, roles, on_arrival
        self._kept: dict[str, dict[str, tuple[Announcement, float]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Listen from now on, if the store keeps announcements."""
        if self._task is None or self._task.done():
            try:
                self._board()
            except BadArgument:  # a store of another package, which keeps none
                return
            self._task = asyncio.get_running_loop().create_task(
                reconnecting(
                    lambda: self._board().watch(),
                    self._receive,
                    Backoff(0.1, 10.0),
                    refused_pause=RETRY_UNSUPPORTED,
                ),
                name="coord requests",
            )

    def stop(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._kept.clear()

    async def close(self) -> None:
        """Stop listening, and wait until nothing of this uses the store."""
        tasks = [*self._ending, *([self._task] if self._task is not None else [])]
        self.stop()
        await asyncio.gather(*tasks, return_exceptions=True)

    def forget(self, role: str) -> None:
        """Drop what is kept about a role."""
        self._kept.pop(role, None)

    def pending(self, role: str) -> list[Announcement]:
        """Return the kept announcements about a role that have not expired, by the clock of this
        process."""
        now = asyncio.get_running_loop().time()
        kept = self._kept.get(role, {})
        for key in [key for key, (_, expires_at) in kept.items() if expires_at <= now]:
            del kept[key]
        return [announcement for announcement, _ in kept.values()]

    def done(self, role: str, key: str) -> None:
        """Forget a request that was carried out, and withdraw it, so that nobody waits for it."""
        self._kept.get(role, {}).pop(key, None)
        task = asyncio.get_running_loop().create_task(self._withdraw(key), name="coord withdraw")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _withdraw(self, key: str) -> None:
        with contextlib.suppress(Exception):  # then it runs out
            await self._board().withdraw([key], WITHDRAW_TIMEOUT)

    def _receive(self, announcement: Announcement) -> None:
        role = announcement.role
        if role not in self._roles:
            return
        self.pending(role)  # drops what has expired
        expires_at = asyncio.get_running_loop().time() + announcement.remaining
        self._kept.setdefault(role, {})[announcement.key] = (announcement, expires_at)
        self._on_arrival(role)
