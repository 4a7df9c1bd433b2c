"""The candidates of one coordinator that wait, on the board, so that people and leaders can see them.

Only that: nothing here decides who leads, and nothing of it delays or fails a leadership. What cannot be posted is
posted with the next round; what is not withdrawn runs out.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coord import events
from coord.bounded import bounded
from coord.candidate import Candidate
from coord.errors import BadArgument, StoreRefused
from coord.notice import Notice

if TYPE_CHECKING:
    from coord.board.protocol import Board

SOON = 1.0
"""Seconds, at most, between what changes and the round that says so: many changes go in one query."""
STANDS_FOR = 3.0
"""A notice stands for so many ttls of the lease: it is posted anew after 0.5 to 1.5, and one round may fail."""
MANY = 1_000
"""Notices to one query."""
LONGEST = 5.0
"""Seconds that a query may take, at most; a sixth of the shortest ttl in it, as every attempt of a candidate."""
FAREWELL = 1.0
"""Seconds that the end of a coordinator waits for its notices to be taken away."""


@dataclass(slots=True, eq=False)
class _Listed:
    candidate: Candidate
    ttl: float
    due: float
    heard: Callable[[int], None]
    posted: bool = False
    """Whether it may be on the board, and is to be taken away."""


class Waiting:
    """`board` gives the board, or raises `BadArgument` where the store has none. Lives on one loop.

    Candidates of one ttl are posted anew together, once a ttl. When in it is drawn: processes are not to do it in step.
    """

    def __init__(self, board: Callable[[], Board]) -> None:
        self._board = board
        self._listed: dict[str, _Listed] = {}
        self._gone: set[str] = set()
        self._due = math.inf
        self._sooner = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._phase = random.random()  # noqa: S311 # no secret
        self._failing = self._told = False

    def add(self, candidate: Candidate, ttl: float, heard: Callable[[int], None]) -> Callable[[], None]:
        """List it, soon; `heard` is told, now and then, how many wait for its role. Returns what ends that."""
        try:
            self._board()
        except BadArgument:  # a store of somebody else's, without one
            return lambda: None
        loop = asyncio.get_running_loop()
        one = _Listed(candidate, ttl, loop.time() + min(SOON, ttl / 10), heard)
        one.posted = candidate.key in self._gone
        self._gone.discard(candidate.key)
        self._listed[candidate.key] = one
        self._look_at(one.due)
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run(), name="coord waiting")
        return lambda: self._remove(one)

    def _remove(self, one: _Listed) -> None:
        key = one.candidate.key
        if self._listed.get(key) is not one:
            return
        del self._listed[key]
        if one.posted:
            self._gone.add(key)
            with contextlib.suppress(RuntimeError):  # no loop runs any more
                self._look_at(asyncio.get_running_loop().time() + min(SOON, one.ttl / 10))
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
                await self._board().withdraw(gone, FAREWELL)

    # -- the rounds ----------------------------------------------------------------------------------------------

    def _look_at(self, moment: float) -> None:
        if moment < self._due:
            self._due = moment
            self._sooner.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._listed or self._gone:
            self._sooner.clear()
            if (left := self._due - loop.time()) > 0:
                with contextlib.suppress(asyncio.TimeoutError):
                    await bounded(self._sooner.wait(), left)
                continue
            self._due = math.inf
            await self._round()
            for one in self._listed.values():
                self._look_at(one.due)

    async def _round(self) -> None:
        now = asyncio.get_running_loop().time()
        due = [one for one in self._listed.values() if one.due <= now]
        timeout = min([LONGEST, *(one.ttl / 6 for one in due)])
        gone = set(self._gone)
        for one in due:
            one.posted, one.due = True, self._next(one.ttl, now)
        try:
            board = self._board()
            if gone:
                await board.withdraw(gone, timeout)
                self._gone -= gone
            waiting = await self._post(board, [one.candidate.notice(STANDS_FOR * one.ttl) for one in due], timeout)
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
            events.warning("board.not_posted", because=str(err) or type(err).__name__)

    @staticmethod
    async def _post(board: Board, notices: Sequence[Notice], timeout: float) -> dict[str, int]:
        waiting: dict[str, int] = {}
        for begin in range(0, len(notices), MANY):
            waiting.update(await board.post(notices[begin : begin + MANY], timeout))
        return waiting

    def _next(self, ttl: float, now: float) -> float:
        """When those of this ttl are posted anew: the first such moment that is half a ttl away."""
        return (math.ceil(now / ttl + 0.5 - self._phase) + self._phase) * ttl
