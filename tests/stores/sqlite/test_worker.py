"""How the thread of a SQLite store tells its loop, whatever becomes of either."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from coord.core.operations import Answer, Claim
from coord.errors import StoreUnavailable
from coord.runtime.timers import DeadlineTimer
from coord.stores.sqlite import SQLiteStore
from coord.stores.sqlite.worker import LoopWaker

FILES = Path("/proc/self/fd")
needs_eventfd = pytest.mark.skipif(
    not (hasattr(os, "eventfd") and FILES.exists()), reason="needs Linux"
)


def eventfds() -> int:
    """How many of this process's files are eventfds."""

    def kind(entry: Path) -> str:
        try:
            return str(entry.readlink())
        except OSError:  # the listing's own
            return ""

    return sum("eventfd" in kind(entry) for entry in FILES.iterdir())


async def claimed(store: SQLiteStore, role: str) -> bool:
    result = await store.claim(Claim(role, "a", 1, 30.0), 5)
    return isinstance(result, Answer) and result.applied


@pytest.mark.parametrize("file", [True, False])
def test_each_ring_is_heard_on_the_loop(file: bool) -> None:
    rings: list[int] = []

    async def main() -> None:
        waker, here = LoopWaker(asyncio.get_running_loop(), file=file), threading.get_ident()

        def hear() -> None:
            assert threading.get_ident() == here
            rings.append(1)

        threads = [
            threading.Thread(target=lambda: [waker.wake(hear) for _ in range(500)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for _ in range(10_000):
            if len(rings) >= 2000:
                break
            await asyncio.sleep(0.001)
        waker.wake(hear)
        waker.close()
        assert len(rings) == 2001 or not file  # what was rung before is not lost
        waker.wake(hear)
        await asyncio.sleep(0.01)
        assert len(rings) == 2002  # nor what is rung afterwards

    asyncio.run(main())


class Between(deque[Callable[[], None]]):
    """What was rung, where other things happen between two steps of the thread or of the loop."""

    def __init__(
        self, before_append: Callable[[], object], when_empty: Callable[[], object]
    ) -> None:
        super().__init__()
        self._before_append, self._when_empty = before_append, when_empty

    def append(self, first: Callable[[], None]) -> None:
        self._before_append()
        super().append(first)

    def __bool__(self) -> bool:
        if len(self):
            return True
        self._when_empty()
        return False


@needs_eventfd
def test_what_is_rung_while_the_loop_looks_is_not_lost() -> None:
    async def main() -> None:
        waker, woken = LoopWaker(asyncio.get_running_loop()), asyncio.Event()
        rings, go_on = threading.Event(), threading.Event()
        waker._callbacks = Between(lambda: (rings.set(), go_on.wait(5)), lambda: None)
        thread = threading.Thread(target=waker.wake, args=(woken.set,))
        thread.start()
        assert rings.wait(5)  # it has the list, and has put nothing into it yet
        os.eventfd_write(waker._fd, 1)
        waker._on_readable()
        assert not woken.is_set()
        go_on.set()
        await asyncio.wait_for(woken.wait(), 5)
        thread.join()
        waker.close()

    asyncio.run(main())


@needs_eventfd
def test_what_is_rung_when_the_loop_has_looked_is_not_lost() -> None:
    async def main() -> None:
        waker, rings = LoopWaker(asyncio.get_running_loop()), asyncio.Event()
        late = [rings.set]

        def ring() -> None:
            if late:
                thread = threading.Thread(target=waker.wake, args=(late.pop(),))
                thread.start()
                thread.join()

        waker._callbacks = Between(lambda: None, ring)
        waker.wake(lambda: None)
        await asyncio.wait_for(rings.wait(), 5)
        assert not late
        waker.close()

    asyncio.run(main())


def test_a_ring_for_a_loop_that_is_closed_is_nothing() -> None:
    loop = asyncio.new_event_loop()
    waker, without = LoopWaker(loop), LoopWaker(loop, file=False)
    loop.close()
    for item in (waker, without):
        item.wake(lambda: pytest.fail("nobody is there"))
        item.close()
        item.wake(lambda: pytest.fail("nobody is there"))


def test_a_loop_that_waits_for_no_files_is_woken_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def refuse(*_: object) -> None:
            raise NotImplementedError

        monkeypatch.setattr(loop, "add_reader", refuse)
        rings = asyncio.Event()
        LoopWaker(loop).wake(rings.set)
        await asyncio.wait_for(rings.wait(), 5)

    asyncio.run(main())


@needs_eventfd
def test_where_no_file_may_be_opened_it_is_woken_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        def refuse(*_: object) -> int:
            raise OSError(errno.EMFILE, "too many open files")

        monkeypatch.setattr(os, "eventfd", refuse)
        waker, rings = LoopWaker(asyncio.get_running_loop()), asyncio.Event()
        waker.wake(rings.set)
        await asyncio.wait_for(rings.wait(), 5)
        waker.close()

    asyncio.run(main())


@needs_eventfd
@pytest.mark.parametrize("end", ["close", "abandon"])
def test_somebody_else_has_closed_the_file(end: str) -> None:
    """As daemons do with all they find. In a forked child, what comes after this one is still to be
    forgotten."""

    async def main() -> None:
        waker = LoopWaker(asyncio.get_running_loop())
        os.close(waker._fd)
        getattr(waker, end)()
        rings = asyncio.Event()
        waker.wake(rings.set)
        await asyncio.wait_for(rings.wait(), 5)

    asyncio.run(main())


@needs_eventfd
def test_no_file_stays_open(tmp_path: Path) -> None:
    gc.collect()
    before = eventfds()

    async def closed() -> None:
        store = SQLiteStore(str(tmp_path / "coord.db"))
        for role in ("r", "s"):
            assert await claimed(store, role)
            assert eventfds() == before + 1
            await store.close()
            assert eventfds() == before

    async def forgotten(role: str) -> None:
        assert await claimed(SQLiteStore(str(tmp_path / "coord.db")), role)
        gc.collect()
        await asyncio.sleep(0.05)
        assert eventfds() == before

    asyncio.run(closed())
    asyncio.run(forgotten("t"))
    store = SQLiteStore(str(tmp_path / "coord.db"))
    assert asyncio.run(claimed(store, "u"))  # and the loop is closed under it
    del store
    gc.collect()
    assert eventfds() == before


@needs_eventfd
def test_no_file_stays_open_where_a_loop_ends_before_it_hears(tmp_path: Path) -> None:
    gc.collect()
    before = eventfds()
    loop = asyncio.new_event_loop()
    store = SQLiteStore(str(tmp_path / "coord.db"))
    assert loop.run_until_complete(claimed(store, "r"))
    del store  # which tells the loop to let go of the file
    gc.collect()
    loop.close()
    del loop
    gc.collect()
    assert eventfds() == before


@needs_eventfd
def test_no_file_stays_open_when_the_thread_is_stuck(tmp_path: Path) -> None:
    async def main() -> None:
        gc.collect()
        before, stuck = eventfds(), threading.Event()
        store = SQLiteStore(str(tmp_path / "coord.db"))
        assert await claimed(store, "r")
        with pytest.raises(StoreUnavailable):
            await store.database.run(lambda _, __: stuck.wait(10), 0.1)
        await store.close()
        assert eventfds() == before
        stuck.set()

    asyncio.run(main())


def test_one_loop_after_the_other_and_two_at_once(tmp_path: Path) -> None:
    store = SQLiteStore(str(tmp_path / "coord.db"))
    for role in ("r", "s"):
        assert asyncio.run(claimed(store, role))
    done: list[bool] = []

    async def both() -> None:
        assert await claimed(store, "t")
        thread = threading.Thread(target=lambda: done.append(asyncio.run(claimed(store, "u"))))
        thread.start()
        for number in range(20):
            assert await claimed(store, f"v{number}")
        await asyncio.to_thread(thread.join)
        await store.close()

    asyncio.run(both())
    assert done == [True]


def test_a_second_loop_has_one_timer_for_all_calls_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, first = SQLiteStore(str(tmp_path / "coord.db")), asyncio.new_event_loop()
    assert first.run_until_complete(claimed(store, "r"))

    async def second() -> None:
        assert await claimed(store, "s")
        monkeypatch.setattr(
            asyncio.get_running_loop(), "call_at", lambda *_: pytest.fail("a timer of its own")
        )
        for number in range(5):
            assert await claimed(store, f"t{number}")
        monkeypatch.undo()

    asyncio.run(second())
    assert first.run_until_complete(claimed(store, "u"))
    first.run_until_complete(store.close())
    first.close()


@needs_eventfd
def test_a_forked_child_has_a_bell_of_its_own(tmp_path: Path) -> None:
    store = SQLiteStore(str(tmp_path / "coord.db"))
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(claimed(store, "r"))
    files = eventfds()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            own = asyncio.new_event_loop()
            status = 0 if own.run_until_complete(claimed(store, "s")) and eventfds() == files else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert loop.run_until_complete(claimed(store, "t"))
    loop.run_until_complete(store.close())
    loop.close()


@needs_eventfd
def test_a_forked_child_that_goes_on_with_the_loop_of_its_parent_is_woken(tmp_path: Path) -> None:
    """As a daemon does that made its loop before it forked. The parent's own is not touched."""
    store = SQLiteStore(str(tmp_path / "coord.db"))
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(claimed(store, "r"))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            began = time.monotonic()
            assert loop.run_until_complete(claimed(store, "s"))
            status = (
                0 if time.monotonic() - began < 4 else 2
            )  # 5: it has looked when its time was over
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    began = time.monotonic()
    assert loop.run_until_complete(claimed(store, "t"))
    assert time.monotonic() - began < 4
    loop.run_until_complete(store.close())
    loop.close()


class Sleeper:
    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.loop, self.deadline = loop, loop.time() + seconds
        self.woken: list[float] = []

    def on_deadline(self) -> None:
        self.woken.append(self.loop.time())


def test_each_is_woken_in_its_own_time_by_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        alarm, set_for, call_at = DeadlineTimer(loop), [], loop.call_at
        monkeypatch.setattr(
            loop, "call_at", lambda when, *args: (set_for.append(when), call_at(when, *args))[1]
        )
        sleepers = [Sleeper(loop, seconds) for seconds in (0.2, 0.1, 0.3, 0.1)]
        cancelled = Sleeper(loop, 0.15)
        for item in (*sleepers, cancelled):
            alarm.add(item)
        assert len(set_for) == 2  # the first, and the one that was earlier
        alarm.remove(cancelled)
        for _ in range(100):
            if sleepers[2].woken:
                break
            monkeypatch.undo()
            await asyncio.sleep(0.01)
        assert cancelled.woken == []
        for sleeper in sleepers:
            assert len(sleeper.woken) == 1
            assert 0 <= sleeper.woken[0] - sleeper.deadline < 0.1
            alarm.remove(sleeper)
        assert alarm._timer is None
        alarm.add(again := Sleeper(loop, -1.0))
        await asyncio.sleep(0.01)
        assert len(again.woken) == 1

    asyncio.run(main())


def test_calls_that_are_answered_set_no_timers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        store = SQLiteStore(str(tmp_path / "coord.db"))
        assert await claimed(store, "first")
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_at", lambda *_: pytest.fail("a timer of its own"))
        for number in range(5):
            assert await claimed(store, f"r{number}")
        monkeypatch.undo()
        await store.close()

    asyncio.run(main())
