"""One SQLite file, the thread that works on it, and the feeds that watch it.

Leases, announcements and service records are each built on a `Database`. It knows none of them: it
runs work on its thread, bounds the time that a caller waits for it, and replaces a thread that does
not answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from coord.errors import BadArgument, NotSetUp, StoreRefused, StoreUnavailable
from coord.runtime import process
from coord.runtime.clock import StoreClock
from coord.stores.sqlite import files, schema
from coord.stores.sqlite.connection import Connection, leak
from coord.stores.sqlite.feed import Feed
from coord.stores.sqlite.filesystems import MOUNTS
from coord.stores.sqlite.lease_clock import LeaseClock
from coord.stores.sqlite.url import IN_MEMORY
from coord.stores.sqlite.worker import Job, LoopWaker, Stage, Worker

T = TypeVar("T")

CLOSE_TIMEOUT = 0.9
"""Maximum time in seconds that `close` waits for the file to be closed."""
FEED_CHECK_INTERVAL = 0.002
"""Time in seconds between the checks of `close` whether the feeds have ended."""


class TooLate(StoreUnavailable):
    """The thread did not answer in time."""

    def __init__(self, path: str, seconds: float, stage: Stage) -> None:
        self.stage = stage
        super().__init__(f"{path}: no answer within {seconds:g} s ({stage.value})")


class Database:
    """One file, its worker thread and its feeds. Nothing is opened before the first use.

    While a process uses a database, nothing else in the process may open and close its file: POSIX
    would drop SQLite's locks (sqlite.org/howtocorrupt.html, 2.2).

    Attributes:
        path: Absolute path of the file.
        clock: The clock by which leases, announcements and records expire.
    """

    def __init__(
        self,
        path: str,
        *,
        local: bool = False,
        clock: StoreClock | None = None,
        mounts: str = MOUNTS,
    ) -> None:
        """Create a database.

        Args:
            path: Path of the file. The first write creates the file (mode 0o600) and its
                directories if they are missing. A relative path starts at the current directory
                of the process.
            local: Whether the user states that the file system of the file is local.
            clock: A clock for tests.
            mounts: A list of mounts for tests, in the format of /proc/self/mountinfo.

        Raises:
            BadArgument: `path` is not the path of a file.
        """
        if not isinstance(path, str) or not path or "\0" in path:
            raise BadArgument("path", path, "must be the path of a file")
        if os.path.basename(path) == ":memory:":
            raise BadArgument("path", path, IN_MEMORY)
        self.path = files.absolute_path(path)
        self._local = local
        self.clock = LeaseClock(self.path, clock)
        self._mounts = mounts
        self._worker: Worker | None = None
        self._waker: LoopWaker | None = None
        self._second_waker: LoopWaker | None = None
        """For a second event loop that uses the database at the same time; it opens no file."""
        self._feeds: set[Feed[Any]] = set()
        self._generation = process.fork_generation

    def __del__(self) -> None:
        worker, waker = getattr(self, "_worker", None), getattr(self, "_waker", None)
        if worker is not None and self._generation == process.fork_generation:
            worker.stop()
        if waker is not None and self._generation == process.fork_generation:
            try:
                waker.loop.call_soon_threadsafe(waker.close)
            except RuntimeError:  # the loop is closed
                waker.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    async def open(self, timeout: float) -> None:
        """Open the file, and check that it is a file of coord.

        A missing file is not created; it is only checked that it could be.

        Raises:
            StoreUnavailable: The file could not be opened within `timeout` seconds.
            StoreRefused: The file cannot be used. The message names the path.
        """

        def check(_: Job[None], connection: Connection) -> None:
            try:
                conn = connection.sqlite()
            except NotSetUp:
                files.check_creatable(self.path, self._mounts, local=self._local)
            else:
                schema.check_owner(conn, self.path)

        await self.run(check, timeout)

    async def create(self, timeout: float) -> None:
        """Open the file, and create it if it does not exist. Raises as `open`."""
        await self.run(lambda _, connection: connection.sqlite(create=True), timeout)

    async def run(self, work: Callable[[Job[T], Connection], T], timeout: float) -> T:
        """Run `work` on the thread, and return its result.

        Work whose caller was cancelled or does not wait any longer commits nothing later.

        Args:
            work: It may be called several times, and changes nothing except by `job.commit`.
            timeout: Maximum time to wait in seconds.

        Raises:
            TooLate: The thread did not answer in time.
            StoreUnavailable: The file is busy, or the file system has a problem.
            StoreRefused: The file cannot be used.
        """
        self._after_fork()
        if self._worker is None:
            self._worker = Worker(self._connection())
        worker, loop, waker = self._worker, asyncio.get_running_loop(), self._waker
        if waker is None or waker.loop is not loop:
            waker = self._waker_of(loop)
        job = Job(work, timeout, waker)
        worker.put(job)
        waker.deadlines.add(job)
        try:
            await job.finished
        except BaseException:
            job.abandon()
            raise
        finally:
            waker.deadlines.remove(job)
        if job.done:
            return job.result()
        stage = job.abandon()
        if stage is Stage.DONE:
            return job.result()
        if stage is not Stage.QUEUED:
            self._replace(worker)
        if stage is Stage.RUNNING and (reason := job.lock_error(self.path)) is not None:
            raise reason
        raise TooLate(self.path, timeout, stage)

    async def write(
        self, work: Callable[[sqlite3.Connection], T], timeout: float, *, create: bool = True
    ) -> T:
        """Run `work` in one transaction on the thread, commit it, and return its result.

        The commit does not wait for the disk: it survives a crash of every process, but perhaps
        not a power failure. Raises as `run`, and `NotSetUp` if the file does not exist and `create`
        is False.
        """

        def transaction(job: Job[T], connection: Connection) -> T:
            conn = connection.begin(synced=False, create=create)
            result = work(conn)
            job.commit(connection)
            return result

        return await self.run(transaction, timeout)

    async def feed(self, make: Callable[[Connection], Feed[T]]) -> AsyncGenerator[T, None]:
        """Yield what a feed reads, until the generator is closed.

        Args:
            make: Creates the feed for a connection of its own.

        Raises:
            StoreUnavailable: The feed failed, or the database was closed.
        """
        self._after_fork()
        feed = make(self._connection())
        feed.start()
        self._feeds = {feed, *(other for other in self._feeds if not other.ended)}
        try:
            while True:
                for row in await feed.next_rows():
                    yield row
        finally:
            feed.stop()

    async def close(self) -> None:
        """Release the thread and the file. The next use opens the file again."""
        self._after_fork()
        for feed in self._feeds:
            feed.fail("the store was closed")
        await self._wait_for_feeds()
        if self._worker is not None:
            # A thread that is stuck closes the file when it comes back.
            with contextlib.suppress(StoreUnavailable, StoreRefused):
                await self.run(lambda _, connection: connection.close(), CLOSE_TIMEOUT)
        if self._worker is not None:
            worker, self._worker = self._worker, None
            for job in worker.stop():
                job.abandon()
        self.clock.close()
        if self._waker is not None and self._waker.loop is asyncio.get_running_loop():
            self._waker.close()
            self._waker = None

    def abandon(self) -> None:
        """Forget everything that was inherited, in a forked child.

        The connections were closed before the fork. If one was not, `connection.leak` keeps it.
        """
        if self._worker is not None:
            leak(self._worker)
        for feed in self._feeds:
            feed.stopped = True
            leak(feed)
        if self._waker is not None:
            self._waker.abandon()
        self.clock.abandon()
        self._worker, self._waker, self._second_waker = None, None, None
        self._feeds, self._generation = set(), process.fork_generation

    async def _wait_for_feeds(self) -> None:
        # After `close` the caller may copy, move or replace the file, so no feed may still use it.
        for _ in range(int(CLOSE_TIMEOUT / 2 / FEED_CHECK_INTERVAL)):
            self._feeds = {feed for feed in self._feeds if not feed.ended}
            if not self._feeds:
                return
            await asyncio.sleep(FEED_CHECK_INTERVAL)

    def _after_fork(self) -> None:
        if self._generation != process.fork_generation:
            self.abandon()

    def _connection(self) -> Connection:
        return Connection(self.path, self._mounts, local=self._local)

    def _waker_of(self, loop: asyncio.AbstractEventLoop) -> LoopWaker:
        """Return the waker of a loop that is not the one of `self._waker`."""
        waker = self._waker
        if waker is not None:
            if not waker.loop.is_closed():  # two loops use the database at the same time
                second = self._second_waker
                if second is None or second.loop is not loop:
                    second = self._second_waker = LoopWaker(loop, file=False)
                return second
            waker.close()
        self._waker = LoopWaker(loop)
        return self._waker

    def _replace(self, worker: Worker) -> None:
        """Give the next calls, and the jobs behind the stuck one, a new thread."""
        if self._worker is not worker:
            return
        self._worker = None
        if jobs := worker.stop():
            self._worker = Worker(self._connection())
            for job in jobs:
                self._worker.put(job)
