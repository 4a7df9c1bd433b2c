"""A thread for a store's SQLite work, and the bounds of each piece of it.

Not the loop's pool, which other code fills up, nor concurrent.futures, whose threads the interpreter waits for at
exit: a disk that hangs must hang neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import queue
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from coord.errors import StoreRefused, StoreUnavailable
from coord.stores.sqlite.bell import Bell
from coord.stores.sqlite.handle import Handle
from coord.stores.sqlite.trouble import BUSY, Busy, CommitUnknown, GivenUp, code, sort

T = TypeVar("T")
PAUSE = (0.0005, 0.004)
"""Seconds between tries while another connection has the lock: drawn, so that many do not try in step."""


class Stage(enum.Enum):
    QUEUED = "queued"
    RUNNING = "running"  # nothing of it will be there unless it is committed
    COMMITTING = "committing"  # only now is its outcome unknown
    DONE = "done"


class Job(Generic[T]):
    """One call of a store: `work(job, handle)` on the worker's thread, its result on the caller's loop.

    Work may be tried several times; it changes nothing but by `commit`.
    """

    __slots__ = ("_bell", "_error", "_given_up", "_lock", "_stage", "_value", "_work", "deadline", "finished", "until")

    def __init__(self, work: Callable[[Job[T], Handle], T], timeout: float, bell: Bell) -> None:
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

    def commit(self, handle: Handle) -> None:
        """COMMIT, unless the caller gave up, the time is over or the file is gone. Then nothing is written."""
        handle.check_place()
        self._enter(Stage.COMMITTING)
        try:
            handle.connection().execute("COMMIT")
        except sqlite3.Error as err:
            if code(err) == BUSY:
                raise  # not committed: rolled back, and tried again
            raise CommitUnknown(str(sort(err, handle.path))) from err

    def run(self, handle: Handle) -> None:
        """On the worker's thread. Raises nothing."""
        try:
            value = self._attempts(handle)
        except BaseException as err:  # carried over to the caller, whatever it is
            self._finish(None, err)
        else:
            self._finish(value, None)

    def _attempts(self, handle: Handle) -> T:
        busy: Busy | None = None
        while True:
            try:
                self._enter(Stage.RUNNING)
            except GivenUp:
                raise busy or GivenUp("no time was left") from None  # slept too long: what he waited for
            try:
                with handle:
                    return self._attempt(handle)
            except Busy as err:
                busy = err
                pause = random.uniform(*PAUSE)  # noqa: S311 # no secret
                if time.monotonic() + pause >= self.deadline:
                    raise
                time.sleep(pause)

    def _attempt(self, handle: Handle) -> T:
        try:
            return self._work(self, handle)
        except sqlite3.Error as err:
            sorted_out = sort(err, handle.path)
            handle.roll_back()
            if not isinstance(sorted_out, Busy):
                handle.drop()
            raise sorted_out from err
        except GivenUp:
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
                raise GivenUp("no time was left")
            self._stage = stage

    def _finish(self, value: T | None, error: BaseException | None) -> None:
        with self._lock:
            self._value, self._error, self._stage = value, error, Stage.DONE
        self._bell.ring(self.wake)


class Worker:
    """The thread. It ends by `stop`, and never keeps the interpreter from ending."""

    def __init__(self, handle: Handle) -> None:
        self._queue: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self.handle = handle
        try:
            threading.Thread(target=self._run, args=(handle, self._queue), name="coord sqlite", daemon=True).start()
        except RuntimeError as err:
            raise StoreUnavailable(f"no thread could be started for {handle.path}: {err}") from None

    def put(self, job: Job[Any]) -> None:
        self._queue.put(job)

    def stop(self) -> list[Job[Any]]:
        """End once the present job is over, and close the connection. Returns the jobs that had not been begun."""
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
    def _run(handle: Handle, jobs: queue.SimpleQueue[Job[Any] | None]) -> None:
        while (job := jobs.get()) is not None:
            job.run(handle)
            del job
        with contextlib.suppress(StoreRefused), handle:  # a child that may not touch SQLite
            handle.drop()
