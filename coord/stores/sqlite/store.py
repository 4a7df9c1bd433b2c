"""`SQLiteStore`: the face that the rest of coord sees. It waits; a thread of its own works
(worker.py)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any, TypeVar

from coord.core.history import PastTerm
from coord.core.lease import Lease
from coord.core.operations import Claim, Failure, Release, Renew, Result
from coord.errors import BadArgument, StoreRefused, StoreUnavailable
from coord.runtime.clock import StoreClock, machine_clock
from coord.stores.protocol import Announcements, Records
from coord.stores.sqlite import connection, schema, swaps
from coord.stores.sqlite.connection import Connection
from coord.stores.sqlite.errors import CommitUnknown
from coord.stores.sqlite.feed import Feed, LeaseFeed
from coord.stores.sqlite.worker import Job, LoopWaker, Stage, Worker

T = TypeVar("T")
CLOSE_WITHIN = 0.9
"""Seconds that `close` waits for the file to be closed."""


class TooLate(StoreUnavailable):
    """The thread did not answer in time."""

    def __init__(self, path: str, seconds: float, stage: Stage) -> None:
        self.stage = stage
        super().__init__(f"{path}: no answer within {seconds:g} s ({stage.value})")


class SQLiteStore:
    """Leases in one file, for all processes of one machine. Nothing is touched before the first
    use.

    path: of the file; it and its directories are made when they are missing (0o600, 0o700). A
    relative one is taken
        from where the process is now. ":memory:" raises `BadArgument`: every connection would see a
        file of its own (use `memory://name`).
    url: what `url` is to say, when it was made from one.
    clock: for tests.
    mounts: for tests: the list of mounts, by which a network file system is refused.

    While a process uses a store, nothing else in it may open and close that file: POSIX would drop
    SQLite's locks (sqlite.org/howtocorrupt.html, 2.2)."""

    def __init__(
        self,
        path: str,
        *,
        url: str | None = None,
        clock: StoreClock | None = None,
        mounts: str = connection.MOUNTS,
    ) -> None:
        if not isinstance(path, str) or not path or "\0" in path or path == ":memory:":
            raise BadArgument(
                "path", path, "the path of a file (for one process's memory there is memory://name)"
            )
        self.path = os.path.abspath(path)
        self.url = connection.url(self.path) if url is None else url
        self._clock = machine_clock() if clock is None else clock
        self.max_clock_skew: float | None = self._clock.skew
        self._mounts = mounts
        self._worker: Worker | None = None
        self._bell: LoopWaker | None = None
        self._second: LoopWaker | None = None  # without a file
        self._feeds: set[Feed[Any]] = set()
        self._pid = os.getpid()

    def __del__(self) -> None:
        worker, bell = getattr(self, "_worker", None), getattr(self, "_bell", None)
        if worker is not None and self._pid == os.getpid():
            worker.stop()
        if bell is not None and self._pid == os.getpid():
            try:
                bell.loop.call_soon_threadsafe(bell.close)
            except RuntimeError:  # the loop is closed
                bell.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    async def open(self, timeout: float) -> None:
        """Raises `StoreUnavailable`, `AccessDenied` or `StoreRefused`, naming the path."""
        await self._ask(
            lambda _, handle: schema.check_owner(handle.connection(), self.path), timeout
        )

    async def claim(self, claim: Claim, timeout: float) -> Result:
        return await self._swap_one(claim, timeout)

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        if not renewals:
            return []
        return await self._swap(
            lambda job, handle: swaps.renew_many(job, handle, self._clock, renewals),
            timeout,
            len(renewals),
        )

    async def release(self, release: Release, timeout: float) -> Result:
        return await self._swap_one(release, timeout)

    async def swap_all(self, asked: Sequence[Claim | Release], timeout: float) -> Sequence[Result]:
        until, done = asyncio.get_running_loop().time() + timeout, list[Result]()

        def swap(job: Job[Sequence[Result]], handle: Connection) -> Sequence[Result]:
            return swaps.swap_all(job, handle, self._clock, rest)

        while rest := asked[len(done) :]:
            left = max(until - asyncio.get_running_loop().time(), 0.0)
            done += await self._swap(swap, left, len(rest))
        return done

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        wanted = None if roles is None else tuple(roles)
        return await self._ask(lambda _, handle: swaps.read(handle, self._clock, wanted), timeout)

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        wanted = None if roles is None else tuple(roles)
        return await self._ask(lambda _, handle: swaps.history(handle, wanted), timeout)

    def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        return self._hear(lambda: LeaseFeed(self._handle(), self._clock, roles))

    async def _hear(self, make: Callable[[], Feed[T]]) -> AsyncIterator[T]:
        self._after_fork()
        feed = make()
        feed.start()
        self._feeds = {feed, *(one for one in self._feeds if not one.ended)}
        try:
            while True:
                for row in await feed.take():
                    yield row
        finally:
            feed.stop()

    def announcements(self) -> Announcements:
        """Return the announcements in the same file."""
        from coord.stores.sqlite.announcements import SQLiteAnnouncements

        return SQLiteAnnouncements(self)

    def records(self, table: str) -> Records:
        """Return the service records of `table` in the same file."""
        from coord.stores.sqlite.records import SQLiteRecords

        return SQLiteRecords(self, table)

    async def close(self) -> None:
        """Let go of thread and file. A store that is used again opens it anew."""
        self._after_fork()
        for feed in self._feeds:
            feed.fail("the store was closed")
        await self._feeds_end()
        if self._worker is not None:
            with contextlib.suppress(
                StoreUnavailable, StoreRefused
            ):  # a stuck thread closes it when it comes back
                await self._ask(lambda _, handle: handle.drop(), CLOSE_WITHIN)
        if self._worker is not None:
            worker, self._worker = self._worker, None
            for job in worker.stop():
                job.give_up()
        if self._bell is not None and self._bell.loop is asyncio.get_running_loop():
            self._bell.close()
            self._bell = None

    def abandon(self) -> None:
        """In a forked child. The connections were closed before the fork; if one was not, forks.py
        keeps it."""
        if self._worker is not None:
            connection.leak(self._worker)
        for feed in self._feeds:
            feed.stopped = True
            connection.leak(feed)
        if self._bell is not None:
            self._bell.forget()
        self._worker, self._bell, self._second = None, None, None
        self._feeds, self._pid = set(), os.getpid()

    # -- inside
    # -------------------------------------------------------------------------------------------------

    async def _feeds_end(self) -> None:
        """Who closes a store may then copy, move or replace its file."""
        for _ in range(int(CLOSE_WITHIN / 2 / 0.002)):
            self._feeds = {feed for feed in self._feeds if not feed.ended}
            if not self._feeds:
                return
            await asyncio.sleep(0.002)

    def _after_fork(self) -> None:
        if self._pid != os.getpid():
            self.abandon()

    def _handle(self) -> Connection:
        return Connection(self.path, self._mounts)

    def _bell_here(self) -> LoopWaker:
        """The bell of the running loop."""
        loop, bell = asyncio.get_running_loop(), self._bell
        if bell is not None and bell.loop is loop:
            return bell
        if bell is not None:
            if not bell.loop.is_closed():  # who drives a store from two loops at once
                second = self._second
                if second is None or second.loop is not loop:
                    second = self._second = LoopWaker(loop, file=False)
                return second
            bell.close()
        self._bell = LoopWaker(loop)
        return self._bell

    async def _swap_one(self, asked: Claim | Release, timeout: float) -> Result:
        (result,) = await self._swap(
            lambda job, handle: [swaps.swap(job, handle, self._clock, asked)], timeout, 1
        )
        return result

    async def _swap(
        self,
        work: Callable[[Job[Sequence[Result]], Connection], Sequence[Result]],
        timeout: float,
        count: int,
    ) -> Sequence[Result]:
        """What came of so many swaps in one transaction."""
        try:
            return await self._ask(work, timeout)
        except StoreUnavailable as err:
            unknown = isinstance(err, CommitUnknown) or (
                isinstance(err, TooLate) and err.stage is Stage.COMMITTING
            )
            failure = Failure(unknown=unknown, detail=str(err))
        except StoreRefused as err:
            failure = Failure(unknown=False, detail=str(err), permanent=True)
        return [failure] * count

    async def _ask(self, work: Callable[[Job[T], Connection], T], timeout: float) -> T:
        """Have the thread do it. A caller who is cancelled, or waits no more, leaves nothing behind
        that may commit."""
        self._after_fork()
        if self._worker is None:
            self._worker = Worker(self._handle())
        worker = self._worker
        bell = self._bell_here()
        job = Job(work, timeout, bell)
        worker.put(job)
        bell.alarm.add(job)
        try:
            await job.finished
        except BaseException:
            job.give_up()
            raise
        finally:
            bell.alarm.remove(job)
        stage = job.give_up()
        if stage is Stage.DONE:
            return job.result()
        if stage is not Stage.QUEUED:
            self._replace(worker)
        raise TooLate(self.path, timeout, stage)

    def _replace(self, worker: Worker) -> None:
        """The thread is stuck: the next call gets another, and so do those that wait behind the
        stuck one."""
        if self._worker is not worker:
            return
        self._worker = None
        if rest := worker.stop():
            self._worker = Worker(self._handle())
            for job in rest:
                self._worker.put(job)
