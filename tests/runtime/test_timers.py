"""Waiting with a bound: its result, and a cancellation that arrives at any moment is never
swallowed."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from coord.runtime.timers import SharedTimer, within
from coord.stores.rethinkdb import parse_url
from coord.stores.rethinkdb.connection import Connection
from coord.stores.rethinkdb.driver import reql
from coord.stores.rethinkdb.pool import Deadline, Pool
from coord.stores.rethinkdb.url import Address
from coord.testing.clocks import run


async def turns(number: int) -> str:
    for _ in range(number):
        await asyncio.sleep(0)
    return "done"


def test_what_comes_of_it() -> None:
    async def body() -> None:
        assert await within(turns(3), 5) == "done"
        assert await within(turns(3), None) == "done"
        for seconds in (0.01, 0.0):
            with pytest.raises(asyncio.TimeoutError):
                await within(asyncio.sleep(5), seconds)
        with pytest.raises(KeyError):
            await within(fails(), 5)
        await asyncio.sleep(0.02)  # no timer is left that cancels this

    async def fails() -> None:
        await asyncio.sleep(0)
        raise KeyError

    asyncio.run(body())


async def never_swallowed(work: Callable[[], Awaitable[object]]) -> None:
    """Cancel it after one turn of the loop, after two, and so on, past its end."""

    async def then_waits() -> None:
        await work()
        await asyncio.sleep(60)

    for number in range(20):
        task = asyncio.ensure_future(then_waits())
        await turns(number)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=2)
        assert done, f"cancelled after {number} turns, it goes on"
        assert task.cancelled()


def test_a_cancellation_is_not_swallowed() -> None:
    asyncio.run(never_swallowed(lambda: within(turns(3), 5)))


@pytest.mark.parametrize("cleanup", [0.0, 0.1])
def test_nor_if_the_time_is_over_at_that_moment(cleanup: float) -> None:
    """Or while the work, which was cancelled, cleans up."""

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(cleanup)

    async def body() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(5 if not cleanup else 1):
            task = asyncio.ensure_future(within(work(), 0.02))
            await asyncio.sleep(0)
            loop.call_later(0.02 if not cleanup else 0.01, task.cancel)
            if not cleanup:  # both are due when the loop looks at its timers again
                loop.call_later(0.005, time.sleep, 0.03)
            await asyncio.wait({task}, timeout=5)
            assert task.cancelled()

    asyncio.run(body())


@pytest.mark.parametrize("what", ["feed", "query"])
def test_nor_while_a_store_connects(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Python 3.12 `wait_for` did: a watcher that was given a role while its feed connected
    then hung."""

    async def connects(self: Pool) -> Connection:
        await turns(3)
        return Connection(Address("nowhere", 1))

    async def connect() -> None:
        pool = Pool(parse_url("rethinkdb://nowhere/coord"))
        if what == "feed":
            monkeypatch.setattr(Connection, "feed", lambda *_: endless())
            async for _ in pool.feed(reql().expr(1)):
                pass
        else:
            await pool._connected(Deadline(5))

    async def endless() -> AsyncIterator[None]:
        await asyncio.sleep(60)
        yield

    monkeypatch.setattr(Pool, "_open_any", connects)
    asyncio.run(never_swallowed(connect))


class Sleeper:
    """Notes when it was woken."""

    def __init__(self) -> None:
        self.woken: list[float] = []

    def wake(self) -> None:
        self.woken.append(round(asyncio.get_running_loop().time() - self.began, 3))

    began = 0.0


def test_a_shared_timer_wakes_each_at_its_own_time() -> None:
    async def body(_: object) -> None:
        timer = SharedTimer(contextvars.copy_context())
        Sleeper.began = asyncio.get_running_loop().time()
        sleepers = [Sleeper() for _ in range(5)]
        later = timer.wake_later(sleepers[0], 3.0)
        timer.wake_later(sleepers[1], 1.0)  # earlier than the one before
        timer.wake_later(sleepers[2], 2.0)
        timer.wake_later(sleepers[3], 2.0)
        timer.cancel(timer.wake_later(sleepers[4], 0.5))
        await asyncio.sleep(2.5)
        assert [sleeper.woken for sleeper in sleepers] == [[], [1.0], [2.0], [2.0], []]
        timer.wake_later(sleepers[1], 0.1)
        await asyncio.sleep(1.0)
        assert [sleeper.woken for sleeper in sleepers[:2]] == [[3.0], [1.0, 2.6]]
        timer.cancel(later)  # nothing happens
        await asyncio.sleep(10)
        assert len(sleepers[0].woken) == 1

    run(body)


def test_a_sleeper_that_fails_keeps_no_other_asleep() -> None:
    class Failing(Sleeper):
        def wake(self) -> None:
            raise OSError("out of file descriptors")

    async def body(_: object) -> None:
        timer, other = SharedTimer(contextvars.copy_context()), Sleeper()
        loop, reported = asyncio.get_running_loop(), list[object]()
        loop.set_exception_handler(lambda _, problem: reported.append(problem["exception"]))
        timer.wake_later(Failing(), 1.0)
        timer.wake_later(other, 1.0)
        await asyncio.sleep(2)
        assert len(other.woken) == 1
        assert len(reported) == 1

    run(body)


def test_a_cancelled_alarm_keeps_nothing() -> None:
    """A candidate sets an alarm with each row that it sees, for a time that never comes."""

    async def body(_: object) -> None:
        timer, sleeper = SharedTimer(contextvars.copy_context()), Sleeper()
        last = Sleeper()
        timer.wake_later(last, 50.0)
        for _ in range(1_000):
            timer.cancel(timer.wake_later(sleeper, 100.0))
        assert len(timer._alarms) < 300
        reference = weakref.ref(sleeper)
        del sleeper
        gc.collect()
        assert reference() is None
        await asyncio.sleep(200)
        assert len(last.woken) == 1
        assert not timer._alarms

    run(body)
