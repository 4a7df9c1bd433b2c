"""Two candidates: the second's COMMAND never runs beside the first's, whatever becomes of the
first."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import coord
from coord.cli.run import descendants
from coord.stores import urls
from tests.support.processes import WORKER, Journal, Runs, Start, boottime, children, lives
from tests.support.stalls import StallingStore
from tests.support.store_urls import shared_url
from tests.support.waits import eventually

url = shared_url

TTL = 1.5
SLACK = 20.0
"""Seconds for processes to be started, on a machine with other work to do. A takeover that waits
for a lease of 30 seconds, the default, takes longer."""
STUBBORN = ("--ignore-term", "--grandchild")


@pytest.fixture
def store(url: str) -> Iterator[StallingStore]:
    stalling = StallingStore(url)
    yield stalling
    stalling.close()


@pytest.fixture
def runs(start: Start, store: StallingStore, journal: Journal) -> Runs:
    return Runs(start, store.url, journal)


def wait_for_a_candidate(runs: Runs) -> None:
    """Wait until a candidate has announced that it waits for the role."""
    with coord.connect(runs.url) as c:
        eventually(lambda: c.candidates("job"))


def wait_for_a_renewal(runs: Runs) -> None:
    """Return right after the leader has renewed its lease."""
    with coord.connect(runs.url) as c:
        before = c.leader("job")
        assert before is not None

        def renewed() -> bool:
            time.sleep(0.05)  # each look is a request
            lease = c.leader("job")
            assert lease is not None
            assert lease.token == before.token
            return lease.beat > before.beat

        eventually(renewed)


def test_the_second_takes_over_when_the_first_ends(runs: Runs) -> None:
    runs.worker(flags=["--for", "1.2", "--exit", "5"])
    runs.journal.wait_for(1)
    second = runs.worker()
    taken = runs.journal.wait_for(2)
    # The ttl is 30 seconds: the role was released, and did not expire.
    assert taken.first - runs.journal.wait_for(1).last < SLACK
    runs.journal.check_no_overlap()
    assert second.poll() is None


def test_the_preferred_one_gets_the_role_when_the_first_has_had_it_for_a_while(runs: Runs) -> None:
    spare = runs.worker("--ttl", "9", "--min-tenure", "3")
    runs.journal.wait_for(1)
    preferred = runs.worker("--ttl", "9", "--priority", "10")
    runs.journal.wait_for(2)
    assert spare.wait(20) == 77
    runs.journal.check_no_overlap()
    with coord.connect(runs.url) as c:
        (first,) = [term for term in c.history("job") if term.token == 1]
    assert first.reason == "stepped_down"
    assert first.until is not None
    assert first.until - first.since > 2.9
    wait_for_a_renewal(runs)
    assert runs.worker("--no-wait").wait(20) == 75, "one that is not preferred gets nothing"
    assert preferred.poll() is None


def test_the_runner_killed(runs: Runs) -> None:
    first = runs.worker("--ttl", str(TTL), flags=STUBBORN)
    runs.journal.wait_for(1, "grandchild")
    runs.worker("--ttl", str(TTL))
    wait_for_a_candidate(runs)
    killed = boottime()
    first.kill()
    taken = runs.journal.wait_for(2)
    runs.journal.check_no_overlap()
    assert taken.first - killed < TTL + SLACK
    assert {stretch.name for stretch in runs.journal.stretches() if stretch.token == "1"} == {
        "worker",
        "grandchild",
    }


def test_the_runner_stopped(runs: Runs) -> None:
    first = runs.worker("--ttl", str(TTL), flags=STUBBORN)
    runs.journal.wait_for(1, "grandchild")
    runs.worker("--ttl", str(TTL))
    wait_for_a_candidate(runs)
    stopped = boottime()
    first.send_signal(signal.SIGSTOP)
    taken = runs.journal.wait_for(2)
    runs.journal.check_no_overlap()
    assert taken.first - stopped < TTL + SLACK
    first.send_signal(signal.SIGCONT)
    assert first.wait(20) == 77


def test_the_guardian_stopped_and_the_store_blocked(runs: Runs, store: StallingStore) -> None:
    """The runner stands in for a guardian that does not act."""
    first = runs.worker("--ttl", str(TTL), flags=STUBBORN)
    child = runs.journal.wait_for(1).pid
    (guardian,) = children(first.pid)
    os.kill(guardian, signal.SIGSTOP)
    unblock = store.block()
    eventually(lambda: not lives(child), within=TTL + SLACK)
    unblock()
    assert first.wait(20) == 77
    assert not lives(guardian)


def test_the_guardian_killed(runs: Runs) -> None:
    first = runs.worker("--ttl", "50", flags=STUBBORN)
    runs.journal.wait_for(1, "grandchild")
    runs.worker("--ttl", "50")
    wait_for_a_candidate(runs)
    killed = boottime()
    os.kill(children(first.pid)[0], signal.SIGKILL)
    taken = runs.journal.wait_for(2)
    runs.journal.check_no_overlap()
    assert taken.first - killed < SLACK  # released: the lease lasts 50 s
    assert first.wait(20) == 70


def test_the_store_blocked_for_longer_than_the_lease(runs: Runs, store: StallingStore) -> None:
    first = runs.worker("--ttl", str(TTL), flags=STUBBORN)
    child = runs.journal.wait_for(1).pid
    runs.worker("--ttl", str(TTL))
    wait_for_a_candidate(runs)
    begun = boottime()
    unblock = store.block()
    assert first.wait(20) == 77
    assert not lives(child)
    assert max(stretch.last for stretch in runs.journal.stretches()) < begun + TTL
    unblock()
    # A claim whose answer was blocked may have taken token 2.
    eventually(lambda: any(int(stretch.token) > 1 for stretch in runs.journal.stretches()))
    runs.journal.check_no_overlap()
    assert first.stderr is not None
    assert "lost the leadership of 'job' (token 1)" in first.stderr.read()


def test_a_short_outage_of_the_store_does_no_harm(runs: Runs, store: StallingStore) -> None:
    first = runs.worker("--ttl", "6")
    runs.journal.wait_for(1)
    wait_for_a_renewal(runs)
    unblock = store.block()
    time.sleep(2.4)  # longer than the time between renewals, shorter than deadline - grace
    unblock()
    wait_for_a_renewal(runs)
    assert first.poll() is None
    assert len(runs.journal.stretches()) == 1


def test_a_role_taken_by_force(runs: Runs) -> None:
    """Somebody raised the token in the store: COMMAND is ended at the next renewal, without
    any grace."""
    first = runs.worker("--ttl", "9", "--grace", "0.7", flags=STUBBORN)
    child = runs.journal.wait_for(1).pid
    _usurp(runs.url)
    assert first.wait(20) == 77
    assert not lives(child)
    assert first.stderr is not None
    assert "taken" in first.stderr.read()


def test_a_role_taken_by_force_gives_no_grace(runs: Runs) -> None:
    """Another holder leads already, so COMMAND gets much less than its grace of 3.5 s."""
    first = runs.worker("--ttl", "9", "--grace", "3.5", flags=STUBBORN)
    runs.journal.wait_for(1, "grandchild")
    worker = runs.journal.wait_for(1).pid
    _usurp(runs.url)
    assert first.stderr is not None
    assert first.wait(20) == 77
    output = "lost the leadership of 'job' (token 1): taken; COMMAND was ended"
    assert output in first.stderr.read()
    terminated = runs.journal.terminated(worker)
    assert terminated is not None
    assert runs.journal.wait_for(1).last - terminated < 2.5


def test_a_job_below_gnu_timeout_ends_before_the_next_begins(runs: Runs) -> None:
    script = f"timeout 60 {' '.join([*WORKER, str(runs.journal.path)])} --ignore-term; true"
    runs.run("--ttl", "30", "--grace", "0.5", "--", "sh", "-c", script)
    runs.journal.wait_for(1)
    runs.worker("--ttl", "30")
    wait_for_a_candidate(runs)
    status, _, err = runs.answer("step-down", "job", "--url", runs.url, "--yes")
    assert status == 0, err
    runs.journal.wait_for(2)
    runs.journal.check_no_overlap()


def test_killall_ends_the_command_and_all_its_descendants(runs: Runs) -> None:
    """`killall -9 coord` reaches every process with that name."""
    program = Path(sys.executable).with_name("coord")
    words = ("run", "job", "--url", runs.url, "--", *WORKER, str(runs.journal.path), *STUBBORN)
    code = f"import os; os.execv({str(program)!r}, ['coord', *{list(words)!r}, '--daemon'])"
    first = runs.start("-c", code)
    daemon = runs.journal.wait_for(1, "grandchild").pid
    tree = [first.pid, *(process.pid for process in descendants.living(first.pid, None))]
    assert daemon in tree
    named = [pid for pid in tree if Path(f"/proc/{pid}/comm").read_text() == "coord\n"]
    assert named == [first.pid]
    for pid in named:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(lives(pid) for pid in tree if pid != first.pid))


def test_children_of_the_shell_before_are_spared(runs: Runs) -> None:
    """A shell started a process, and then became coord run. It is no descendant of COMMAND."""
    words = ("-m", "coord", "run", "job", "--url", runs.url, "--", *WORKER, str(runs.journal.path))
    line = "sh -c 'sleep 50; true' & exec \"$@\""
    begin = "import os, sys; os.execvp('sh', ['sh', '-c', *sys.argv[1:]])"
    first = runs.start("-c", begin, line, "sh", sys.executable, *words, *STUBBORN, "--daemon")
    daemon = runs.journal.wait_for(1, "grandchild").pid
    worker = runs.journal.wait_for(1).pid
    guardian = _parent(worker)
    (shell,) = [pid for pid in children(first.pid) if pid != guardian]
    (sleep,) = eventually(lambda: children(shell))
    os.kill(guardian, signal.SIGKILL)
    assert first.wait(20) == 70
    assert not lives(worker)
    assert not lives(daemon)
    assert lives(shell)
    assert lives(sleep)


def test_a_process_that_cannot_be_killed_keeps_the_role(runs: Runs) -> None:
    worker = " ".join([*WORKER, str(runs.journal.path), "--immune"])
    words = ("run", "job", "--url", runs.url)
    command = ("--", "sh", "-c", f"setsid {worker} & sleep 0.5; exit 3")
    first = runs.start(
        "-c",
        "import sys; from tests.support.signals import make_immune; make_immune('--immune');"
        "from coord.cli import main; main(sys.argv[1:])",
        *words,
        *command,
    )
    immune = runs.journal.wait_for(1).pid
    assert first.wait(20) == 3
    assert first.stderr is not None
    name = Path(f"/proc/{immune}/comm").read_text().strip()
    # A slow store makes the command say first that it waits.
    line = next(line for line in first.stderr if "waiting for 'job'" not in line)
    assert line == (
        f"coord run: cannot end process {immune} ({name}), which COMMAND started: end it yourself; "
        "'job' is not released: it is free when the lease expires, in at most 30 s\n"
    )
    assert runs.answer("leader", "job", "--url", runs.url)[0] == 0


def test_many_candidates_and_killed_leaders(runs: Runs) -> None:
    candidates = [runs.worker("--ttl", str(TTL), flags=["--ignore-term"]) for _ in range(4)]
    for term in (1, 2, 3):
        worker = runs.journal.wait_for(term)
        time.sleep(0.1)
        guardian = _parent(worker.pid)
        leader = next(candidate for candidate in candidates if guardian in children(candidate.pid))
        leader.kill()
        candidates.remove(leader)
    runs.journal.wait_for(4)
    runs.journal.check_no_overlap()


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def _usurp(url: str) -> None:
    """Give the role a greater token, as a leader that another candidate replaced finds it."""
    asyncio.run(urls.open_admin(url).raise_token_floor(50, [], 20))
