"""`coord once`: a command is run once for each tick, by real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import coord
from tests.support.commands import Answer, run_here
from tests.support.processes import WORKER, Runs, without_status
from tests.support.store_urls import shared_url
from tests.support.waits import eventually

url = shared_url

TWO = "2026-11-30T02:00"
MAIN_ELSEWHERE = """\
import os, sys
sys.path.remove("")
from coord.cli import main
os.chdir(sys.argv.pop(1))
main()
"""


def once(runs: Runs, *words: str, within: float = 60.0) -> tuple[int, str, str]:
    status, out, err = runs.answer("once", "report", "--url", runs.url, *words, within=within)
    return status, out, without_status(err)


def record(runs: Runs, tick: str) -> None:
    """Let a tick be one that was run."""
    with coord.connect(runs.url) as c:
        c.once("report", tick, lambda: None)


def test_a_command_is_run_once_for_a_tick(runs: Runs) -> None:
    show = ("--", "sh", "-c", 'echo "$COORD_TICK $COORD_ROLE $COORD_TOKEN $COORD_URL"')
    status, out, err = once(runs, "--tick", TWO, *show)
    assert (status, out, err) == (0, f"2026-11-30T02:00:00Z report 1 {runs.url}\n", "")
    status, out, err = once(runs, "--tick", "2026-11-30T03:00+01:00", *show)
    assert (status, out) == (0, "")
    expected = "not started: tick 2026-11-30T02:00:00Z of 'report' was run, under token 1"
    assert expected in err
    with coord.connect(runs.url) as c:
        done = c.once_done("report", TWO)
        assert done is not None
        assert set(done.result) == {"host", "pid"}
        assert c.leader("report") is None
    status, out, _ = once(runs, "--tick", "2026-11-30T04:00", "--no-url", *show)
    assert (status, out) == (0, "2026-11-30T04:00:00Z report 2 \n")


def test_a_command_that_fails_is_run_again(runs: Runs) -> None:
    assert once(runs, "--tick", "7", "--", "false")[0] == 1
    assert once(runs, "--tick", "7", "--", "true")[0] == 0
    assert "was run" in once(runs, "--tick", "7", "--", "false")[2]


def test_without_retry_a_command_that_failed_is_left_for_people(runs: Runs) -> None:
    assert once(runs, "--tick", "7", "--no-retry", "--", "false")[0] == 1
    status, out, err = once(runs, "--tick", "7", "--no-retry", "--", "echo", "ran")
    assert (status, out) == (65, "")
    assert "a run began under token 1" in err
    assert once(runs, "--tick", "7", "--", "echo", "ran")[:2] == (0, "ran\n")


def test_ticks_that_were_left_out_are_run_first(runs: Runs) -> None:
    show = ("--", "sh", "-c", 'echo "$COORD_TICK"')
    assert once(runs, "--tick", TWO, "--every", "1h", *show) == (0, f"{TWO}:00Z\n", "")
    status, out, err = once(runs, "--tick", "2026-11-30T05:00", "--every", "1h", *show)
    assert (status, err) == (0, "")
    assert out.split() == [f"2026-11-30T0{hour}:00:00Z" for hour in (3, 4, 5)]
    fails = ("--", "sh", "-c", 'echo "$COORD_TICK"; exit 3')
    answer = once(runs, "--tick", "2026-11-30T08:00", "--every", "1h", *fails)
    assert answer == (3, "2026-11-30T06:00:00Z\n", "")
    answer = once(runs, "--tick", "2026-11-30T08:00", *show)
    assert answer == (0, "2026-11-30T08:00:00Z\n", "")


def test_the_nearest_tick_is_the_default(runs: Runs) -> None:
    command = ("--every", "365d", "--", "sh", "-c", 'echo "$COORD_TICK"')
    status, out, _ = once(runs, *command)
    assert (status, out.strip()) == (
        0,
        coord.tick(every=365 * 86400).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    assert once(runs, *command)[1] == ""


def test_a_killed_call_is_repeated_by_another(runs: Runs, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    words = (
        "-m",
        "coord",
        "once",
        "report",
        "--tick",
        "1",
        "--ttl",
        "1.5",
        "--url",
        runs.url,
        "--",
    )
    process = runs.start.fork(*words, "sh", "-c", f"touch {ready}; sleep 60")
    eventually(ready.exists)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    status, out, _ = once(runs, "--tick", "1", "--ttl", "1.5", "--", "echo", "again")
    assert (status, out) == (0, "again\n")


def test_another_tick_is_waited_for(runs: Runs, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    words = ("-m", "coord", "once", "report", "--tick", "1", "--url", runs.url, "--")
    process = runs.start(*words, "sh", "-c", f"touch {ready}; sleep 60")
    eventually(ready.exists)
    status, _, err = once(runs, "--tick", "2", "--timeout", "0.3", "--", "true")
    assert status == 76
    assert "within 0.3 s" in err
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    assert once(runs, "--tick", "2", "--", "true")[0] == 0


def test_a_store_that_is_not_there(runs: Runs) -> None:
    url = "rethinkdb://me:geheim@127.0.0.1:1/db"
    status, out, err = runs.answer("once", "r", "--tick", "1", "--url", url, "--", "echo", "ran")
    assert (status, out) == (69, "")
    assert "coord doctor" in err
    assert "Traceback" not in err
    assert "geheim" not in err


def test_what_is_invalid(runs: Runs) -> None:
    def mistaken(*words: str) -> Answer:
        return run_here("once", "report", "--url", runs.url, *words)

    for words, message in (
        ((), "name the tick"),
        (("--tick", "tomorrow"), "invalid --tick 'tomorrow': must be a whole number, or a time"),
        (("--tick", "5", "--every", "1h"), "invalid --tick '5': must be a time with --every"),
        (("--tick", "5", "--within", "1h"), "invalid --within '1h'"),
        (("--every", "hourly"), "invalid --every 'hourly': must be a duration"),
        (("--every", "0"), "invalid --every '0': must be greater than 0"),
        (("--tick", "5", "--ttl", "0"), "invalid --ttl 0"),
    ):
        status, out, err = mistaken(*words, "--", "echo", "ran")
        assert (status, out) == (2, ""), err
        assert message in err
    assert mistaken("--tick", "5", "--", "no-such-command")[0] == 127
    late = ("--tick", "2020-01-01T00:00", "--within", "1h", "--", "echo", "ran")
    status, out, err = once(runs, *late)
    assert (status, out) == (65, "")
    assert "s late, more than within=3600 allows" in err


def test_a_tick_whose_processes_cannot_be_ended_is_not_called_done(runs: Runs) -> None:
    worker = " ".join([*WORKER, str(runs.journal.path), "--immune"])
    process = runs.start(
        "-c",
        "import sys; from tests.support.signals import make_immune; make_immune('--immune');"
        "from coord.cli import main; main(sys.argv[1:])",
        *("once", "report", "--tick", "7", "--url", runs.url),
        *("--", "sh", "-c", f"setsid {worker} & sleep 0.5; exit 0"),
    )
    runs.journal.wait_for(1)
    assert process.wait(30) == 69
    assert process.stderr is not None
    lines = filter(without_status, iter(process.stderr.readline, ""))
    assert "cannot end process" in next(lines)
    assert next(lines) == "coord once: tick 7 of 'report' is not recorded\n"
    with coord.connect(runs.url) as c:
        assert c.once_done("report", 7) is None


def test_a_signal_keeps_the_next_tick_from_being_run(runs: Runs) -> None:
    record(runs, TWO)
    gently = "trap 'exit 0' TERM; echo $COORD_TICK; while :; do sleep 0.1; done"
    words = ("--tick", "2026-11-30T05:00", "--every", "1h", "--", "sh", "-c", gently)
    process = runs.start.fork("-m", "coord", "once", "report", "--url", runs.url, *words)
    assert process.stdout is not None
    assert process.stdout.readline() == "2026-11-30T03:00:00Z\n"
    process.send_signal(signal.SIGTERM)
    assert (process.wait(30), process.stdout.read()) == (128 + signal.SIGTERM, "")
    with coord.connect(runs.url) as c:
        assert c.once_done("report", "2026-11-30T03:00") is not None
        assert c.once_done("report", "2026-11-30T04:00") is None


def test_a_signal_between_two_ticks_is_not_lost(runs: Runs) -> None:
    record(runs, TWO)
    process = runs.start(
        "-c",
        "import os, signal, sys; from coord.cli import main; from coord.cli.run.runner import Runner\n"
        "run = Runner.run\n"
        "def run_and_signal(self):\n"
        "    status = run(self)\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return status\n"
        "Runner.run = run_and_signal\n"
        "main(sys.argv[1:])",
        *("once", "report", "--url", runs.url, "--tick", "2026-11-30T05:00", "--every", "1h"),
        *("--", "sh", "-c", "echo $COORD_TICK"),
    )
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, without_status(err)) == (143, "2026-11-30T03:00:00Z\n", "")


def test_the_options_are_those_of_the_call_for_each_tick(runs: Runs) -> None:
    record(runs, TWO)
    words = ("--tick", "2026-11-30T05:00", "--every=60m", "--no-url", "--no-retry", "--ttl", "7.5")
    show = 'echo "$COORD_TICK $COORD_URL $*"'
    _, out, _ = once(runs, *words, "--", "sh", "-c", show, "sh", "--tick", "2")
    assert out == "".join(f"2026-11-30T0{hour}:00:00Z  --tick 2\n" for hour in (3, 4, 5))


def test_the_next_tick_needs_neither_the_working_directory_nor_a_plain_name(
    runs: Runs, tmp_path: Path
) -> None:
    """The directory has modules of the same names, and the job is named as an option."""
    for name in ("coord", "logging"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not this module')\n")
    for hour, run in ((2, [2]), (4, [3, 4])):
        words = ("--url", runs.url, "--tick", f"2026-11-30T0{hour}:00", "--every", "1h")
        shown = subprocess.run(
            [
                *(sys.executable, "-c", MAIN_ELSEWHERE),
                *(str(tmp_path), "once", *words, "--", "-job", "sh", "-c", "echo $COORD_TICK"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert shown.stdout.split() == [f"2026-11-30T0{tick}:00:00Z" for tick in run], shown.stderr


def test_a_password_in_a_pipe_is_read_once_for_all_ticks(runs: Runs) -> None:
    read, write = os.pipe()
    os.write(write, b"ge heim\n")
    os.close(write)
    words = ("--url", "redis://127.0.0.1:1/0", "--password-file", f"/dev/fd/{read}")
    process = runs.start(
        "-c",
        "import os, sys; from coord.cli import main; from coord.cli.run.runner import Runner\n"
        "Runner.run, Runner.is_last = (lambda self: 0), False\n"
        "os.execv = lambda program, words: print(*words[4:], os.environ['COORD_URL'], flush=True)\n"
        "main(sys.argv[1:])",
        *("once", "report", "--tick", "5", *words, "--", "true"),
        pass_fds=[read],
    )
    out, err = process.communicate(timeout=30)
    os.close(read)
    words_of_next = "once --tick 5 --offset 0 --ttl 30.0 -- report true"
    assert out == f"{words_of_next} redis://:ge%20heim@127.0.0.1:1/0\n", err
