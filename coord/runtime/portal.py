"""The one background thread of a sync coordinator: an asyncio loop that other threads hand work
to."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar

from coord.errors import CoordError

T = TypeVar("T")


class Portal:
    """Started by the first call. A daemon: it lives until the interpreter ends, so that leases can
    be released."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._calls: set[_Call[Any]] = set()

    @property
    def running(self) -> bool:
        return self._loop is not None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, running."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._run, args=(self._loop, self._calls), name=self._name, daemon=True
                )
                self._thread.start()
            return self._loop

    def call(
        self, work: Callable[[], Coroutine[Any, Any, T]], before: Callable[[], None] | None = None
    ) -> T:
        """Run a coroutine there and wait for it here. Interrupted (Ctrl-C), it is cancelled there.

        first: what cannot wait for a task to begin; it raises nothing. Raises what the coroutine
        raises, and `concurrent.futures.CancelledError` where the thread ended, or was ended, before
        it did."""
        if threading.current_thread() is self._thread:
            raise CoordError(
                "a sync call from coord's own loop would wait for itself; use the async names there"
            )
        call, calls = _Call(work, self.loop(), before), self._calls
        calls.add(call)
        try:
            return call.outcome()
        finally:
            calls.discard(call)

    def submit(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Run a coroutine there, to be awaited on the caller's own loop."""
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop()))

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Yield what an async iterator yields there, for the calling thread. Closing this one
        cancels the other."""
        arrived: queue.SimpleQueue[tuple[T] | BaseException] = queue.SimpleQueue()

        async def pump() -> None:
            try:
                async for item in items:
                    arrived.put((item,))
            except BaseException as err:
                arrived.put(err)
                raise
            arrived.put(StopIteration())

        task = asyncio.run_coroutine_threadsafe(pump(), self.loop())
        try:
            while True:
                item = arrived.get()
                if isinstance(item, (StopIteration, asyncio.CancelledError)):
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item[0]
        finally:
            task.cancel()

    def stop(self) -> None:
        """End the thread, and close the loop."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(5)

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop, calls: set[_Call[Any]]) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            Portal._cancel_all(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(
                asyncio.sleep(0)
            )  # transports that were aborted close their sockets only now
        finally:
            loop.close()
            for call in tuple(calls):
                if call.loop is loop:  # it came while that ended, and will never begin
                    call.end()

    @staticmethod
    def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


class _Call(Generic[T]):
    """A coroutine that another thread waits for: it is woken as the last thing that the coroutine's
    task does.

    `asyncio.run_coroutine_threadsafe` tells it by way of two futures and a turn of the loop more,
    for which a sync call would wait each time."""

    __slots__ = ("_before", "_done", "_error", "_task", "_value", "_work", "loop")

    def __init__(
        self,
        work: Callable[[], Coroutine[Any, Any, T]],
        loop: asyncio.AbstractEventLoop,
        before: Callable[[], None] | None,
    ) -> None:
        self._work, self._before, self.loop = work, before, loop
        self._task: asyncio.Task[None] | None = None
        self._value: T | None = None
        self._error: BaseException | None = asyncio.CancelledError()  # until there is an outcome
        self._done = threading.Lock()
        self._done.acquire()

    def outcome(self) -> T:
        """What the coroutine returns or raises, once it does."""
        try:
            self.loop.call_soon_threadsafe(self._begin)
            self._done.acquire()
        except BaseException:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self.loop.call_soon_threadsafe(self._interrupt)
            raise
        try:
            if isinstance(
                self._error, asyncio.CancelledError
            ):  # the task's, not that of whoever waits
                raise concurrent.futures.CancelledError from None
            if self._error is not None:
                raise self._error
            return self._value  # type: ignore[return-value] # done without an error: it is a T
        finally:
            self._error = None  # its traceback holds this frame

    def end(self) -> None:
        """There is no outcome, nor will there be."""
        with contextlib.suppress(RuntimeError):  # there was one just now
            self._done.release()

    def _begin(self) -> None:
        try:
            if self._before is not None:
                self._before()
        finally:  # whatever comes of that, somebody waits here
            self._task = self.loop.create_task(self._run())
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
        except BaseException as err:  # carried over to whoever waits, whatever it is
            self._error = err
        self._done.release()
