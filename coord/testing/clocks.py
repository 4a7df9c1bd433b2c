"""Clocks under the control of a test: a clock that a test moves, and event loops on virtual time.

On virtual time nothing waits: an hour takes as long as computing what happens in that hour. A
`World` has one true time. Each `Machine` in it has an event loop, which runs only while the machine
is awake and its process is not stopped, and clocks, which drift and sleep. Everything runs on one
thread in one order, so a run with the same random numbers repeats itself exactly.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import selectors
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from coord.core import validation
from coord.core.timing import Instant


class ManualClock:
    """A clock that stands still until a test moves it.

    Give `clock.now` to a coordinator and `clock.total` to a `MemoryStore`. A move of the clock does
    not wake what waits; `coord_election.clock` (`coord.testing.pytest_plugin`) does that, too.

    Args:
        start: The first reading of both clocks, in seconds.
    """

    def __init__(self, start: float = 1_000.0) -> None:
        self._instant = Instant(start, start)
        self._lock = threading.Lock()
        self._moved: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<ManualClock awake {self._instant.awake:g} s, total {self._instant.total:g} s>"

    def now(self) -> Instant:
        """Return the readings of both clocks."""
        return self._instant

    def total(self) -> float:
        """Return the seconds on the clock that counts the time of a suspend."""
        return self._instant.total

    def advance(self, seconds: float) -> None:
        """Move both clocks in one jump, as if the process had been stopped.

        Args:
            seconds: How far; 0 or more.

        Raises:
            BadArgument: `seconds` is negative or not a number.
        """
        validation.number(seconds, "seconds", low=0)
        self._move(seconds, seconds)

    def suspend(self, seconds: float) -> None:
        """Move only the clock that counts suspend, as if the machine had slept.

        Args:
            seconds: How long; 0 or more.

        Raises:
            BadArgument: `seconds` is negative or not a number.
        """
        validation.number(seconds, "seconds", low=0)
        self._move(0.0, seconds)

    def when_moved(self, call: Callable[[], None]) -> None:
        """Register `call`, which runs after every move, on the thread that moves the clock."""
        self._moved.append(call)

    def _move(self, awake: float, total: float) -> None:
        with self._lock:
            self._instant = Instant(self._instant.awake + awake, self._instant.total + total)
        for call in tuple(self._moved):
            call()


T = TypeVar("T")
TURN = 1e-6
"""Seconds that an iteration of a loop takes. Without it, a timer whose delay is too small for a
float would spin forever."""


class _Selector(selectors.DefaultSelector):
    """A selector that never waits. Where it would, it stops the loop and keeps the time to wait."""

    stop: Callable[[], None]
    idle: float | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not ready and (timeout is None or timeout > 0):
            self.idle = timeout
            self.stop()
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that a test runs step by step.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.stirred = True  # whether a callback was added since the last run
        self._idle_selector = _Selector()
        self._created = 0
        self._tasks: weakref.WeakKeyDictionary[asyncio.Task[Any], int] = weakref.WeakKeyDictionary()
        super().__init__(self._idle_selector)
        self._idle_selector.stop = self.stop
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Return the time of the clock, in seconds."""
        return self.clock()

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:  # type: ignore[override]
        """Schedule a callback, and note that the loop has something to do."""
        self.stirred = True
        return super().call_soon_threadsafe(*args, **kwargs)

    def create_task(self, *args: Any, **kwargs: Any) -> asyncio.Task[Any]:
        """Schedule a coroutine, and remember the order in which that was done."""
        task = super().create_task(*args, **kwargs)
        self._created += 1
        self._tasks[task] = self._created
        return task

    def unfinished(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that are not done, oldest first; `asyncio.all_tasks` has no order."""
        return sorted(asyncio.all_tasks(self), key=lambda task: self._tasks.get(task, -1))

    def run_until_idle(self) -> float:
        """Run everything that is due. Return the seconds until the next timer, or infinity."""
        self.stirred = False
        self.run_forever()
        idle = self._idle_selector.idle
        return math.inf if idle is None else idle


class Machine:
    """One machine with one process.

    Args:
        world: The world that it belongs to.
        name: The name of the machine.
        rate: How many seconds its clocks advance in one true second.
    """

    def __init__(self, world: World, name: str, rate: float = 1.0) -> None:
        self.world, self.name, self.rate = world, name, rate
        self.dead = False
        self._slept = 0.0  # true seconds of all sleeps that are over
        self._asleep_since: float | None = None
        self._until = -math.inf
        self._next = -math.inf  # on the clock of the loop
        self.loop = VirtualLoop(lambda: self.now().awake)

    def now(self) -> Instant:
        """Return what its process reads on its clocks. The two clocks differ from each other, and
        from the true time."""
        time = self.world.time
        slept = self._slept + (0.0 if self._asleep_since is None else time - self._asleep_since)
        return Instant(500 + self.rate * (time - slept), 900 + self.rate * time)

    @property
    def frozen(self) -> bool:
        """Whether the process does not run now."""
        return self.dead or self.world.time < self._until

    def pause(self, seconds: float) -> None:
        """Stop the process for `seconds` (SIGSTOP, a long page-in), while the clocks go on."""
        self._until = max(self._until, self.world.time + seconds)

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep for `seconds`: the process does not run, and the clock that does
        not count suspend stands still."""
        if self._asleep_since is None:
            self._asleep_since = since = self.world.time
            self.world.after(seconds, lambda: self._wake(since))
        self.pause(seconds)

    def _wake(self, since: float) -> None:
        if self._asleep_since == since:
            self._slept += self.world.time - since
            self._asleep_since = None

    def thaw(self) -> None:
        """End every pause and every sleep."""
        self._until = -math.inf
        if self._asleep_since is not None:
            self._wake(self._asleep_since)

    def kill(self) -> None:
        """End the process. The requests that it has sent still arrive."""
        self.dead = True

    def do(self, work: Callable[[], Any]) -> None:
        """Call `work` on the loop, when the process next runs."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(work)

    def spawn(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Start `work` as a task on the loop."""
        tasks = self.world.tasks

        def begin() -> None:
            task = self.loop.create_task(work())
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        self.do(begin)

    def due(self) -> float:
        """Return the true time at which the machine next has something to do."""
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
        """Run everything that is due now."""
        idle = self.loop.run_until_idle()
        self._next = self.now().awake + idle


class World:
    """The true time, the events to come, and the machines.

    Attributes:
        time: The true time in seconds. It never goes back.
        watchers: Called after each thing that happens.
    """

    def __init__(self) -> None:
        self.time = 0.0
        self.machines: list[Machine] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self.watchers: list[Callable[[], None]] = []
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def machine(self, name: str, rate: float = 1.0) -> Machine:
        """Add a machine to the world, and return it."""
        machine = Machine(self, name, rate)
        self.machines.append(machine)
        return machine

    def after(self, seconds: float, happen: Callable[[], None]) -> None:
        """Call `happen` in `seconds`, outside every machine (a packet arrives, say)."""
        heapq.heappush(self._heap, (self.time + seconds, next(self._count), happen))

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass, and call all `watchers` after each thing that happens.

        Args:
            seconds: True seconds to pass. The last iteration of a loop may end a little later.
            until: Stops the run earlier, as soon as it returns True.

        Returns:
            Whether `until` returns True at the end.
        """
        end = self.time + seconds
        while not until():
            soonest = min(self.machines, key=Machine.due, default=None)
            machine_due = math.inf if soonest is None else soonest.due()
            event_due = self._heap[0][0] if self._heap else math.inf
            if min(machine_due, event_due) > end:
                # The last iteration of a loop may have ended after `end`. Time never goes back:
                # histories are recorded with this clock.
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
        """Close every loop, and drop the events to come."""
        self._heap.clear()
        for machine in self.machines:
            loop = machine.loop
            if loop.is_closed():
                continue
            for _ in range(5):  # a task that cleans up is cancelled again
                for task in loop.unfinished():
                    task.cancel()
                loop.run_until_idle()
            loop.close()


def run(main: Callable[[Machine], Coroutine[Any, Any, T]], seconds: float = 86_400.0) -> T:
    """Run a coroutine function in a world with one machine.

    Args:
        main: Gets the machine.
        seconds: How many virtual seconds it may take.

    Returns:
        What `main` returns.

    Raises:
        TimeoutError: `main` takes longer than `seconds`.
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
