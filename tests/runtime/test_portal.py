"""Sync calls: how they wait for the loop's thread, and what they learn when it ends."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from coord.errors import CoordError, CoordinatorClosed
from coord.runtime.portal import Portal
from tests.support.waits import eventually


@pytest.fixture
def portal() -> Iterator[Portal]:
    made = Portal("test")
    yield made
    made.stop()


class Odd(Exception):
    pass


async def ask(what: object) -> object:
    await asyncio.sleep(0)
    if isinstance(what, BaseException):
        raise what
    return what


def test_what_a_call_returns_and_raises(portal: Portal) -> None:
    assert portal.call(lambda: ask(7)) == 7
    assert portal.call(lambda: ask(None)) is None
    for error in (
        Odd("odd"),
        KeyboardInterrupt(),
        SystemExit(3),
    ):  # the loop goes on, whatever it is
        with pytest.raises(type(error)) as caught:
            portal.call(lambda error=error: ask(error))  # type: ignore[misc]
        assert caught.value is error
    with pytest.raises(concurrent.futures.CancelledError):
        portal.call(lambda: ask(asyncio.CancelledError()))
    assert portal.call(lambda: ask(8)) == 8


def test_an_error_leaves_no_cycle_behind(portal: Portal) -> None:
    def failed() -> weakref.ref[Odd]:
        error = Odd()
        with pytest.raises(Odd):
            portal.call(lambda: ask(error))
        error.__traceback__ = None
        return weakref.ref(error)

    gc.collect()
    gc.disable()
    try:
        reference = failed()
        eventually(lambda: reference() is None, within=5)
    finally:
        gc.enable()


def test_what_comes_first_comes_before_the_task(portal: Portal) -> None:
    order: list[str] = []

    async def work() -> None:
        order.append("task")

    portal.call(work, before=lambda: order.append("first"))
    assert order == ["first", "task"]


def test_whatever_comes_of_what_comes_first_the_call_is_answered(portal: Portal) -> None:
    answers: list[object] = []

    def fail() -> None:
        raise Odd

    thread = threading.Thread(
        target=lambda: answers.append(portal.call(lambda: ask(7), before=fail)), daemon=True
    )
    thread.start()
    thread.join(30)
    assert answers == [7]


def test_a_call_from_the_loop_itself_is_refused(portal: Portal) -> None:
    async def within() -> None:
        portal.call(lambda: ask(1))

    with pytest.raises(CoordError, match="wait for itself"):
        portal.call(within)


def test_interrupted_it_is_cancelled_there(portal: Portal) -> None:
    """Ctrl-C in the main thread, which waits here."""
    begun, cancelled = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def interrupt() -> None:
        begun.wait(30)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        portal.call(work)
    assert cancelled.wait(30)
    assert portal.call(lambda: ask(1)) == 1


def test_when_the_thread_ends_nobody_waits_forever(portal: Portal) -> None:
    """Of many that call while it ends, each gets an answer, or an error. Those that come later
    start it again."""
    outcomes: list[object] = []

    def caller() -> None:
        for _ in range(200):
            try:
                outcomes.append(portal.call(lambda: ask(1)))
            except CoordinatorClosed as err:
                outcomes.append(err)

    callers = [threading.Thread(target=caller, daemon=True) for _ in range(4)]
    for caller in callers:
        caller.start()
    while any(caller.is_alive() for caller in callers):
        portal.stop()
        time.sleep(0.001)
        if len(outcomes) >= 800:
            break
    for caller in callers:
        caller.join(30)
        assert not caller.is_alive()
    assert len(outcomes) == 800


@pytest.mark.parametrize("way", ["call", "submit", "iterate"])
def test_who_waits_for_a_thread_that_is_stopped_before_it_runs_gets_an_error(
    portal: Portal, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    late: list[Callable[[], object]] = []

    def start_later(function: Callable[[], object], args: tuple[()], name: str) -> threading.Thread:
        late.append(function)
        return threading.current_thread()

    async def none() -> AsyncIterator[int]:
        return
        yield 1

    monkeypatch.setattr("coord.runtime.portal.start_thread", start_later)
    outcomes: list[object] = []

    def caller() -> None:
        try:
            if way == "call":
                outcomes.append(portal.call(lambda: ask(1)))
            elif way == "submit":
                outcomes.append(asyncio.run(portal.submit(lambda: ask(1))))
            else:
                outcomes.append(list(portal.iterate(none())))
        except CoordinatorClosed as err:
            outcomes.append(err)

    thread = threading.Thread(target=caller, daemon=True)
    thread.start()
    eventually(lambda: bool(late) and bool(portal._engines) and waits(portal))
    portal.stop()
    late[0]()  # the thread comes too late
    thread.join(30)
    assert not thread.is_alive()
    assert isinstance(outcomes[0], CoordinatorClosed) or outcomes == [[]]


def waits(portal: Portal) -> bool:
    """Whether somebody has handed the loop something."""
    return all(engine.pending and engine.loop._ready for engine in portal._engines.values())  # type: ignore[attr-defined]


def test_who_calls_in_the_last_moment_does_not_wait_forever(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop takes the call, and is closed before its next turn."""
    loop, closing, called = portal.loop(), threading.Event(), threading.Event()
    engine = portal._engine()
    close, handed = loop.close, loop.call_soon_threadsafe

    def late() -> None:
        closing.set()
        called.wait(30)
        close()

    def hand(*args: Any) -> Any:
        handle = handed(*args)
        called.set()
        return handle

    monkeypatch.setattr(loop, "close", late)
    threading.Thread(target=portal.stop, daemon=True).start()
    assert closing.wait(30)
    monkeypatch.setattr(loop, "call_soon_threadsafe", hand)
    monkeypatch.setattr(portal, "_engine", lambda: engine)  # it had asked for it before
    outcome: list[str] = []

    def caller() -> None:
        with pytest.raises(CoordinatorClosed):
            portal.call(lambda: ask(1))
        outcome.append("cancelled")

    thread = threading.Thread(target=caller, daemon=True)
    thread.start()
    thread.join(10)
    assert outcome == ["cancelled"]


def test_the_end_of_a_thread_is_none_of_the_next(portal: Portal) -> None:
    """A thread that takes its time to end must not tell those who call its successor that it has
    ended."""
    lingering, begun = threading.Event(), threading.Event()

    async def linger() -> None:
        lingering.set()
        try:
            await asyncio.sleep(60)
        finally:
            begun.wait(30)  # holds up the thread

    async def work() -> int:
        begun.set()
        await on.wait()
        return 7

    old, on = portal.loop(), asyncio.Event()
    asyncio.run_coroutine_threadsafe(linger(), old)
    assert lingering.wait(30)
    threading.Thread(target=portal.stop, daemon=True).start()
    eventually(lambda: not portal.running)
    answers: list[int] = []
    caller = threading.Thread(target=lambda: answers.append(portal.call(work)), daemon=True)
    caller.start()
    eventually(old.is_closed)
    time.sleep(0.05)
    portal.loop().call_soon_threadsafe(on.set)
    caller.join(30)
    assert answers == [7]


def test_a_call_under_way_learns_that_the_thread_ends(portal: Portal) -> None:
    begun, outcome = threading.Event(), []

    async def work() -> None:
        begun.set()
        await asyncio.sleep(60)

    def caller() -> None:
        with pytest.raises(CoordinatorClosed):
            portal.call(work)
        outcome.append("cancelled")

    thread = threading.Thread(target=caller, daemon=True)
    thread.start()
    assert begun.wait(30)
    portal.stop()
    thread.join(30)
    assert outcome == ["cancelled"]


def test_a_call_while_the_thread_ends_begins_no_task(portal: Portal) -> None:
    """A task that the ending loop never runs would be destroyed, with an error in the log."""

    async def nothing() -> None:
        """A call that needs no time."""

    portal.call(nothing)
    (engine,) = portal._engines.values()
    tasks: list[object] = []
    engine.loop.call_soon_threadsafe(
        engine.loop.set_task_factory,
        lambda loop, coroutine, **options: (
            tasks.append(coroutine) or asyncio.Task(coroutine, loop=loop, **options)
        ),
    )
    portal.call(nothing)
    assert len(tasks) == 1
    engine.ending = True
    with pytest.raises(CoordinatorClosed):
        portal.call(nothing)
    with pytest.raises(CoordinatorClosed):
        asyncio.run(portal.submit(nothing))

    async def numbers() -> AsyncIterator[int]:
        yield 1

    assert list(portal.iterate(numbers())) == []
    assert len(tasks) == 1
