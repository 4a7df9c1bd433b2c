"""The one background thread of a sync coordinator: an asyncio loop that other threads hand work to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from coord.errors import CoordError

T = TypeVar("T")


class Engine:
    """Started by the first call. A daemon: it lives until the interpreter ends, so that leases can be released."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self._loop is not None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, running."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._run, args=(self._loop,), name=self._name, daemon=True)
                self._thread.start()
            return self._loop

    def call(self, work: Callable[[], Coroutine[Any, Any, T]], first: Callable[[], None] | None = None) -> T:
        """Run a coroutine there and wait for it here. Interrupted (Ctrl-C), it is cancelled there.

        first: what cannot wait for a task to begin; it raises nothing.
        """
        if threading.current_thread() is self._thread:
            raise CoordError("a sync call from coord's own loop would wait for itself; use the async names there")
        if first is not None:
            self.loop().call_soon_threadsafe(first)
        future = asyncio.run_coroutine_threadsafe(work(), self.loop())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def submit(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Run a coroutine there, to be awaited on the caller's own loop."""
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop()))

    def stop(self) -> None:
        """End the thread, and close the loop."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(5)

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(asyncio.sleep(0))  # transports that were aborted close their sockets only now
        finally:
            loop.close()
