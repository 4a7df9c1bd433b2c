"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import selectors
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from coord.core.timing import Instant


class ManualClock:
    """Give `clock.now` to a coordinator, and `clock.total` to a `MemoryStore`; then time passes
    when you say so.

    What waits by this clock is not woken by it; `coord_election.clock`
    (`coord.testing.pytest_plugin`) sees to that."""

    def __init__(self, start: float = 1_000.0) -> None:
        self._instant = Instant(start, start)
        self._lock = threading.Lock()
        self._moved: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<ManualClock awake {self._instant.awake:g} s, total {self._instant.total:g} s>"

    def now(self) -> Instant:
        """Both readings."""
        return self._instant

    def total(self) -> float:
        """Seconds on the clock that counts suspend."""
        return self._instant.total

    def advance(self, seconds: float) -> None:
        """Let time pass in one jump: as for a process that was stopped for so long."""
        self._move(seconds, seconds)

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep: only the clock that counts suspend goes on."""
        self._move(0.0, seconds)

    def when_moved(self, call: Callable[[], None]) -> None:
        """Have `call()` called after every move, on the thread that moves."""
        self._moved.append(call)

    def _move(self, awake: float, total: float) -> None:
        if awake < 0 or total < 0:
            raise ValueError("these clocks never go back")
        with self._lock:
            self._instant = Instant(self._instant.awake + awake, self._instant.total + total)
        for call in tuple(self._moved):
            call()


# -- Event loops on virtual time: nothing waits, and an hour passes as fast as what happens in it
# can be computed. A `World` has one true time. Each `Machine` in it has an event loop of its own,
# which is run only while the machine is awake and its process is not stopped, and clocks of its
# own, which drift and sleep. Everything runs on one thread, in
# one order: with the same random numbers a run repeats itself exactly.
#

T = TypeVar("T")
TURN = 1e-6
"""Seconds that a turn of a loop takes: without it, a timer that is due in less than a float can
tell would spin."""


class _Selector(selectors.DefaultSelector):
    """Never waits: where a loop would, it is told to stop, and for how long it would have waited is
    kept."""

    stop: Callable[[], None]
    idle: float | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not ready and (timeout is None or timeout > 0):
            self.idle = timeout
            self.stop()
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that is run by hand, and reads the time from `clock` (seconds)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.stirred = True  # something was put to it since it last ran
        self._idle_selector = _Selector()
        super().__init__(self._idle_selector)
        self._idle_selector.stop = self.stop
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.clock()

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:  # type: ignore[override]
        self.stirred = True
        return super().call_soon_threadsafe(*args, **kwargs)

    def run_until_idle(self) -> float:
        """Run what can run at this time. Returns the seconds until the next timer, or infinity."""
        self.stirred = False
        self.run_forever()
        idle = self._idle_selector.idle
        return math.inf if idle is None else idle


class Machine:
    """One machine with one process on it. `rate`: seconds that its clocks gain in a true second."""

    def __init__(self, world: World, name: str, rate: float = 1.0) -> None:
        self.world, self.name, self.rate = world, name, rate
        self.dead = False
        self._slept = 0.0  # true seconds that it has slept before the present sleep
        self._asleep_since: float | None = None
        self._until = -math.inf
        self._next = -math.inf  # on the clock of the loop
        self.loop = VirtualLoop(lambda: self.now().awake)

    def now(self) -> Instant:
        """Its clocks, as its process would read them. Not off by the same amount, nor by the
        world's."""
        time = self.world.time
        slept = self._slept + (0.0 if self._asleep_since is None else time - self._asleep_since)
        return Instant(500 + self.rate * (time - slept), 900 + self.rate * time)

    @property
    def frozen(self) -> bool:
        return self.dead or self.world.time < self._until

    def pause(self, seconds: float) -> None:
        """The process does not run (SIGSTOP, a long page-in), while clocks go on."""
        self._until = max(self._until, self.world.time + seconds)

    def suspend(self, seconds: float) -> None:
        """The machine sleeps: the process does not run, and the clock that does not count suspend
        stands still."""
        if self._asleep_since is None:
            self._asleep_since = since = self.world.time
            self.world.after(seconds, lambda: self._wake(since))
        self.pause(seconds)

    def _wake(self, since: float) -> None:
        if self._asleep_since == since:
            self._slept += self.world.time - since
            self._asleep_since = None

    def thaw(self) -> None:
        """End every pause and sleep."""
        self._until = -math.inf
        if self._asleep_since is not None:
            self._wake(self._asleep_since)

    def kill(self) -> None:
        """The process is gone. What it has sent is under way all the same."""
        self.dead = True

    def do(self, work: Callable[[], Any]) -> None:
        """Call it on the loop, when the process next runs."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(work)

    def spawn(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Start a task there."""
        tasks = self.world.tasks

        def begin() -> None:
            task = self.loop.create_task(work())
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        self.do(begin)

    def due(self) -> float:
        """The true time at which it has something to do."""
        if self.dead:
            return math.inf
        if self.world.time < self._until:
            return self._until
        if self.loop.stirred:
            return self.world.time
        if math.isinf(self._next):
            return self._next
        return self.world.time + max(0.0, (self._next - self.now().awake) / self.rate)

    def turn(self) -> None:
        """Do all that can be done now."""
        idle = self.loop.run_until_idle()
        self._next = self.now().awake + idle


class World:
    """True time, what will happen at what time, and the machines."""

    def __init__(self) -> None:
        self.time = 0.0
        self.machines: list[Machine] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self.watchers: list[Callable[[], None]] = []
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def machine(self, name: str, rate: float = 1.0) -> Machine:
        machine = Machine(self, name, rate)
        self.machines.append(machine)
        return machine

    def after(self, seconds: float, happen: Callable[[], None]) -> None:
        """Something outside every machine happens in so many seconds (a packet arrives)."""
        heapq.heappush(self._heap, (self.time + seconds, next(self._count), happen))

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let so many true seconds pass, or fewer if `until` holds before. Whether it does.

        After each thing that happens, all `watchers` are called: they look for what must never be.
        """
        end = self.time + seconds
        while not until():
            soonest = min(self.machines, key=Machine.due, default=None)
            machine_due = math.inf if soonest is None else soonest.due()
            event_due = self._heap[0][0] if self._heap else math.inf
            if min(machine_due, event_due) > end:
                # The last turn of a loop may have ended after `end`: time never goes back.
                self.time = max(self.time, end)
                return until()
            if event_due <= machine_due:
                self.time = max(self.time, event_due)
                heapq.heappop(self._heap)[2]()
            else:
                assert soonest is not None
                self.time = max(self.time, machine_due) + TURN
                soonest.turn()
            for watch in self.watchers:
                watch()
        return True

    def close(self) -> None:
        """Let go of every loop. What was still to happen never does."""
        self._heap.clear()
        for machine in self.machines:
            loop = machine.loop
            if loop.is_closed():
                continue
            for _ in range(5):  # what clears up after itself is cancelled in that, too
                for task in asyncio.all_tasks(loop):
                    task.cancel()
                loop.run_until_idle()
            loop.close()


def run(main: Callable[[Machine], Coroutine[Any, Any, T]], seconds: float = 86_400.0) -> T:
    """Run a coroutine function in a world with one machine, and return what it returns; at most
    `seconds` of it.

    Raises `TimeoutError` when it has not ended by then.
    """
    world = World()
    machine = world.machine("only")
    result: list[asyncio.Task[T]] = []
    try:
        machine.do(lambda: result.append(machine.loop.create_task(main(machine))))
        if not world.run(seconds, until=lambda: bool(result) and result[0].done()):
            raise TimeoutError(f"not done after {seconds:g} virtual seconds")
        return result[0].result()
    finally:
        world.close()
