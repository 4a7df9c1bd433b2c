"""Nothing leaks out of the process: every way to end one gives back what it holds, and a fork holds
nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import coord
from coord import Coordinator, LossReason

HOLD = """
import sys, time, coord
c = coord.connect(sys.argv[1])
lead = c.leadership("r", ttl=60)
lead.start()
assert lead.wait(10)
print("held", flush=True)
"""
ENDS = {
    "a normal end": ("", 0),
    "sys.exit": ("sys.exit(7)", 7),
    "an exception": ("raise SystemError('x')", 1),
    "SIGTERM": ("time.sleep(60)", 143),
    "SIGHUP": ("time.sleep(60)", 129),
    "Ctrl-C": ("time.sleep(60)", -signal.SIGINT),
    "SIGTERM of a job": (
        "coord.leader_only('job', coordinator=c)(lambda: (time.sleep(60)))()",
        143,
    ),
}
SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP, "Ctrl-C": signal.SIGINT}


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/coord.db"


def test_nohup_is_respected(sqlite_url: str) -> None:
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + HOLD
    code += "import os; os.kill(os.getpid(), signal.SIGHUP); time.sleep(0.1); sys.exit(5)"
    assert subprocess.run([sys.executable, "-c", code, sqlite_url], check=False).returncode == 5


@pytest.mark.parametrize("way", ENDS)
def test_the_end_of_a_process_releases(way: str, sqlite_url: str) -> None:
    code, status = ENDS[way]
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", HOLD + code, sqlite_url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    with coord.connect(sqlite_url) as c:
        number = SIGNALS.get(way.split(maxsplit=1)[0])
        if number is not None:
            assert c.leader("r") is not None
            time.sleep(0.3)
            child.send_signal(number)
        _, err = child.communicate(timeout=20)
        assert child.returncode == status, err.decode()
        assert c.leaders() == []


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_an_async_program_that_is_interrupted_releases(
    ending: signal.Signals, sqlite_url: str
) -> None:
    code = """
import asyncio, sys, coord
async def main():
    async with coord.AsyncCoordinator(sys.argv[1]) as c, c.leadership("r", ttl=60) as lead:
        assert await lead.wait(10)
        print("held", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code, sqlite_url], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    child.send_signal(ending)
    child.communicate(timeout=20)
    assert child.returncode in (143, 1, -signal.SIGINT)
    with coord.connect(sqlite_url) as c:
        assert c.leader("r") is None


def in_child(work: object) -> str:
    """Fork, run `work` there, and give back what it returned, as text."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            output = repr(work())  # type: ignore[operator]
        except BaseException as err:
            output = f"raised {err!r}"
        os.write(write, output.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        output = pipe.read()
    os.waitpid(pid, 0)
    return output


@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
)
def test_a_fork_drops_everything_and_the_parent_keeps_it(sqlite_url: str) -> None:
    with coord.connect(sqlite_url) as c:
        reports: list[object] = []
        lead = c.leadership("r", ttl=30, on_lost=lambda term, why: reports.append(why))
        assert lead.acquire(timeout=5)
        term = lead.term

        def look() -> tuple[object, ...]:
            return (
                lead.is_leader,
                term.held,
                str(term.reason),
                term.lost.wait(0),
                lead.started,
                reports,
            )

        assert in_child(look) == "(False, False, 'forked', True, False, [])"
        # The child can be a candidate, through the same objects, with connections and an id of its own.
        assert in_child(lambda: (lead.acquire(blocking=False), c.leader("r").token)) == "(None, 1)"  # type: ignore[union-attr]
        assert in_child(lambda: c.leadership("other", ttl=30).acquire(timeout=5).token) == "1"  # type: ignore[union-attr]
        assert lead.is_leader
        assert term.held
        assert reports == []
        time.sleep(0.2)
        with pytest.raises(
            coord.AcquireTimeout
        ):  # the child ended by os._exit: its lease must run out
            c.leadership("other", ttl=30).acquire(timeout=0.2)


@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
)
def test_pre_forked_workers_of_which_one_leads(sqlite_url: str) -> None:
    """The shape of gunicorn with a preloaded application: decorated at import, called in each
    worker."""
    c = Coordinator(sqlite_url)

    @coord.leader_only("beat", coordinator=c, ttl=5)
    def beat() -> int:
        term = coord.current_term()
        assert term is not None
        return term.token

    workers = []
    for _ in range(4):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            ran = 0
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                ran += beat() is not None
                time.sleep(0.05)
            os.write(write, str(ran).encode())
            os._exit(0)
        os.close(write)
        workers.append((pid, read))
    counts = []
    for pid, read in workers:
        with os.fdopen(read) as pipe:
            counts.append(int(pipe.read()))
        os.waitpid(pid, 0)
    assert sorted(counts)[:3] == [0, 0, 0]
    assert max(counts) > 5
    c.close()


FORKS = """
import logging, os, sys, time, coord
logging.basicConfig(level=logging.WARNING)
with coord.connect(sys.argv[1]) as c:
    leadership = c.leadership("r", ttl=60)
    assert leadership.acquire(timeout=10)
    c.services.heartbeat({"id": "a", "role": "web", "ttl": 60, "load": 1})
    c.services.healthy_service("web")
    time.sleep(0.3)  # the feeds wait
    child = os.fork()
    if child == 0:
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
def test_the_end_of_a_forked_child_reports_nothing_of_its_parent(
    scheme: str, sqlite_url: str
) -> None:
    url = "memory://" if scheme == "memory" else sqlite_url
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", FORKS, url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_multiprocessing_children_release_at_their_end(sqlite_url: str) -> None:
    code = """
import multiprocessing, sys, coord
def work(url):
    lead = coord.connect(url).leadership("r", ttl=60)
    assert lead.acquire(timeout=10)
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn" if len(sys.argv) > 2 else "fork")
    child = multiprocessing.Process(target=work, args=(sys.argv[1],))
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""
    subprocess.run([sys.executable, "-c", code, sqlite_url], check=True, timeout=30)
    with coord.connect(sqlite_url) as c:
        lease = c.inner.leader("r")
        lease.close()
        assert c.leader("r") is None
        assert c.leadership("r", ttl=3).acquire(timeout=5).token == 2  # type: ignore[union-attr]


def test_killed_outright_the_role_passes_on_within_the_ttl(sqlite_url: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD.replace("ttl=60", "ttl=1.5") + "time.sleep(60)", sqlite_url],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    with coord.connect(sqlite_url) as c:
        lead = c.leadership("r", ttl=1.5)
        lead.start()
        time.sleep(0.3)
        child.kill()
        killed = time.monotonic()
        assert lead.wait(10)
        assert time.monotonic() - killed < 1.5 + 0.5  # the ttl, and a loaded machine
        assert lead.term.token == 2
        child.communicate()
    assert LossReason.FORKED.value == "forked"
