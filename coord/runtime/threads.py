"""A latch that threads and coroutines can wait for, and threads for callbacks.

Nothing in here takes a lock. A signal handler runs in the main thread at any moment; if the main
thread held a lock then, a handler that waits for another thread could wait forever.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from typing import Any, TypeVar, cast

from coord.core import validation
from coord.errors import CoordError
from coord.runtime import process

T = TypeVar("T")


class Latch:
    """An event that is set once and never cleared.

    `wait(timeout)` waits in a thread, `await latch` in a coroutine, and `is_set()` asks anywhere.
    """

    __slots__ = ("_callbacks", "_set")

    def __init__(self) -> None:
        self._set = False
        self._callbacks: dict[object, Callable[[], None]] = {}

    def __bool__(self) -> bool:
        return self._set

    def __repr__(self) -> str:
        return f"<Latch {'set' if self._set else 'not set'}>"

    def is_set(self) -> bool:
        """Return whether `set` was called."""
        return self._set

    def set(self) -> None:
        """Set the latch and wake whatever waits for it. It may be called again: what a call that
        was interrupted has not called is called then."""
        self._set = True
        for key in list(self._callbacks):
            self._call(key)

    def add_callback(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when the latch is set, on the thread that sets it; at once if it is set.

        Args:
            callback: What to call. It must not raise. It may be called more than once, if several
                threads set the latch.

        Returns:
            A function that removes the callback.
        """
        key = object()
        self._callbacks[key] = callback
        if self._set:
            self._call(key)
        return lambda: self._remove(key)

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread until the latch is set, and return whether it is.

        Args:
            timeout: Seconds to wait; None means no limit.

        Raises:
            BadArgument: The timeout is invalid.
        """
        timeout = validation.timeout(timeout)
        if self._set:
            return True
        # An `Event` has a lock, which this thread would hold when a signal handler runs.
        waiting = threading.Lock()
        waiting.acquire()
        remove = self.add_callback(lambda: _release(waiting))
        try:
            waiting.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX))
        finally:
            remove()
        return self._set

    def __await__(self) -> Generator[Any, None, None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not future.done():
                future.set_result(None)

        def wake_from_any_thread() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(wake)

        remove = self.add_callback(wake_from_any_thread)
        try:
            yield from future
        finally:
            remove()

    def _call(self, key: object) -> None:
        # A signal handler may raise at any point here, so it is removed after it was called.
        callback = self._callbacks.get(key)
        if callback is not None:
            callback()
            self._remove(key)

    def _remove(self, key: object) -> None:
        self._callbacks.pop(key, None)


def _release(lock: threading.Lock) -> None:
    with contextlib.suppress(RuntimeError):  # it was released before
        lock.release()


def require_real_threads() -> None:
    """Check that nothing has replaced the threads of this process by green threads.

    Renewals need a thread and an event loop that run whatever the program does. Under monkey
    patching, asyncio runs in the thread of the program, and finds another loop there.

    Raises:
        CoordError: gevent or eventlet has replaced them.
    """
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None and any(map(gevent.is_module_patched, ("threading", "queue", "select"))):
        call = "gevent.monkey.patch_all(thread=False, queue=False, select=False)"
    elif eventlet is not None and eventlet.is_monkey_patched("thread"):
        call = "eventlet.monkey_patch(thread=False)"
    else:
        return
    raise CoordError(
        f"cannot renew leases: monkey patching has replaced the threads of this process. Use {call}"
    )


Work = Callable[[], None]
_Inbox = queue.SimpleQueue[tuple[Work, str]]

_idle: list[tuple[int, _Inbox]] = []
"""The idle thread, if there is one, and the fork generation that it belongs to: a forked child has
no idle thread."""


class CannotStartThread(CoordError):
    """The system starts no more threads now."""


def start_thread_soon(work: Work, name: str) -> None:
    """Run `work` at once, in a daemon thread with this name.

    One idle thread is kept for the next call, because to wake it takes a tenth of starting one.

    Args:
        work: What to run. It must not raise.
        name: The name of the thread while it runs `work`.

    Raises:
        CannotStartThread: There is no idle thread, and no other can be started.
    """
    while _idle:
        try:
            generation, inbox = _idle.pop()
        except IndexError:  # another thread was quicker
            break
        if generation == process.fork_generation:
            inbox.put((work, name))
            return
    _start(work, name)


def warm_up() -> None:
    """Start the idle thread now, so that the next `start_thread_soon` is quick."""
    if not any(generation == process.fork_generation for generation, _ in tuple(_idle)):
        with contextlib.suppress(CannotStartThread):
            _start(lambda: None, "coord spare")


def start_thread(target: Callable[..., None], args: tuple[Any, ...], name: str) -> threading.Thread:
    """Start a daemon thread.

    Raises:
        CannotStartThread: The system starts no more threads, or the interpreter is ending.
    """
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError) as err:
        raise CannotStartThread(
            f"cannot start the thread {name!r}: {err}; raise the limit of processes and threads "
            "of this user or container"
        ) from None
    return thread


def _start(work: Work, name: str) -> None:
    try:
        start_thread(_run, (work, name), name)
    except CannotStartThread as err:
        if "interpreter shutdown" not in str(err):
            raise
        # Python 3.12 starts no threads while the interpreter ends; the callbacks run here.
        contextvars.copy_context().run(work)


def _run(work: Work, name: str) -> None:
    inbox: _Inbox = queue.SimpleQueue()
    generation = process.fork_generation
    while True:
        threading.current_thread().name = name
        contextvars.Context().run(work)  # what callbacks set is not seen by those of other roles
        del work
        if generation != process.fork_generation or any(
            idle == generation for idle, _ in tuple(_idle)
        ):
            # In a child that the work forked, this is the only thread: if it were kept, the child
            # would never end.
            return
        threading.current_thread().name = "coord spare"
        _idle.append((generation, inbox))
        work, name = inbox.get()


async def items_until(latch: Latch, items: AsyncIterator[T]) -> AsyncIterator[T]:
    """Yield what `items` yields, until `latch` is set."""
    loop = asyncio.get_running_loop()
    end = loop.create_task(until_set(latch))
    generator = cast("AsyncGenerator[T, None]", items)
    try:
        while True:
            item = loop.create_task(_next(generator))
            try:
                await asyncio.wait({item, end}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not item.done():
                    item.cancel()
                    await asyncio.gather(item, return_exceptions=True)
                elif not item.cancelled():
                    # If this wait was cancelled, nobody looks at the exception, and asyncio would
                    # report it.
                    item.exception()
            if item.cancelled() or not (outcome := item.result()):
                return
            yield outcome[0]
    finally:
        end.cancel()
        await generator.aclose()


async def until_set(latch: Latch) -> None:
    """Wait until `latch` is set, as a coroutine, which `within` and tasks need."""
    await latch


async def _next(items: AsyncIterator[T]) -> tuple[T] | None:
    async for item in items:
        return (item,)
    return None
