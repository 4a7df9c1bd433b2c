"""The background thread of a sync coordinator: an event loop that other threads give work to.

Nothing in here takes a lock that a signal handler could meet: the main thread may be anywhere in
these methods when a handler runs that calls them too.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Generic, Protocol, TypeVar

from coord.errors import CoordError, CoordinatorClosed
from coord.runtime import log
from coord.runtime.log_writer import LogWriter
from coord.runtime.threads import CannotStartThread, start_thread

T = TypeVar("T")

Work = Callable[[], Coroutine[Any, Any, T]]
JOIN_TIMEOUT = 5.0
"""Seconds that the end of a portal waits for its thread."""


class Portal:
    """An event loop in a daemon thread, which the first call starts.

    The thread runs until the portal is stopped, so that leases can be released when the process
    ends. It never waits for the application's logging: another thread writes its events.

    Args:
        name: The name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        # At most one entry: adding to a dict, and taking from it, are atomic.
        self._engines: dict[str, _Engine] = {}
        self._log = LogWriter()
        self._closed: str | None = None

    @property
    def running(self) -> bool:
        """Whether it has a thread."""
        engine = self._engines.get(self._name)
        return engine is not None and engine.started

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop, running.

        Raises:
            CoordinatorClosed: The portal was closed.
            CoordError: The thread cannot be started now.
        """
        return self._engine().loop

    def call(self, work: Work[T], before: Callable[[], None] | None = None) -> T:
        """Run a coroutine on the loop and wait for it here. If the wait is interrupted (Ctrl-C),
        the coroutine is cancelled.

        Args:
            work: Returns the coroutine. It is called on the loop.
            before: Called on the loop before the task of the coroutine exists; it must not raise.

        Raises:
            CoordinatorClosed: The portal was closed, or stopped before the coroutine returned.
            CoordError: It is called on the loop itself, or the thread cannot be started now.
            concurrent.futures.CancelledError: The coroutine cancelled itself.
        """
        engine = self._engine()
        if threading.get_ident() == engine.thread_id:
            raise CoordError(
                "cannot wait on coord's own thread: the call would wait for itself; "
                "use the asynchronous classes there"
            )
        call = _Call(work, engine, before)
        engine.pending.add(call)
        try:
            return call.outcome()
        finally:
            engine.pending.discard(call)
            self._log.flush()  # what the call has logged precedes what its caller logs

    async def submit(self, work: Work[T]) -> T:
        """Run a coroutine on the portal's loop and await it on the caller's own loop. If the wait
        is cancelled, the coroutine is cancelled.

        Args:
            work: Returns the coroutine. It is called on the portal's loop.

        Raises:
            CoordinatorClosed: The portal was closed, or stopped before the coroutine returned.
        """
        engine = self._engine()
        submitted = _Submitted(work, engine)
        engine.pending.add(submitted)
        try:
            return await submitted.outcome()
        finally:
            engine.pending.discard(submitted)

    def post(self, function: Callable[[], object]) -> None:
        """Call a function on the loop, soon, and do not wait for it. Does nothing if there is no
        loop. It may be called from a signal handler and from a finalizer."""
        engine = self._engines.get(self._name)
        if engine is not None and engine.started:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                engine.loop.call_soon_threadsafe(function)

    def iterate(self, items: AsyncIterator[T], owner: object = None) -> Iterator[T]:
        """Yield in the calling thread what an async iterator yields on the loop.

        Closing this iterator closes the other. It ends when the portal is stopped.

        Args:
            items: The async iterator.
            owner: Kept alive until the iteration ends.
        """
        engine = self._engine()
        stream = _Stream(items, engine)
        engine.pending.add(stream)
        try:
            yield from stream.items()
        finally:
            engine.pending.discard(stream)

    def stop(self) -> None:
        """End the thread, and close the loop. A later call starts another thread."""
        engine = self._engines.pop(self._name, None)
        if engine is not None:
            engine.stop()
            if threading.get_ident() != engine.thread_id:
                self._log.flush()

    def close(self, reason: str) -> None:
        """End the thread for good: later calls raise `CoordinatorClosed` with this reason."""
        self._closed = reason
        self.stop()

    def forget(self) -> None:
        """In a forked child: the thread is not here."""
        for engine in self._engines.values():
            for task in asyncio.all_tasks(engine.loop):
                # asyncio would report that nobody has ended it. That is done in the parent.
                task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._engines, self._log = {}, LogWriter()

    def _engine(self) -> _Engine:
        if self._closed is not None:
            raise CoordinatorClosed(self._closed)
        engine = self._engines.get(self._name)
        if engine is None:
            try:
                new = _Engine(self._name, self._log)
            except OSError as err:
                raise CoordError(
                    f"cannot start coord's background thread: {err.strerror or err}; raise the "
                    "limit of open files (ulimit -n)"
                ) from None
            engine = self._engines.setdefault(self._name, new)
            if engine is not new:
                new.loop.close()
        engine.start()
        return engine


class _Pending(Protocol):
    """Something that waits for the loop."""

    def end(self) -> None:
        """The loop has ended: there will be no outcome. Called on the thread that closed it."""


class _Engine:
    """One loop and its thread."""

    def __init__(self, name: str, log_writer: LogWriter) -> None:
        self.loop = asyncio.new_event_loop()
        self.started = False
        self.ending = False
        self.thread_id: int | None = None
        self.pending: set[_Pending] = set()
        self._name, self._log = name, log_writer
        self._thread: threading.Thread | None = None
        self._runs = threading.Lock()

    def start(self) -> None:
        """Start the thread, if it does not run.

        A signal handler may come here while the call that it interrupts is starting the thread. It
        cannot wait for that, so it starts another; only the first of them runs the loop.
        """
        if self.started:
            return
        try:
            thread = start_thread(self._run, (), self._name)
        except CannotStartThread:
            if self.thread_id is None:  # nor has another caller started one
                raise
            return
        self._thread = self._thread or thread
        self.started = True

    def stop(self) -> None:
        """End the thread, and close the loop."""
        self.ending = True
        if self._runs.acquire(blocking=False):  # no thread runs it, and from now on none will
            self._close_loop()
            return
        with contextlib.suppress(RuntimeError):  # it has ended already
            self.loop.call_soon_threadsafe(self.loop.stop)
        if self._thread is not None and threading.get_ident() != self.thread_id:
            self._thread.join(JOIN_TIMEOUT)

    def _run(self) -> None:
        if not self._runs.acquire(blocking=False):
            return
        self._thread, self.thread_id = threading.current_thread(), threading.get_ident()
        log.hand_over(self._log.put)
        loop = self.loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            self.ending = True
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            # Transports that were aborted close their sockets only now.
            loop.run_until_complete(asyncio.sleep(0))
        finally:
            self.ending = True
            self._close_loop()

    def _close_loop(self) -> None:
        """Close the loop, and wake everybody who waits for it. Who comes later cannot hand it
        anything."""
        self.loop.close()
        for pending in list(self.pending):
            pending.end()


def _closed() -> CoordinatorClosed:
    return CoordinatorClosed("the coordinator was closed during this call")


class _Call(Generic[T]):
    """A coroutine that another thread waits for. The last thing that its task does is to wake that
    thread.

    `asyncio.run_coroutine_threadsafe` takes two futures and another turn of the loop for that,
    which each sync call would wait for, and its futures have locks.
    """

    __slots__ = ("_before", "_done", "_engine", "_error", "_task", "_value", "_work")

    def __init__(self, work: Work[T], engine: _Engine, before: Callable[[], None] | None) -> None:
        self._work, self._engine, self._before = work, engine, before
        self._task: asyncio.Task[None] | None = None
        self._value: T | None = None
        self._error: BaseException | None = asyncio.CancelledError()  # until there is an outcome
        self._done = threading.Lock()
        self._done.acquire()

    def outcome(self) -> T:
        """Wait for the coroutine, and return or raise what it does."""
        loop = self._engine.loop
        try:
            try:
                loop.call_soon_threadsafe(self._begin)
            except RuntimeError:  # the loop is closed
                raise _closed() from None
            self._done.acquire()
        except BaseException:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._interrupt)
            raise
        error, self._error = self._error, None  # its traceback holds this frame
        try:
            if isinstance(error, asyncio.CancelledError):  # the task's, not that of the caller
                if self._engine.ending:
                    raise _closed()
                raise concurrent.futures.CancelledError
            if error is not None:
                raise error
            return self._value  # type: ignore[return-value] # done without an error: it is a T
        finally:
            del error

    def end(self) -> None:
        """Wake the caller: there will be no outcome."""
        with contextlib.suppress(RuntimeError):  # there was one just now
            self._done.release()

    def _begin(self) -> None:
        if self._engine.ending:  # a task that nobody runs any longer would only be destroyed
            self.end()
            return
        try:
            if self._before is not None:
                self._before()
        finally:  # whatever that raises, the caller waits
            self._task = self._engine.loop.create_task(self._run())
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():  # perhaps before it began
            self.end()

    def _interrupt(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            self._value, self._error = await self._work(), None
        except asyncio.CancelledError:
            raise
        except BaseException as err:  # the caller gets it, whatever it is
            self._error = err
        self._done.release()


class _Submitted(Generic[T]):
    """A coroutine that a task of another loop awaits."""

    def __init__(self, work: Work[T], engine: _Engine) -> None:
        self._work, self._engine = work, engine
        self._task: asyncio.Task[T] | None = None
        self._caller = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._caller.create_future()

    async def outcome(self) -> T:
        """Await the coroutine, and return or raise what it does."""
        loop = self._engine.loop
        try:
            loop.call_soon_threadsafe(self._begin)
        except RuntimeError:
            raise _closed() from None
        try:
            await self._future
        except BaseException:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._interrupt)
            raise
        task = self._task
        if task is None or (task.cancelled() and self._engine.ending):
            raise _closed()
        return task.result()

    def end(self) -> None:
        """Wake the caller: there is an outcome, or there will be none."""
        with contextlib.suppress(RuntimeError):  # the caller's loop is closed
            self._caller.call_soon_threadsafe(self._wake)

    def _begin(self) -> None:
        if self._engine.ending:
            self.end()
            return
        self._task = self._engine.loop.create_task(self._work())
        self._task.add_done_callback(lambda _: self.end())

    def _interrupt(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _wake(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class _Stream(Generic[T]):
    """An async iterator that another thread iterates over."""

    def __init__(self, items: AsyncIterator[T], engine: _Engine) -> None:
        self._items, self._engine = items, engine
        self._task: asyncio.Task[None] | None = None
        self._arrived: queue.SimpleQueue[tuple[T] | BaseException] = queue.SimpleQueue()

    def items(self) -> Iterator[T]:
        """Yield the items as they arrive."""
        try:
            self._engine.loop.call_soon_threadsafe(self._begin)
        except RuntimeError:
            raise _closed() from None
        try:
            while True:
                item = self._arrived.get()
                if isinstance(item, (StopIteration, asyncio.CancelledError)):
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item[0]
        finally:
            with contextlib.suppress(RuntimeError):
                self._engine.loop.call_soon_threadsafe(self._interrupt)

    def end(self) -> None:
        """End the iteration."""
        self._arrived.put(StopIteration())

    def _begin(self) -> None:
        if self._engine.ending:
            self.end()
            return
        self._task = self._engine.loop.create_task(self._pump())

    def _interrupt(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _pump(self) -> None:
        try:
            async for item in self._items:
                self._arrived.put((item,))
        except BaseException as err:
            self._arrived.put(err)
            if isinstance(err, asyncio.CancelledError):
                raise
        else:
            self.end()
