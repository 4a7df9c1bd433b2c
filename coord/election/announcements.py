"""Announcements of a coordinator: its candidates that wait, and the requests to its leaders.

Nothing here decides who leads, and nothing here delays or fails a leadership. What cannot be stored
is stored with the next round; what is not withdrawn expires.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Container, Sequence

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


class _Entry:
    """A candidate that waits.

    Args:
        candidate: The candidate.
        ttl: The ttl of its lease, in seconds.
        due: When its announcement is stored again, by the clock of the loop.
        on_count: Called with the number of candidates that wait for its role.
    """

    __slots__ = ("candidate", "due", "on_count", "stored", "ttl")

    def __init__(
        self, candidate: Candidate, ttl: float, due: float, on_count: Callable[[int], None]
    ) -> None:
        self.candidate, self.ttl, self.due, self.on_count = candidate, ttl, due, on_count
        self.stored = False
        """Whether the store may have its announcement."""


class CandidateAnnouncer:
    """Announces the candidates of a session that wait, on one event loop.

    Candidates with the same ttl are announced together, once a ttl, at a phase of the ttl that each
    process draws at random.

    Args:
        announcements: Returns the announcements of the store, or raises `BadArgument` if it keeps
            none.
    """

    def __init__(self, announcements: Callable[[], Announcements]) -> None:
        self._announcements = announcements
        self._entries: dict[str, _Entry] = {}
        self._to_withdraw: set[str] = set()
        self._due = math.inf
        self._on_earlier_check = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._phase = rng.random()
        self._failing = self._warned = False

    def add(
        self, candidate: Candidate, ttl: float, on_count: Callable[[int], None]
    ) -> Callable[[], None]:
        """Announce a candidate with the next round.

        Args:
            candidate: The candidate.
            ttl: The ttl of its lease, in seconds.
            on_count: Called after rounds with the number of candidates that wait for its role.

        Returns:
            A function that withdraws the announcement.
        """
        try:
            self._announcements()
        except BadArgument:  # a store of another package, which keeps none
            return lambda: None
        loop = asyncio.get_running_loop()
        entry = _Entry(candidate, ttl, loop.time() + min(COALESCE_DELAY, ttl / 10), on_count)
        entry.stored = candidate.key in self._to_withdraw
        self._to_withdraw.discard(candidate.key)
        self._entries[candidate.key] = entry
        self._check_at(entry.due)
        if self._task is None or self._task.done():
            work = restart_on_failure(self._run, "announce candidates")
            self._task = loop.create_task(work, name="coord candidates")
        return lambda: self._remove(entry)

    def _remove(self, entry: _Entry) -> None:
        key = entry.candidate.key
        if self._entries.get(key) is not entry:
            return
        del self._entries[key]
        if entry.stored:
            self._to_withdraw.add(key)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                now = asyncio.get_running_loop().time()
                self._check_at(now + min(COALESCE_DELAY, entry.ttl / 10))
        elif not self._entries and not self._to_withdraw:
            self._check_at(-math.inf)  # nothing was stored, so the task may end

    def knows(self, key: str) -> bool:
        """Return whether the announcement `key` is one of this process."""
        return key in self._entries or key in self._to_withdraw

    async def close(self) -> None:
        """Withdraw all announcements, if the store answers."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        stored = {key for key, entry in self._entries.items() if entry.stored}
        keys = self._to_withdraw | stored
        self._entries, self._to_withdraw = {}, set()
        if keys and not self._failing:
            with contextlib.suppress(Exception):  # they expire by themselves
                await self._announcements().withdraw(keys, CLOSE_TIMEOUT)

    def _check_at(self, time: float) -> None:
        if time < self._due:
            self._due = time
            self._on_earlier_check.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._entries or self._to_withdraw:
            self._on_earlier_check.clear()
            if (delay := self._due - loop.time()) > 0:
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(self._on_earlier_check.wait(), delay)
                continue
            self._due = math.inf
            await self._round()
            for entry in self._entries.values():
                self._check_at(entry.due)

    async def _round(self) -> None:
        now = asyncio.get_running_loop().time()
        due = [entry for entry in self._entries.values() if entry.due <= now]
        timeout = min([MAX_QUERY_TIME, *(entry.ttl / 6 for entry in due)])
        withdrawn = set(self._to_withdraw)
        for entry in due:
            entry.stored, entry.due = True, self._next_round(entry.ttl, now)
        try:
            announcements = self._announcements()
            if withdrawn:
                await announcements.withdraw(withdrawn, timeout)
                self._to_withdraw -= withdrawn
            new = [entry.candidate.announcement(LIFETIME_TTLS * entry.ttl) for entry in due]
            counts = await self._post(announcements, new, timeout)
            for entry in self._entries.values():
                if (count := counts.get(entry.candidate.role)) is not None:
                    entry.on_count(count)
        except Exception as err:  # whatever a store does, candidates go on
            self._failed(err, withdrawn)
        else:
            self._failing = False

    def _failed(self, err: Exception, withdrawn: set[str]) -> None:
        # The next round tries again. What cannot be withdrawn then has nearly expired.
        if self._failing or not self._entries:
            self._to_withdraw -= withdrawn
        if isinstance(err, StoreRefused):  # there is no table, so nothing was stored
            self._to_withdraw.clear()
            for entry in self._entries.values():
                entry.stored = False
        self._failing = True
        if not self._warned:
            self._warned = True
            log.warning("announcements.not_stored", because=str(err) or type(err).__name__)

    @staticmethod
    async def _post(
        announcements: Announcements, new: Sequence[Announcement], timeout: float
    ) -> dict[str, int]:
        counts: dict[str, int] = {}
        for start in range(0, len(new), MAX_PER_QUERY):
            counts.update(await announcements.post(new[start : start + MAX_PER_QUERY], timeout))
        return counts

    def _next_round(self, ttl: float, now: float) -> float:
        """Return the first time at this phase of the ttl that is at least half a ttl away."""
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
        announcements: Returns the announcements of the store, or raises `BadArgument` if it keeps
            none.
        roles: The roles whose announcements are kept; others cost nothing.
        on_arrival: Called with the role of each announcement that is kept.
    """

    def __init__(
        self,
        announcements: Callable[[], Announcements],
        roles: Container[str],
        on_arrival: Callable[[str], None],
    ) -> None:
        self._announcements, self._roles = announcements, roles
        self._on_arrival = on_arrival
        self._kept: dict[str, dict[str, tuple[Announcement, float]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Listen from now on, if the store keeps announcements."""
        if self._task is None or self._task.done():
            try:
                self._announcements()
            except BadArgument:  # a store of another package, which keeps none
                return
            self._task = asyncio.get_running_loop().create_task(
                reconnecting(
                    lambda: self._announcements().watch(),
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
        requests = self._kept.get(role)
        if not requests:
            return []
        now = asyncio.get_running_loop().time()
        for key in [key for key, (_, expires_at) in requests.items() if expires_at <= now]:
            del requests[key]
        return [announcement for announcement, _ in requests.values()]

    def done(self, role: str, key: str) -> None:
        """Forget a request that was carried out, and withdraw it, so that nobody waits for it."""
        self._kept.get(role, {}).pop(key, None)
        task = asyncio.get_running_loop().create_task(self._withdraw(key), name="coord withdraw")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def forget_candidate(self, role: str, candidate: str) -> None:
        """Forget a candidate until it is announced again."""
        self._kept.get(role, {}).pop(Candidate(role, candidate).key, None)

    async def _withdraw(self, key: str) -> None:
        with contextlib.suppress(Exception):  # it expires by itself
            await self._announcements().withdraw([key], WITHDRAW_TIMEOUT)

    def _receive(self, announcement: Announcement) -> None:
        role = announcement.role
        if role not in self._roles:
            return
        self.pending(role)  # drops what has expired
        expires_at = asyncio.get_running_loop().time() + announcement.remaining
        self._kept.setdefault(role, {})[announcement.key] = (announcement, expires_at)
        self._on_arrival(role)
