"""The thread that does a store's SQLite work, and how it tells an event loop about the results.

The thread is neither one of the loop's thread pool, which other code may fill up, nor one of
concurrent.futures, whose threads the interpreter waits for at exit: a disk that does not answer
must block neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from coord.errors import CoordError, StoreRefused, StoreUnavailable
from coord.runtime import log
from coord.runtime.log_writer import LogWriter
from coord.runtime.retry import rng
from coord.runtime.timers import DeadlineTimer
from coord.stores.sqlite import locks
from coord.stores.sqlite.connection import Connection
from coord.stores.sqlite.errors import (
    BUSY,
    Abandoned,
    Busy,
    CommitUnknown,
    WriteLocked,
    classify,
    code,
)

Callback = Callable[[], None]


class LoopWaker:
    """Calls functions on an event loop, from other threads.

    `call_soon_threadsafe` sends a byte through a pair of sockets, which the loop reads twice to see
    that there are no other bytes. The thread of a store does that for every claim. An eventfd takes
    two thirds of the time. A waker is created and closed on its loop; only `wake` may be called
    from other threads.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, file: bool = True) -> None:
        """Create a waker.

        Args:
            loop: The event loop.
            file: Whether it may open an eventfd. Without one, and on systems that have none, it
                uses `call_soon_threadsafe`.
        """
        self.loop = loop
        self.deadlines = DeadlineTimer(loop)
        self._lock = threading.Lock()
        # The loop takes the callbacks one by one, without the lock.
        self._callbacks: deque[Callback] = deque()
        self._fd = -1
        if not file or not hasattr(os, "eventfd"):
            return
        with contextlib.suppress(OSError):  # the process has too many open files
            self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            try:
                loop.add_reader(self._fd, self._on_readable)
            except BaseException as err:
                self._close_fd()
                # Some loops cannot wait for files.
                if not isinstance(err, NotImplementedError):
                    raise

    def wake(self, callback: Callback) -> None:
        """Call `callback` on the loop; do nothing if the loop is closed."""
        with self._lock:  # without it, the number could belong to another file by now
            if self._fd >= 0:
                self._callbacks.append(callback)
                os.eventfd_write(self._fd, 1)
                return
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(callback)

    def _on_readable(self) -> None:
        with contextlib.suppress(OSError):  # a forked process has read it, or it was just closed
            os.eventfd_read(self._fd)
        self._run_callbacks()

    def _run_callbacks(self) -> None:
        while self._callbacks:
            self._callbacks.popleft()()

    def close(self) -> None:
        """Close the eventfd. Later calls of `wake` use `call_soon_threadsafe`."""
        with self._lock:
            if self._fd >= 0 and not self.loop.is_closed():
                self.loop.remove_reader(self._fd)
            self._close_fd()
        if not self.loop.is_closed():
            self._run_callbacks()

    def abandon(self) -> None:
        """Close the copy of the eventfd, in a forked child.

        It takes no lock, because the lock may be locked forever there.
        """
        fd = self._close_fd()
        if fd >= 0 and not self.loop.is_closed():
            # If the child continues to use this loop, its next file gets the same number, and the
            # loop must not mistake it for this one. This is done after the file was closed, because
            # the kernel's list of watched files may still be shared with the parent.
            self.loop.remove_reader(fd)

    def __del__(self) -> None:
        self._close_fd()  # the loop was closed, and nobody closed the waker before

    def _close_fd(self) -> int:
        """Close the eventfd, and return the number that it had; -1 if there was none."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # a program that becomes a daemon closes all files
                os.close(fd)
        return fd


T = TypeVar("T")
IDLE_CHECK_INTERVAL = 1.0
"""Time in seconds between two checks of the files of a connection that has nothing to do. While it
has a log open that somebody has removed, no process can open the database."""
ANSWER_MARGIN = 0.02
"""Time in seconds by which the thread gives up before its caller does, so that the caller gets the
reason."""


class Stage(enum.Enum):
    """How far a job has come."""

    QUEUED = "queued"
    RUNNING = "running"  # nothing has been written yet
    COMMITTING = "committing"  # only in this stage is the outcome unknown
    DONE = "done"


class Job(Generic[T]):
    """One piece of work for the thread, `work(job, connection)`, and its result for the loop.

    The work may be called several times. It changes nothing except by `commit`.

    Attributes:
        work_deadline: Time at which the thread gives up, by `time.monotonic`.
        deadline: Time at which the caller gives up, by the clock of its loop.
        finished: Done once the job has a result or the caller's time is over.
    """

    __slots__ = (
        "_abandoned",
        "_busy",
        "_error",
        "_lock",
        "_stage",
        "_started",
        "_value",
        "_waker",
        "_work",
        "deadline",
        "finished",
        "work_deadline",
    )

    def __init__(
        self, work: Callable[[Job[T], Connection], T], timeout: float, waker: LoopWaker
    ) -> None:
        self._work, self._waker = work, waker
        self.work_deadline = time.monotonic() + timeout - min(ANSWER_MARGIN, timeout / 10)
        self.deadline = waker.loop.time() + max(0.0, timeout)
        self.finished: asyncio.Future[None] = waker.loop.create_future()
        self._lock = threading.Lock()
        self._stage = Stage.QUEUED
        self._abandoned = False
        self._busy: Busy | None = None
        self._started = 0.0
        self._value: T | None = None
        self._error: BaseException | None = None

    def abandon(self) -> Stage:
        """Keep the job from beginning and committing, and return how far it has come."""
        with self._lock:
            self._abandoned = True
            return self._stage

    @property
    def done(self) -> bool:
        """Whether it has a result; once it has one, it keeps it."""
        return self._stage is Stage.DONE

    def on_deadline(self) -> None:
        """End the caller's wait. Called on the loop, with the result or when the time is over."""
        if not self.finished.done():
            self.finished.set_result(None)

    def lock_error(self, path: str) -> Busy | None:
        """Return why the last attempt of a job that has no result was refused; None if it was not.

        The thread may be late: it sleeps between two attempts.
        """
        return self._busy and _explained(self._busy, path, self._started)

    def result(self) -> T:
        """Return the result of a job that is done, or raise its error."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value] # done without an error: it is a T

    def commit(self, connection: Connection) -> None:
        """Commit the transaction.

        Raises:
            Abandoned: The caller does not wait any longer. Nothing is written.
            FileReplaced: The file was deleted or replaced. Nothing is written.
            CommitUnknown: COMMIT failed, and it is not known whether something was written.
        """
        connection.check_file()
        self._enter(Stage.COMMITTING)
        try:
            connection.sqlite().execute("COMMIT")
        except sqlite3.Error as err:
            if code(err) == BUSY:
                raise  # not committed; `_attempt` rolls back, and the job is tried again
            raise CommitUnknown(str(classify(err, connection.path))) from err

    def run(self, connection: Connection) -> None:
        """Do the work, on the worker's thread. Never raises."""
        try:
            value = self._attempts(connection)
        except BaseException as err:  # any exception goes to the caller
            self._finish(None, err)
        else:
            self._finish(value, None)

    def _attempts(self, connection: Connection) -> T:
        self._started = time.monotonic()
        while True:
            try:
                self._enter(Stage.RUNNING)
            except Abandoned as err:
                # After a sleep that took too long, the caller gets the reason for the sleep.
                raise self.lock_error(connection.path) or err from None
            try:
                with connection:
                    return self._attempt(connection)
            except Busy as err:
                with self._lock:
                    self._busy, self._stage = err, Stage.RUNNING  # also a COMMIT was rolled back
                pause = rng.uniform(*err.pause)
                if time.monotonic() + pause >= self.work_deadline:
                    raise _explained(err, connection.path, self._started) from None
                time.sleep(pause)

    def _attempt(self, connection: Connection) -> T:
        try:
            return self._work(self, connection)
        except sqlite3.Error as err:
            error = classify(err, connection.path)
            connection.roll_back()
            if not isinstance(error, Busy):
                connection.close()
            raise error from err
        except Abandoned:
            connection.roll_back()
            raise
        except BaseException:
            # After a deleted file, a doubtful commit or a defect the connection is not used again.
            connection.roll_back()
            connection.close()
            raise

    def _enter(self, stage: Stage) -> None:
        with self._lock:
            if self._abandoned or time.monotonic() >= self.work_deadline:
                raise Abandoned("no time was left")
            self._stage = stage

    def _finish(self, value: T | None, error: BaseException | None) -> None:
        with self._lock:
            self._value, self._error, self._stage = value, error, Stage.DONE
        self._waker.wake(self.on_deadline)


def _explained(busy: Busy, path: str, since: float) -> Busy:
    """Return the error with the process that has the lock, if it is about a lock."""
    if type(busy) is not Busy:
        return busy
    pid = locks.writer(path)
    holder, advice = (
        ("another process", f"Find it with fuser {path}, and let it continue or end it")
        if pid is None
        else (locks.describe(pid), "Let this process continue, or end it")
    )
    return WriteLocked(
        f"{path} is locked: {holder} has had its write lock for at least "
        f"{time.monotonic() - since:.1f} s. Meanwhile no role in it can be claimed or renewed. "
        f"{advice}"
    )


class Worker:
    """The thread. It ends by `stop`, and never keeps the interpreter from exiting."""

    def __init__(self, connection: Connection) -> None:
        """Start the thread. Raises `StoreUnavailable` if no thread can be started."""
        self._queue: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        try:
            # A static method, so that the thread does not keep the worker and its store alive.
            threading.Thread(
                target=self._run, args=(connection, self._queue), name="coord sqlite", daemon=True
            ).start()
        except RuntimeError as err:
            raise StoreUnavailable(
                f"no thread could be started for {connection.path}: {err}"
            ) from None

    def put(self, job: Job[Any]) -> None:
        """Add a job to the queue."""
        self._queue.put(job)

    def stop(self) -> list[Job[Any]]:
        """End the thread after its current job, and close the connection.

        Returns:
            The jobs that have not begun.
        """
        jobs: list[Job[Any]] = []
        while True:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                jobs.append(job)
        self._queue.put(None)
        return jobs

    @staticmethod
    def _run(connection: Connection, jobs: queue.SimpleQueue[Job[Any] | None]) -> None:
        log.hand_over(LogWriter().put)
        while True:
            try:
                job = jobs.get(timeout=IDLE_CHECK_INTERVAL if connection.is_open else None)
            except queue.Empty:
                with contextlib.suppress(CoordError), connection:
                    connection.close_if_replaced()
                continue
            if job is None:
                break
            job.run(connection)
            del job
        # A child that was forked at the wrong moment may not use SQLite.
        with contextlib.suppress(StoreRefused), connection:
            connection.close()
