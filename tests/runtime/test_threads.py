"""The thread that is kept for callbacks: used again, one at most, and nothing of one role's is seen
by another's."""

from __future__ import annotations

import contextvars
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from coord.runtime import threads
from tests.support import waits

message: contextvars.ContextVar[str] = contextvars.ContextVar("message", default="nothing")


def eventually(predicate: Callable[[], bool], seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while not predicate() and time.monotonic() < until:
        time.sleep(0.005)
    return predicate()


def kept() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "coord spare"]


@pytest.fixture(autouse=True)
def _one_is_kept() -> Iterator[None]:
    threads.warm_up()
    assert eventually(lambda: len(kept()) == 1)
    yield
    assert eventually(lambda: len(kept()) == 1)


def test_the_thread_is_used_again_under_the_name_of_whom_it_works_for() -> None:
    calls: queue.SimpleQueue[tuple[int, str, str]] = queue.SimpleQueue()

    def work() -> None:
        calls.put((threading.get_ident(), threading.current_thread().name, message.get()))
        message.set("something")

    (before,) = kept()
    for name in ("first", "second"):
        threads.start_thread_soon(work, name)
        assert calls.get(timeout=5) == (before.ident, name, "nothing")
        assert eventually(lambda: len(kept()) == 1)


def test_work_that_lasts_keeps_no_other_waiting() -> None:
    hold, done = threading.Event(), threading.Semaphore(0)

    def lasts() -> None:
        hold.wait(10)
        done.release()

    for number in range(5):
        threads.start_thread_soon(lasts, f"lasts {number}")
    threads.start_thread_soon(done.release, "quick")
    assert done.acquire(timeout=5)
    hold.set()
    for _ in range(5):
        assert done.acquire(timeout=5)


def test_a_child_starts_a_thread_of_its_own() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        threads.start_thread_soon(lambda: os.write(writing, b"ran") and None, "in the child")
        threading.Event().wait(2)
        os._exit(0)
    os.close(writing)
    try:
        assert os.read(reading, 10) == b"ran"
    finally:
        os.close(reading)
        os.waitpid(pid, 0)


def test_a_child_that_work_forked_ends_with_that_work() -> None:
    """Its only thread is the one that works: were it kept for more, the child would stay for
    ever."""
    forked: queue.SimpleQueue[int] = queue.SimpleQueue()
    threads.start_thread_soon(lambda: forked.put(os.fork()), "forks")
    pid = forked.get(timeout=5)
    try:
        assert waits.eventually(lambda: os.waitpid(pid, os.WNOHANG)[0], within=10) == pid
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
