"""The time of a test that runs on several stores: virtual on memory, real on all others.

A test takes the fixture `store_time` and lets time pass by it only: `store_time.sleep(2)`,
`store_time.until(condition)`, `store_time.start(function)`. On memory a coordinator then lives on a
loop of `coord.testing.clocks`, and an hour takes as long as computing what happens in it.

Virtual time passes only while every thread of the test waits for something: the main thread, each
thread of `start`, and each thread that runs callbacks. So the result does not depend on how busy
the machine is.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from coord import AsyncCoordinator, Coordinator
from coord.api import guarded_call, sync_coordinator
from coord.election import observe, session
from coord.errors import CoordError, CoordinatorClosed
from coord.runtime import clock as system_clock
from coord.runtime import threads
from coord.runtime.portal import Portal
from coord.runtime.threads import Latch
from coord.stores.memory import MemoryStore
from coord.stores.protocol import Store
from coord.testing.clocks import Machine, World
from tests.support.waits import WITHIN, eventually, soon

T = TypeVar("T")
VIRTUAL_LIMIT = 86_400.0
"""Virtual seconds that a coroutine may take."""


class RealTime:
    """The time of the machine."""

    def now(self) -> float:
        """Return the time in seconds."""
        return time.monotonic()

    def total(self) -> float:
        """Return the seconds on the clock that counts suspend: for a store of the test's own."""
        return system_clock.total_seconds()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def block(self, seconds: float) -> None:
        """Let time pass on the loop of the calling coroutine, which runs nothing else meanwhile."""
        time.sleep(seconds)

    def freeze(self, coordinator: Coordinator, seconds: float) -> None:
        """Let the loop of a coordinator run nothing for so long. Return at once."""
        coordinator.portal.post(lambda: time.sleep(seconds))

    def until(self, what: Callable[[], Any], otherwise: object = None) -> Any:
        """Return the first true answer of `what`. See `waits.eventually`."""
        return eventually(what, otherwise)

    async def soon(self, what: Callable[[], Any], otherwise: object = None) -> Any:
        """Do the same as `until`, on a loop."""
        return await soon(what, otherwise)

    def start(self, function: Callable[[], object]) -> Callable[[], None]:
        """Run a function in a thread. Return a function that waits for its end."""
        thread = threading.Thread(target=function, daemon=True)
        thread.start()

        def join() -> None:
            thread.join(WITHIN)
            assert not thread.is_alive()

        return join

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine function. Its coordinators come from `async_coordinator`."""
        return asyncio.run(main())

    def coordinator(self, url: str = "", store: Store | None = None) -> Coordinator:
        """Return a coordinator of a store, for threads."""
        return Coordinator(url or None, store=store)

    def async_coordinator(self, url: str = "", store: Store | None = None) -> AsyncCoordinator:
        """Return a coordinator of a store, for the coroutine that `run` runs."""
        return AsyncCoordinator(url or None, store=store)


class VirtualTime(RealTime):
    """Time that passes while every thread of the test waits.

    There is one machine for each coordinator, and one store in memory for each URL. Whichever
    thread waits last lets the time pass: it runs the loops of all machines.

    Args:
        patch: Replaces the clocks and threads of coord until the end of the test.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.world = World()
        self.changed = threading.Condition(threading.RLock())
        self._clock = self.world.machine("the test")
        self._stores: dict[str, MemoryStore] = {}
        self._running = 1  # threads of the test that do not wait
        self._waits: list[_Wait] = []
        self._advancing: int | None = None  # the thread that lets time pass
        clock = SimpleNamespace(monotonic=self.now, sleep=self.sleep, time=time.time)
        for module in (guarded_call, observe, session, sync_coordinator):
            patch.setattr(module, "time", clock)
        patch.setattr(threads, "start_thread_soon", self._start_callbacks)
        patch.setattr(Latch, "wait", self._wait_for_latch())
        patch.setattr(sync_coordinator, "Portal", lambda _: VirtualPortal(self))

    def now(self) -> float:
        return self._clock.now().awake

    def total(self) -> float:
        return self._clock.now().total

    def sleep(self, seconds: float) -> None:
        self._wait(lambda: False, seconds)

    def block(self, seconds: float) -> None:
        assert self.on_loop()
        self.world.time += seconds

    def freeze(self, coordinator: Coordinator, seconds: float) -> None:
        portal = coordinator.portal
        assert isinstance(portal, VirtualPortal)
        with self.changed:
            portal.machine.pause(seconds)

    def until(self, what: Callable[[], Any], otherwise: object = None) -> Any:
        end = self.now() + WITHIN
        while not (answer := what()):  # it may itself wait, so it is called on this thread
            assert self.now() < end, otherwise or f"not within {WITHIN} virtual s"
            self.sleep(0.005)
        return answer

    async def soon(self, what: Callable[[], Any], otherwise: object = None) -> Any:
        end = self.now() + WITHIN
        while not (answer := what()):
            assert self.now() < end, otherwise or f"not within {WITHIN} virtual s"
            await asyncio.sleep(0.005)
        return answer

    def start(self, function: Callable[[], object]) -> Callable[[], None]:
        ended: list[bool] = []
        self._start(function, "a thread of the test", ended)
        return lambda: self.wait_for(lambda: bool(ended))

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        machine, tasks = self._clock, list[asyncio.Task[T]]()
        machine.do(lambda: tasks.append(machine.loop.create_task(main())))
        self._wait(lambda: bool(tasks) and tasks[0].done(), VIRTUAL_LIMIT)
        return tasks[0].result()

    def coordinator(self, url: str = "", store: Store | None = None) -> Coordinator:
        made = Coordinator(store=store or self._store(url))
        made.session.now = made.portal.machine.now  # type: ignore[attr-defined]
        return made

    def async_coordinator(self, url: str = "", store: Store | None = None) -> AsyncCoordinator:
        return AsyncCoordinator(store=store or self._store(url), now=self._clock.now)

    def close(self) -> None:
        """End every loop."""
        with self.changed:
            self.world.close()

    def on_loop(self) -> bool:
        """Return whether the calling thread runs the loops now."""
        return self._advancing == threading.get_ident()

    def wait_for(self, what: Callable[[], bool]) -> None:
        """Wait until `what` is true. It is called on any thread, and waits for nothing itself."""
        assert self._wait(what, WITHIN), f"not within {WITHIN} virtual s"

    def wait_as_long_as_it_takes(self, what: Callable[[], bool]) -> None:
        """Do the same as `wait_for`, without a limit that a test could meet."""
        self._wait(what, VIRTUAL_LIMIT)

    def _store(self, url: str) -> MemoryStore:
        return self._stores.setdefault(url, MemoryStore(now=self.total))

    def _wait(self, what: Callable[[], bool], seconds: float) -> bool:
        """Wait until `what` is true, for so many virtual seconds. Return whether it is."""
        assert not self.on_loop(), "a loop of coord waits in a thread"
        with self.changed:
            wait = _Wait(what, self.world.time + seconds)
            self._waits.append(wait)
            self._running -= 1
            while not wait.over:
                if self._running:
                    self.changed.wait()
                else:
                    self._advance()
                    self.changed.notify_all()
        return what()

    def _advance(self) -> None:
        """Let time pass until a thread has something to do."""
        self._advancing = threading.get_ident()
        try:
            end = min(wait.until for wait in self._waits)
            self.world.run(max(0.0, end - self.world.time), until=self._wake)
        finally:
            self._advancing = None

    def _wake(self) -> bool:
        """Wake the threads that wait no longer. Return whether any thread runs now."""
        for wait in self._waits:
            if wait.what() or self.world.time >= wait.until:
                wait.over = True
                self._running += 1
        self._waits = [wait for wait in self._waits if not wait.over]
        return self._running > 0

    def _start_callbacks(self, work: Callable[[], None], name: str) -> None:
        self._start(lambda: contextvars.Context().run(work), name, [])

    def _start(self, function: Callable[[], object], name: str, ended: list[bool]) -> None:
        def run() -> None:
            try:
                function()
            finally:
                with self.changed:
                    ended.append(True)
                    self._running -= 1
                    self.changed.notify_all()

        with self.changed:
            self._running += 1
        threading.Thread(target=run, name=name, daemon=True).start()

    def _wait_for_latch(self) -> Callable[[Latch, float | None], bool]:
        def wait(latch: Latch, timeout: float | None = None) -> bool:
            return self._wait(latch.is_set, VIRTUAL_LIMIT if timeout is None else timeout)

        return wait


class _Wait:
    """A thread that waits."""

    def __init__(self, what: Callable[[], bool], until: float) -> None:
        self.what, self.until, self.over = what, until, False


class VirtualPortal(Portal):
    """The portal of a coordinator on a machine of virtual time."""

    def __init__(self, virtual: VirtualTime) -> None:
        super().__init__("coord")
        self._virtual = virtual
        self.machine: Machine = virtual.world.machine("coord")

    @property
    def running(self) -> bool:
        return not self.machine.dead

    def loop(self) -> asyncio.AbstractEventLoop:
        self._check()
        return self.machine.loop

    def call(self, work: Any, before: Callable[[], None] | None = None) -> Any:
        self._check()
        if self._virtual.on_loop():
            raise CoordError("cannot wait on coord's own thread")
        tasks: list[asyncio.Task[Any]] = []

        def begin() -> None:
            if before is not None:
                before()
            tasks.append(self.machine.loop.create_task(work()))

        self.post(begin)
        self._virtual.wait_as_long_as_it_takes(
            lambda: self.machine.dead or (bool(tasks) and tasks[0].done())
        )
        if not tasks or not tasks[0].done() or (tasks[0].cancelled() and self.machine.dead):
            raise CoordinatorClosed("the coordinator was closed during this call")
        if tasks[0].cancelled():
            raise concurrent.futures.CancelledError
        return tasks[0].result()

    async def submit(self, work: Any) -> Any:
        raise NotImplementedError("a caller on another loop keeps real time")

    def post(self, function: Callable[[], object]) -> None:
        with self._virtual.changed:
            if not self.machine.dead:
                self.machine.do(function)

    def iterate(self, items: AsyncIterator[T], owner: object = None) -> Iterator[T]:
        self._check()
        arrived: deque[tuple[T] | None] = deque()

        async def pump() -> None:
            try:
                async for item in items:
                    arrived.append((item,))
            finally:
                arrived.append(None)

        self.machine.spawn(pump)
        while True:
            self._virtual.wait_as_long_as_it_takes(lambda: bool(arrived) or self.machine.dead)
            item = arrived.popleft() if arrived else None
            if item is None:
                return
            yield item[0]

    def stop(self) -> None:
        with self._virtual.changed:
            if self.machine.dead:
                return
            for task in self.machine.loop.unfinished():
                task.cancel()
            if not self._virtual.on_loop():
                self.machine.loop.run_until_idle()
            self.machine.kill()

    def _check(self) -> None:
        if self._closed is not None:
            raise CoordinatorClosed(self._closed)


@pytest.fixture
def store_time(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RealTime]:
    """The time of this test: virtual if its `url` is memory's, or if it has none."""
    url = request.getfixturevalue("url") if "url" in request.fixturenames else "memory://"
    if not url.startswith("memory:"):
        yield RealTime()
        return
    virtual = VirtualTime(monkeypatch)
    yield virtual
    virtual.close()
