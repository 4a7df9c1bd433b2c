"""The guardian alone, moved by hand: no store, no coordinator."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

import pytest

from tests.support.processes import HERE, WORKER, Journal, Start, boottime, lives
from tests.support.waits import eventually

SHORT = 0.15


class Driven:
    """The driver's process, and what it hears from the guardian."""

    def __init__(self, start: Start, grace: float, *command: str) -> None:
        self.process = start(str(HERE / "guardian_driver.py"), str(grace), *command)
        self.guardian = self.hear()["guardian"]

    def tell(self, *words: object) -> None:
        assert self.process.stdin is not None
        print(*words, file=self.process.stdin, flush=True)

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read() if self.process.stderr else ""
        heard = json.loads(line)
        assert isinstance(heard, dict)
        return heard

    def begin(self, seconds: float) -> int:
        self.tell("start", seconds)
        child = self.hear()["child"]
        assert isinstance(child, int)
        return child


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 41", 41), ("kill -9 $$", 137), ("kill -INT $$", 130)],
)
def test_reports_the_status(start: Start, script: str, status: int) -> None:
    driven = Driven(start, 1, "sh", "-c", script)
    driven.begin(30)
    assert driven.hear() == {"cause": "BY_ITSELF", "status": status}


def test_a_command_that_cannot_be_executed(start: Start) -> None:
    driven = Driven(start, 1, "/nonexistent/command")
    driven.begin(30)
    assert driven.hear() == {"cause": "BY_ITSELF", "status": 127}
    assert driven.process.stderr is not None
    assert (
        driven.process.stderr.readline()
        == "coord run: /nonexistent/command: No such file or directory\n"
    )


def test_term_before_the_deadline_and_kill_at_it(start: Start, journal: Journal) -> None:
    driven = Driven(start, 0.3, *WORKER, str(journal.path), "--ignore-term", "--grandchild")
    begun = boottime()
    driven.begin(0.8)
    assert driven.hear() == {"cause": "DEADLINE", "status": 137}
    lasts = [one.last for one in journal.stretches()]
    assert len(lasts) == 2
    assert all(begun + 0.5 < last < begun + 0.8 + SHORT for last in lasts)


def test_a_command_that_obeys_ends_at_the_grace(start: Start, journal: Journal) -> None:
    driven = Driven(start, 2, *WORKER, str(journal.path))
    begun = boottime()
    driven.begin(2.5)
    assert driven.hear() == {"cause": "DEADLINE", "status": 143}
    assert boottime() < begun + 2.0


def test_extending_moves_the_deadline_forward_and_never_back(
    start: Start, journal: Journal
) -> None:
    driven = Driven(start, 0.1, *WORKER, str(journal.path))
    begun = boottime()
    driven.begin(0.8)
    driven.tell("extend", 1.5)
    driven.tell("extend", 0.2)
    assert driven.hear()["cause"] == "DEADLINE"
    assert boottime() > begun + 1.3


def test_too_late_to_start(start: Start, journal: Journal) -> None:
    driven = Driven(start, 1, *WORKER, str(journal.path))
    driven.tell("start", 0.9)
    assert driven.hear() == {"cause": "DEADLINE", "status": 0}
    assert journal.stretches() == []


def test_the_runner_says_end(start: Start, journal: Journal) -> None:
    driven = Driven(start, 5, *WORKER, str(journal.path), "--ignore-term")
    driven.begin(30)
    journal.wait_for(7)
    said = boottime()
    driven.tell("end", 0.2)
    assert driven.hear() == {"cause": "ORDERED", "status": 137}
    found = journal.wait_for(7)
    assert said + 0.1 < found.last < said + 0.2 + SHORT


def test_a_killed_runner(start: Start, journal: Journal) -> None:
    driven = Driven(start, 0.3, *WORKER, str(journal.path), "--ignore-term", "--grandchild")
    child = driven.begin(30)
    grandchild = journal.wait_for(7, "grandchild").pid
    killed = boottime()
    driven.process.kill()
    eventually(lambda: not lives(child) and not lives(grandchild) and not lives(driven.guardian))
    assert all(killed + 0.2 < one.last < killed + 0.3 + SHORT for one in journal.stretches())


def test_a_runner_killed_with_its_group_while_standing_by(start: Start) -> None:
    driven = Driven(start, 1, "true")
    driven.process.kill()
    eventually(lambda: not lives(driven.guardian))


def test_signals_for_everybody_do_not_reach_the_guardian(start: Start, journal: Journal) -> None:
    driven = Driven(start, 1, *WORKER, str(journal.path))
    child = driven.begin(30)
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGPIPE,
        signal.SIGALRM,
    ):
        os.kill(driven.guardian, number)
    assert os.getpgid(driven.guardian) not in (os.getpgid(driven.process.pid), os.getpgid(child))
    journal.wait_for(7)
    driven.tell("signal", int(signal.SIGUSR2))
    assert driven.hear() == {"cause": "BY_ITSELF", "status": 128 + signal.SIGUSR2}


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_a_killed_guardian_takes_the_command_along(start: Start, journal: Journal) -> None:
    driven = Driven(start, 5, *WORKER, str(journal.path), "--ignore-term", "--grandchild")
    child = driven.begin(30)
    grandchild = journal.wait_for(7, "grandchild").pid
    os.kill(driven.process.pid, signal.SIGSTOP)
    os.kill(driven.guardian, signal.SIGKILL)
    eventually(lambda: not lives(child))  # by the kernel: the runner is stopped
    os.kill(driven.process.pid, signal.SIGCONT)
    assert driven.hear() == {"gone": True, "clean": True}
    assert not lives(grandchild)


def test_a_stopped_guardian_is_replaced_by_force(start: Start, journal: Journal) -> None:
    driven = Driven(start, 5, *WORKER, str(journal.path), "--ignore-term", "--grandchild")
    child = driven.begin(30)
    grandchild = journal.wait_for(7, "grandchild").pid
    os.kill(driven.guardian, signal.SIGSTOP)
    driven.tell("force")
    assert driven.hear()["gone"]
    assert not lives(child)
    assert not lives(grandchild)


def test_what_is_left_of_the_group_is_ended(start: Start, journal: Journal) -> None:
    script = "WORKER & sleep 0.3; exit 3".replace(
        "WORKER", " ".join([*WORKER, str(journal.path), "--ignore-term"])
    )
    driven = Driven(start, 5, "sh", "-c", script)
    begun = boottime()
    driven.begin(30)
    assert driven.hear() == {"cause": "BY_ITSELF", "status": 3}
    (left,) = journal.stretches()
    assert not lives(left.pid)
    assert begun + 1.2 < left.last < begun + 1.3 + 2 * SHORT


def test_a_stopped_command_is_ended_too(start: Start, journal: Journal) -> None:
    driven = Driven(start, 4, *WORKER, str(journal.path))
    child = driven.begin(30)
    os.kill(child, signal.SIGSTOP)
    assert driven.hear() == {"stopped": 1}
    driven.tell("end", 20)
    assert driven.hear() == {"cause": "ORDERED", "status": 143}


def test_the_command_gets_three_descriptors_and_default_signals(
    start: Start, tmp_path: Any
) -> None:
    script = (
        "ls -l /proc/self/fd > FILE; grep -E '^Sig(Blk|Ign)' /proc/self/status >> FILE".replace(
            "FILE", str(tmp_path / "seen")
        )
    )
    reader, writer = os.pipe()
    extra = start(
        str(HERE / "guardian_driver.py"), "1", "sh", "-c", script, pass_fds=(reader, writer)
    )
    assert extra.stdin is not None
    print("start 30", file=extra.stdin, flush=True)
    extra.wait(10)
    os.close(reader)
    os.close(writer)
    seen = (tmp_path / "seen").read_text()
    numbers = [line.split(" -> ")[0].split()[-1] for line in seen.splitlines() if "->" in line]
    assert numbers == ["0", "1", "2", "3"]  # 3 is the directory that ls reads
    masks = {line[:6]: int(line.split()[1], 16) for line in seen.splitlines() if line[:3] == "Sig"}
    # The C library keeps signals 32 and 33 to itself: no program can set what they do.
    assert masks["SigIgn"] & ~(0b11 << 31) == 0
    assert masks["SigBlk"] == 0


def test_an_early_signal_is_not_lost(start: Start) -> None:
    for _ in range(5):
        driven = Driven(start, 1, "sleep", "30")
        driven.tell(f"start 60\nsignal {int(signal.SIGTERM)}")
        driven.hear()
        assert driven.hear() == {"cause": "BY_ITSELF", "status": 143}


def test_standing_by_costs_no_processor_time(start: Start) -> None:
    driven = Driven(start, 1, "true")
    time.sleep(0.1)
    before = _switches(driven.guardian)
    time.sleep(0.7)
    assert _switches(driven.guardian) == before


def _switches(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("voluntary"))
