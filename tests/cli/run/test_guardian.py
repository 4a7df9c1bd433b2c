"""The guardian alone, moved by hand: no store, no coordinator."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import HERE, WORKER, Journal, Start, boottime, lives
from tests.support.waits import eventually

SHORT = 0.15
DAEMON = ("--ignore-term", "--grandchild", "--daemon")
"""COMMAND leaves a process with a session of its own behind."""
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs prctl(2) of Linux")


class Driven:
    """The driver's process, and what it hears from the guardian."""

    def __init__(self, start: Start, grace: float, *command: str, **options: Any) -> None:
        self.process = start(str(HERE / "guardian_driver.py"), str(grace), *command, **options)
        self.guardian = self.hear()["guardian"]

    def tell(self, *words: object) -> None:
        assert self.process.stdin is not None
        print(*words, file=self.process.stdin, flush=True)

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read() if self.process.stderr else ""
        message = json.loads(line)
        assert isinstance(message, dict)
        return message

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
    lasts = [stretch.last for stretch in journal.stretches()]
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
    output = boottime()
    driven.tell("end", 0.2)
    assert driven.hear() == {"cause": "ORDERED", "status": 137}
    entry = journal.wait_for(7)
    assert output + 0.1 < entry.last < output + 0.2 + SHORT


def test_a_killed_runner(start: Start, journal: Journal) -> None:
    driven = Driven(start, 0.3, *WORKER, str(journal.path), "--ignore-term", "--grandchild")
    child = driven.begin(30)
    grandchild = journal.wait_for(7, "grandchild").pid
    killed = boottime()
    driven.process.kill()
    eventually(lambda: not lives(child) and not lives(grandchild) and not lives(driven.guardian))
    assert all(
        killed + 0.2 < stretch.last < killed + 0.3 + SHORT for stretch in journal.stretches()
    )


def test_a_runner_killed_with_its_group_while_it_waits(start: Start) -> None:
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


@linux
def test_a_killed_guardian_takes_the_command_along(start: Start, journal: Journal) -> None:
    driven = Driven(start, 5, *WORKER, str(journal.path), "--ignore-term", "--grandchild")
    child = driven.begin(30)
    grandchild = journal.wait_for(7, "grandchild").pid
    os.kill(driven.process.pid, signal.SIGSTOP)
    os.kill(driven.guardian, signal.SIGKILL)
    eventually(lambda: not lives(child))  # by the kernel: the runner is stopped
    os.kill(driven.process.pid, signal.SIGCONT)
    assert driven.hear() == {"gone": True, "survivors": []}
    assert not lives(grandchild)


@linux
def test_a_killed_guardian_takes_daemons_along(start: Start, journal: Journal) -> None:
    driven = Driven(start, 5, *WORKER, str(journal.path), *DAEMON)
    driven.begin(30)
    daemon = journal.wait_for(7, "grandchild").pid
    os.kill(driven.guardian, signal.SIGKILL)
    assert driven.hear() == {"gone": True, "survivors": []}
    assert not lives(daemon)


@linux
def test_killall_does_not_reach_the_guardian(start: Start) -> None:
    driven = Driven(start, 1, "sleep", "30")
    driven.begin(30)
    names = [Path(f"/proc/{driven.guardian}/{file}").read_text() for file in ("comm", "cmdline")]
    assert [name.rstrip("\n\0") for name in names] == ["role-guardian"] * 2


@pytest.mark.parametrize("defect", ["_enforce", "_reap"])
def test_a_defect_of_the_guardian_ends_the_command(
    start: Start, journal: Journal, defect: str
) -> None:
    driven = Driven(start, 5, *WORKER, str(journal.path), *DAEMON, env={"DEFECT": defect})
    driven.tell("start", 30)
    daemon = journal.wait_for(7, "grandchild").pid
    child = journal.wait_for(7).pid
    os.kill(driven.process.pid, signal.SIGSTOP)  # The runner cannot help.
    eventually(lambda: not lives(child) and not lives(daemon))
    os.kill(driven.process.pid, signal.SIGCONT)
    eventually(lambda: driven.hear() == {"gone": True, "survivors": []})
    assert driven.process.stderr is not None
    assert "the guardian failed: RuntimeError" in driven.process.stderr.readline()


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
    (stretch,) = journal.stretches()
    assert not lives(stretch.pid)
    assert begun + 1.2 < stretch.last < begun + 1.3 + 2 * SHORT


@linux
def test_a_daemon_is_ended(start: Start, journal: Journal) -> None:
    """It has another group, another session and, since its parent ended, another parent."""
    driven = Driven(start, 5, *WORKER, str(journal.path), *DAEMON, "--for", "0.3")
    driven.begin(30)
    daemon = journal.wait_for(7, "grandchild").pid
    driven.tell("end", 0.3)
    assert driven.hear()["cause"] == "ORDERED"
    assert not lives(daemon)


@linux
@pytest.mark.parametrize("order", ["end 25", "extend 0"])
def test_the_kill_time_is_never_after_the_deadline(
    start: Start, journal: Journal, order: str
) -> None:
    """Neither when the runner orders a later time, nor when COMMAND leaves a process behind."""
    worker = " ".join([*WORKER, str(journal.path), "--ignore-term"])
    driven = Driven(start, 0.1, "sh", "-c", f"trap '' TERM; {worker} & sleep 2.2; exit 3")
    begun = boottime()
    driven.begin(2.5)
    journal.wait_for(7)
    driven.tell(order)
    driven.hear()
    assert max(stretch.last for stretch in journal.stretches()) < begun + 2.5 + SHORT


@linux
def test_gnu_timeout_does_not_hide_a_process(start: Start, journal: Journal) -> None:
    """It moves itself and its command to a process group of their own."""
    script = " ".join(["timeout 60", *WORKER, str(journal.path), "--ignore-term"])
    driven = Driven(start, 5, "sh", "-c", f"{script}; true")
    driven.begin(30)
    worker = journal.wait_for(7).pid
    driven.tell("end", 0.2)
    assert driven.hear()["cause"] == "ORDERED"
    assert not lives(worker)


@linux
def test_a_fork_bomb_is_ended(start: Start, journal: Journal) -> None:
    """Each process lives for some milliseconds and has a session of its own."""
    script = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"file = os.open({str(journal.path)!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)\n"
        "while True:\n"
        "    if os.fork(): os._exit(0)\n"
        "    os.setsid()\n"
        "    now = time.clock_gettime(time.CLOCK_BOOTTIME)\n"
        "    os.write(file, f'7 {os.getpid()} {now:.6f} worker\\n'.encode())\n"
    )
    driven = Driven(start, 0.2, sys.executable, "-S", "-E", "-c", script)
    driven.begin(30)
    journal.wait_for(7)
    assert driven.hear() == {"cause": "BY_ITSELF", "status": 0}
    ended = boottime()
    time.sleep(0.1)
    assert all(stretch.last < ended for stretch in journal.stretches())


@linux
@pytest.mark.parametrize("status", [0, 3])
def test_what_cannot_be_killed_is_reported(start: Start, journal: Journal, status: int) -> None:
    worker = " ".join([*WORKER, str(journal.path), "--immune", "--for", "8"])
    driven = Driven(
        start,
        1,
        *("sh", "-c", f"setsid {worker} & sleep 0.5; exit {status}"),
        env={"IMMUNE": "--immune"},
    )
    driven.begin(30)
    immune = journal.wait_for(7).pid
    reported = driven.hear()
    name = Path(f"/proc/{immune}/comm").read_text().strip()
    assert reported == {
        "cause": "BY_ITSELF",
        "status": status,
        "survivors": [f"{immune} ({name})"],
    }
    os.kill(immune, signal.SIGKILL)


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to start a process of another user")
def test_a_process_of_another_user_is_reported(start: Start) -> None:
    """The kernel denies the signals, because the driver has no CAP_KILL."""
    without = ["setpriv", "--bounding-set", "-kill", "--inh-caps", "-kill"]
    another = "exec setpriv --reuid 65534 --clear-groups sleep 8"
    driver = [sys.executable, str(HERE / "guardian_driver.py"), "1", "sh", "-c", another]
    process = start("-c", f"import os; os.execvp('setpriv', {[*without, *driver]!r})")
    assert process.stdin is not None
    assert process.stdout is not None
    print("start 30", file=process.stdin, flush=True)
    _, child = (json.loads(process.stdout.readline()) for _ in range(2))
    eventually(lambda: "sleep" in Path(f"/proc/{child['child']}/comm").read_text())
    print(f"signal {int(signal.SIGUSR1)}\nend 0.2", file=process.stdin, flush=True)
    assert json.loads(process.stdout.readline()) == {"not_permitted": [int(signal.SIGUSR1)]}
    assert json.loads(process.stdout.readline()) == {
        "cause": "ORDERED",
        "status": 0,
        "survivors": [f"{child['child']} (sleep)"],
    }
    os.kill(child["child"], signal.SIGKILL)


def test_a_stopped_command_is_ended_too(start: Start, journal: Journal) -> None:
    driven = Driven(start, 4, *WORKER, str(journal.path))
    child = driven.begin(30)
    os.kill(child, signal.SIGSTOP)
    assert driven.hear() == {"stopped": 1}
    driven.tell("end", 20)
    assert driven.hear() == {"cause": "ORDERED", "status": 143}


def test_the_command_gets_inherited_descriptors_and_default_signals(
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
    text = (tmp_path / "seen").read_text()
    numbers = [line.split(" -> ")[0].split()[-1] for line in text.splitlines() if "->" in line]
    more = [number for number in numbers if int(number) > 2 and int(number) not in (reader, writer)]
    assert sorted(numbers) == sorted(["0", "1", "2", str(reader), str(writer), *more])
    assert len(more) == 1  # the directory that ls reads
    masks = {line[:6]: int(line.split()[1], 16) for line in text.splitlines() if line[:3] == "Sig"}
    # The C library keeps signals 32 and 33 to itself: no program can set what they do.
    assert masks["SigIgn"] & ~(0b11 << 31) == 0
    assert masks["SigBlk"] == 0


def test_an_early_signal_is_not_lost(start: Start) -> None:
    for _ in range(5):
        driven = Driven(start, 1, "sleep", "30")
        driven.tell(f"start 60\nsignal {int(signal.SIGTERM)}")
        driven.hear()
        assert driven.hear() == {"cause": "BY_ITSELF", "status": 143}


def test_waiting_costs_no_processor_time(start: Start) -> None:
    driven = Driven(start, 1, "true")
    time.sleep(0.1)
    before = _switches(driven.guardian)
    time.sleep(0.7)
    assert _switches(driven.guardian) == before


def _switches(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("voluntary"))
