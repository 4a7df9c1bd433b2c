"""How the thread of a SQLite store tells its loop, whatever becomes of either."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from pathlib import Path

import pytest

from coord.operations import Answer, Claim
from coord.stores.sqlite import SQLiteStore
from coord.stores.sqlite.alarm import Alarm
from coord.stores.sqlite.bell import Bell

FILES = Path("/proc/self/fd")
needs_eventfd = pytest.mark.skipif(not (hasattr(os, "eventfd") and FILES.exists()), reason="needs Linux")


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
    heard: list[int] = []

    async def main() -> None:
        bell, here = Bell(asyncio.get_running_loop(), file=file), threading.get_ident()

        def hear() -> None:
            assert threading.get_ident() == here
            heard.append(1)

        threads = [threading.Thread(target=lambda: [bell.ring(hear) for _ in range(500)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(10_000):
            if len(heard) >= 2000:
                break
            await asyncio.sleep(0.001)
        bell.ring(hear)
        bell.close()
        assert len(heard) == 2001 or not file  # what was rung before is not lost
        bell.ring(hear)
        await asyncio.sleep(0.01)
        assert len(heard) == 2002  # nor what is rung afterwards

    asyncio.run(main())


def test_a_ring_for_a_loop_that_is_closed_is_nothing() -> None:
    loop = asyncio.new_event_loop()
    bell, without = Bell(loop), Bell(loop, file=False)
    loop.close()
    for one in (bell, without):
        one.ring(lambda: pytest.fail("nobody is there"))
        one.close()
        one.ring(lambda: pytest.fail("nobody is there"))


def test_a_loop_that_waits_for_no_files_is_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def refuse(*_: object) -> None:
            raise NotImplementedError

        monkeypatch.setattr(loop, "add_reader", refuse)
        heard = asyncio.Event()
        Bell(loop).ring(heard.set)
        await asyncio.wait_for(heard.wait(), 5)

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


class Sleeper:
    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.loop, self.until = loop, loop.time() + seconds
        self.woken: list[float] = []

    def wake(self) -> None:
        self.woken.append(self.loop.time())


def test_each_is_woken_in_its_own_time_by_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        alarm, set_for, call_at = Alarm(loop), [], loop.call_at
        monkeypatch.setattr(loop, "call_at", lambda when, *args: (set_for.append(when), call_at(when, *args))[1])
        sleepers = [Sleeper(loop, seconds) for seconds in (0.2, 0.1, 0.3, 0.1)]
        gone = Sleeper(loop, 0.15)
        for one in (*sleepers, gone):
            alarm.add(one)
        assert len(set_for) == 2  # the first, and the one that was earlier
        alarm.remove(gone)
        for _ in range(100):
            if sleepers[2].woken:
                break
            monkeypatch.undo()
            await asyncio.sleep(0.01)
        assert gone.woken == []
        for one in sleepers:
            assert len(one.woken) == 1
            assert 0 <= one.woken[0] - one.until < 0.1
            alarm.remove(one)
        assert alarm._timer is None
        alarm.add(again := Sleeper(loop, -1.0))
        await asyncio.sleep(0.01)
        assert len(again.woken) == 1

    asyncio.run(main())


def test_calls_that_are_answered_set_no_timers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
