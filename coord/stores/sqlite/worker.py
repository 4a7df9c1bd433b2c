"""How a thread tells a loop that something is done: by an eventfd where there is one, in two thirds
of the time.

`call_soon_threadsafe` sends a byte through a pair of sockets, and the loop reads them twice, to see
that there is no more. The thread of a store does it for every claim."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import queue
import random
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from coord.errors import StoreRefused, StoreUnavailable
from coord.runtime.timers import DeadlineTimer
from coord.stores.sqlite.connection import Connection
from coord.stores.sqlite.errors import BUSY, Abandoned, Busy, CommitUnknown, classify, code

Wake = Callable[[], None]


class LoopWaker:
    """Of one loop, on which it is made and closed; only `ring` may be called from elsewhere.

    file: whether it may open one. Without, and on other systems than Linux, it does it by
    `call_soon_threadsafe`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, file: bool = True) -> None:
        self.loop = loop
        self.alarm = DeadlineTimer(loop)
        self._lock = threading.Lock()
        self._rung: deque[Wake] = deque()  # emptied without the lock: no swap, but one by one
        self._fd = -1
        if not file or not hasattr(os, "eventfd"):
            return
        with contextlib.suppress(OSError):  # no more files may be opened
            self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            try:
                loop.add_reader(self._fd, self._hear)
            except BaseException as err:
                self._let_go()
                if not isinstance(
                    err, NotImplementedError
                ):  # there are loops that wait for no files
                    raise

    def ring(self, wake: Wake) -> None:
        """Have `wake` called on the loop. Once that is closed nobody waits, and nothing happens."""
        with self._lock:  # a number that was closed may be another file's by now
            if self._fd >= 0:
                self._rung.append(wake)
                os.eventfd_write(self._fd, 1)
                return
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(wake)

    def _hear(self) -> None:
        with contextlib.suppress(OSError):  # whoever forked has read it, or it was closed just now
            os.eventfd_read(self._fd)
        self._wake()

    def _wake(self) -> None:
        while self._rung:
            self._rung.popleft()()

    def close(self) -> None:
        """Let go of the file. What is rung from here on goes the longer way."""
        with self._lock:
            if self._fd >= 0 and not self.loop.is_closed():
                self.loop.remove_reader(self._fd)
            self._let_go()
        if not self.loop.is_closed():
            self._wake()

    def forget(self) -> None:
        """In a forked child, where the lock may be held for ever: close its copy of the file, and
        no more."""
        fd = self._let_go()
        if fd >= 0 and not self.loop.is_closed():
            # Who goes on with this loop, which the parent left, gets a file of the same number
            # next: the loop must not take it for this one. Only now that it is closed here: the
            # kernel's list may still be the parent's, too.
            self.loop.remove_reader(fd)

    def __del__(self) -> None:
        self._let_go()  # its loop was closed, and nobody closed it before

    def _let_go(self) -> int:
        """The number that the file had, if there was one."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # daemons close all files that they find
                os.close(fd)
        return fd


# -- A thread for a store's SQLite work, and the bounds of each piece of it. Not the loop's pool,
# which other code fills up, nor concurrent.futures, whose threads the interpreter waits for at
# exit: a disk that hangs must hang neither.
#

T = TypeVar("T")
BUSY_RETRY_DELAY = (0.0005, 0.004)
"""Seconds between tries while another connection has the lock: drawn, so that many do not try in
step."""


class Stage(enum.Enum):
    QUEUED = "queued"
    RUNNING = "running"  # nothing of it will be there unless it is committed
    COMMITTING = "committing"  # only now is its outcome unknown
    DONE = "done"


class Job(Generic[T]):
    """One call of a store: `work(job, handle)` on the worker's thread, its result on the caller's
    loop.

    Work may be tried several times; it changes nothing but by `commit`.
    """

    __slots__ = (
        "_bell",
        "_error",
        "_given_up",
        "_lock",
        "_stage",
        "_value",
        "_work",
        "deadline",
        "finished",
        "until",
    )

    def __init__(
        self, work: Callable[[Job[T], Connection], T], timeout: float, bell: LoopWaker
    ) -> None:
        self._work, self._bell = work, bell
        # A little less than the caller waits, so that the answer "busy" still reaches him.
        self.deadline = time.monotonic() + timeout - min(0.02, timeout / 10)
        self.until = bell.loop.time() + max(0.0, timeout)
        """When its caller waits no more, by the loop's clock."""
        self.finished: asyncio.Future[None] = bell.loop.create_future()
        self._lock = threading.Lock()
        self._stage = Stage.QUEUED
        self._given_up = False
        self._value: T | None = None
        self._error: BaseException | None = None

    def give_up(self) -> Stage:
        """From now on it does not begin and does not commit. Returns how far it had come."""
        with self._lock:
            self._given_up = True
            return self._stage

    def wake(self) -> None:
        """On the loop: whoever waits looks at what has become of it."""
        if not self.finished.done():
            self.finished.set_result(None)

    def result(self) -> T:
        """What came of it, once it is done."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value] # done without an error: it is a T

    def commit(self, handle: Connection) -> None:
        """COMMIT, unless the caller gave up, the time is over or the file is gone. Then nothing is
        written."""
        handle.check_place()
        self._enter(Stage.COMMITTING)
        try:
            handle.connection().execute("COMMIT")
        except sqlite3.Error as err:
            if code(err) == BUSY:
                raise  # not committed: rolled back, and tried again
            raise CommitUnknown(str(classify(err, handle.path))) from err

    def run(self, handle: Connection) -> None:
        """On the worker's thread. Raises nothing."""
        try:
            value = self._attempts(handle)
        except BaseException as err:  # carried over to the caller, whatever it is
            self._finish(None, err)
        else:
            self._finish(value, None)

    def _attempts(self, handle: Connection) -> T:
        busy: Busy | None = None
        while True:
            try:
                self._enter(Stage.RUNNING)
            except Abandoned:
                raise busy or Abandoned(
                    "no time was left"
                ) from None  # slept too long: what he waited for
            try:
                with handle:
                    return self._attempt(handle)
            except Busy as err:
                busy = err
                pause = random.uniform(*BUSY_RETRY_DELAY)  # noqa: S311 # no secret
                if time.monotonic() + pause >= self.deadline:
                    raise
                time.sleep(pause)

    def _attempt(self, handle: Connection) -> T:
        try:
            return self._work(self, handle)
        except sqlite3.Error as err:
            sorted_out = classify(err, handle.path)
            handle.roll_back()
            if not isinstance(sorted_out, Busy):
                handle.drop()
            raise sorted_out from err
        except Abandoned:
            handle.roll_back()
            raise
        except BaseException:
            # A deleted file, a doubtful commit, a defect: nothing more over this connection.
            handle.roll_back()
            handle.drop()
            raise

    def _enter(self, stage: Stage) -> None:
        with self._lock:
            if self._given_up or time.monotonic() >= self.deadline:
                raise Abandoned("no time was left")
            self._stage = stage

    def _finish(self, value: T | None, error: BaseException | None) -> None:
        with self._lock:
            self._value, self._error, self._stage = value, error, Stage.DONE
        self._bell.ring(self.wake)


class Worker:
    """The thread. It ends by `stop`, and never keeps the interpreter from ending."""

    def __init__(self, handle: Connection) -> None:
        self._queue: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self.handle = handle
        try:
            threading.Thread(
                target=self._run, args=(handle, self._queue), name="coord sqlite", daemon=True
            ).start()
        except RuntimeError as err:
            raise StoreUnavailable(f"no thread could be started for {handle.path}: {err}") from None

    def put(self, job: Job[Any]) -> None:
        self._queue.put(job)

    def stop(self) -> list[Job[Any]]:
        """End once the present job is over, and close the connection. Returns the jobs that had not
        been begun."""
        rest: list[Job[Any]] = []
        while True:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                rest.append(job)
        self._queue.put(None)
        return rest

    @staticmethod
    def _run(handle: Connection, jobs: queue.SimpleQueue[Job[Any] | None]) -> None:
        while (job := jobs.get()) is not None:
            job.run(handle)
            del job
        with contextlib.suppress(StoreRefused), handle:  # a child that may not touch SQLite
            handle.drop()
