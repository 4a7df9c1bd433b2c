"""Calls that are interrupted or cancelled: what they would have returned is given back, and a
signal handler may call whatever it likes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import coord
from coord import Coordinator
from coord.runtime.threads import Latch
from tests.support.levels import by_level, deeper, some
from tests.support.waits import eventually, soon

SECONDS = by_level("1", "4", "4")
"""How long signals arrive at random moments, which keeps a core busy."""

SOFT_LIMIT = """
import os, random, signal, sys, threading, time
import coord

class Limit(Exception):
    pass

def handler(*_):
    raise Limit

way, url, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
c, other = coord.Coordinator(url), coord.Coordinator(url)
c.leadership("first", ttl=5).run(lambda: None)  # the thread runs before the first limit
signal.signal(signal.SIGALRM, handler)
draw = random.Random(3)
longest = 0.004 if way in ("process", "progress") else 0.015

def work():
    coord.current_term().progress()

def attempt(role):
    if way == "call":
        coord.leader_only(role, coordinator=c, ttl=20, at_most=20, scope="call")(work)()
    elif way == "process":
        coord.leader_only("one", coordinator=c, ttl=20, at_most=20)(work)()
    elif way == "run":
        c.leadership(role, ttl=20).run(work)
    elif way == "progress":
        held.progress()

held = c.leadership("held", ttl=20, at_most=60).acquire()
counts, end, number = [0, 0], time.monotonic() + seconds, 0
while time.monotonic() < end or min(counts) < 20:
    number += 1
    try:
        signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.00005, longest))
        for _ in range(30 if way in ("process", "progress") else 1):
            attempt(f"r{number}")
        signal.setitimer(signal.ITIMER_REAL, 0)
        counts[0] += 1
    except Limit:
        counts[1] += 1
    except coord.CoordError:
        pass
    signal.setitimer(signal.ITIMER_REAL, 0)

def eventually(what):
    end = time.monotonic() + 15
    while not what():
        assert time.monotonic() < end, what()
        time.sleep(0.02)
    return True

expected = {"held", "one"} if way == "process" else {"held"}
eventually(lambda: {lease.role for lease in other.leaders()} <= expected)
eventually(lambda: {member.role for member in c.session.members} <= expected)
assert [member.role for member in c.session.members if member.running_jobs] == []
assert held.held
began = time.monotonic()
c.close()
assert time.monotonic() - began < 10
print("done")
"""


@pytest.mark.parametrize(
    "way",
    some(["call", "process", "run", "progress"], lambda way: way in ("process", "progress")),
)
def test_an_exception_out_of_a_signal_handler_leaves_no_role_without_an_owner(
    way: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SOFT_LIMIT, way, f"sqlite:///{tmp_path}/coord.db", SECONDS],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "done\n", done.stderr


HANDLERS = """
import random, signal, sys, threading, time, faulthandler
import coord

faulthandler.dump_traceback_later(60, exit=True)
what, url, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
c = coord.Coordinator(url)
term = c.leadership("r", ttl=30, at_most=30).acquire()
other = c.leadership("o", ttl=30)
other.start()
assert other.wait(10)
job = coord.leader_only("g", coordinator=c, ttl=30, at_most=30)(
    lambda: coord.current_term().progress()
)
job()
busy, handled, rounds = [False], 0, 0
actions = {
    "is_leader": lambda: (other.is_leader, term.check(), term.remaining),
    "leader": lambda: c.leader("r"),
    "progress": lambda: (term.progress(), job()),
    "stop": lambda: (other.stop(), other.start()),
    "new": lambda: c.leadership("n", ttl=30).acquire(blocking=False),
    "close": lambda: coord.Coordinator(url).close(),
}

def handler(*_):
    global handled
    if not busy[0]:
        busy[0] = True
        actions[what]()
        handled += 1
        busy[0] = False

signal.signal(signal.SIGALRM, handler)
draw = random.Random(1)

def arm():
    signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.0001, 0.002))

end = time.monotonic() + seconds
while time.monotonic() < end or handled < 100:
    for call in (
        job, term.progress, lambda: term.lost.wait(0.0005), lambda: other.started,
        lambda: c.leadership("x", ttl=30), lambda: c.leader("r"), lambda: c.portal.loop(),
        lambda: other.on_elected(lambda term: None) if rounds < 5 else None,
    ):
        arm()
        call()
    rounds += 1
signal.setitimer(signal.ITIMER_REAL, 0)
c.close()
print("done")
"""


@deeper
@pytest.mark.parametrize(
    "what",
    some(
        ["is_leader", "leader", "progress", "stop", "new", "close"],
        lambda what: what in ("leader", "progress", "close"),
    ),
)
def test_a_signal_handler_may_call_anything(what: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANDLERS, what, f"sqlite:///{tmp_path}/coord.db", SECONDS],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "done\n", done.stderr


ONCE = """
import faulthandler, os, signal, sys
import coord
faulthandler.dump_traceback_later(60, exit=True)
c = coord.connect("memory://")
lead = c.leadership("r", ttl=30, at_most=30)
term = lead.acquire()
ended = []
def handler(*_):
    lead.stop() if sys.argv[1] == "stop" else c.close()
    ended.append(1)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.05 + os.getpid() % 20 / 1000)
try:
    while not ended:
        term.progress()
except coord.LeadershipLost:
    print("lost")
"""


@pytest.mark.parametrize("what", ["stop", "close"])
def test_a_handler_that_stops_while_the_main_thread_reports_progress(what: str) -> None:
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", ONCE, what], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("delay", [0, 0.0003, 0.001, 0.002, 0.004])
def test_a_cancelled_coroutine_gives_its_role_back(delay: float, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/coord.db"

    async def main(c: Coordinator) -> None:
        for number in range(20):

            @coord.leader_only(f"r{number}", coordinator=c, ttl=60, scope="call")
            async def job() -> None:
                await asyncio.sleep(30)

            task = asyncio.ensure_future(job())
            await asyncio.sleep(delay)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await soon(lambda: not c.session.members)
        assert c.leaders() == []

    with Coordinator(url) as c:
        with c.leadership("first", ttl=60) as lead:  # creates the file
            assert lead.wait(20)
        asyncio.run(main(c))


def test_a_thread_that_cannot_start_once_wedges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot_start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    c = Coordinator("memory://")
    monkeypatch.setattr(threading.Thread, "start", cannot_start)
    for call in (c.leaders, c.leadership("r", ttl=5).start, lambda: next(c.watch_leader("r"))):
        with pytest.raises(coord.CoordError, match=r"cannot start the thread .*; raise the limit"):
            call()
    assert not c.portal.running
    monkeypatch.undo()
    assert c.leaders() == []
    c.close()


def test_files_that_run_out_wedge_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_files() -> asyncio.AbstractEventLoop:
        raise OSError(24, "Too many open files")

    c = Coordinator("memory://")
    monkeypatch.setattr(asyncio, "new_event_loop", no_files)
    with pytest.raises(coord.CoordError, match=r"thread: Too many open files; raise the limit"):
        c.leaders()
    monkeypatch.undo()
    assert c.leaders() == []
    c.close()


def test_what_an_interrupted_set_has_not_called_is_called_by_the_next() -> None:
    latch, calls = Latch(), list[str]()

    def interrupted() -> None:
        calls.append("first")
        if len(calls) == 1:
            raise KeyboardInterrupt

    latch.add_callback(interrupted)
    latch.add_callback(lambda: calls.append("second"))
    with pytest.raises(KeyboardInterrupt):
        latch.set()
    latch.set()
    latch.set()
    assert calls == ["first", "first", "second"]
    eventually(latch.is_set)
