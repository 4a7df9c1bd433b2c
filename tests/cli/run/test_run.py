"""`coord run` with one candidate: what COMMAND is given, what comes back, and how it is asked."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from unittest import mock

import pytest

from coord import Coordinator, Term
from coord.cli import exit_codes
from coord.cli.run.messages import messages
from coord.cli.run.runner import ChosenTerm, RunOptions, Standby
from coord.cli.run.tick import CommandTick, TickOptions
from tests.support.commands import run_here
from tests.support.levels import some
from tests.support.processes import (
    MARK,
    ROOT,
    WORKER,
    Journal,
    Runs,
    Start,
    boottime,
    children,
    guardian_of,
    lives,
    without_status,
)
from tests.support.stalls import StallingStore
from tests.support.store_urls import shared_url
from tests.support.waits import eventually

url = shared_url


def test_the_command_finds_role_token_and_url(runs: Runs) -> None:
    for token in ("1", "2"):
        process = runs.run("--", "sh", "-c", 'echo "$COORD_ROLE $COORD_TOKEN $COORD_URL"')
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (0, f"job {token} {runs.url}\n")
        assert without_status(err) == ""


def test_the_url_comes_from_the_environment(runs: Runs) -> None:
    process = runs.start(
        "-m", "coord", "run", "job", "sh", "-c", "echo $COORD_URL", env={"COORD_URL": runs.url}
    )
    assert process.communicate(timeout=20)[0] == f"{runs.url}\n"


@pytest.mark.parametrize(
    "expected",
    some(
        [
            ("exit 0", 0),
            ("exit 1", 1),
            ("exit 255", 255),
            ("kill -TERM $$", 143),
            ("kill -9 $$", 137),
        ],
        lambda expected: expected[1] in (255, 137),
        name=lambda expected: expected[0],
    ),
)
def test_the_exit_status_is_passed_through(runs: Runs, expected: tuple[str, int]) -> None:
    script, status = expected
    process = runs.run("--", "sh", "-c", script)
    assert process.wait(20) == status
    assert process.stderr is not None
    assert without_status(process.stderr.read()) == ""


def test_stdin_and_stdout_are_the_commands(runs: Runs) -> None:
    process = runs.run("--", "cat")
    assert process.communicate("through\n", timeout=20)[0] == "through\n"


@pytest.mark.stores("sqlite")
def test_starts_quickly(runs: Runs) -> None:
    """Processor time, from start to end, by that of an interpreter which only imports what cannot
    be spared."""

    def took(process: subprocess.Popen[str]) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert process.wait(20) == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    run = ("-m", "coord", "run", "job", "--url", runs.url, "true")
    runs.start(*run).wait(20)  # the file is there, the bytecode too
    rounds = [
        (took(runs.start(*run)), took(runs.start("-c", "import asyncio, sqlite3, click")))
        for _ in range(5)
    ]
    coord_time, bare = (min(column) for column in zip(*rounds, strict=True))
    # It is about twice as much. structlog and tenacity, imported too, would make it more than three
    # times as much, and the driver of RethinkDB nearly five times.
    assert coord_time < 2.5 * bare, rounds


def test_signals_are_passed_on(runs: Runs) -> None:
    names = ("INT", "TERM", "HUP", "USR1", "USR2", "WINCH")
    traps = "; ".join(f"trap 'echo {name}' {name}" for name in names)
    script = (
        f"{traps}; trap 'exit 9' QUIT; echo ready; while :; do sleep 30 & wait $!; kill $!; done"
    )
    process = runs.run("--", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for name in names:
        process.send_signal(signal.Signals[f"SIG{name}"])
        assert process.stdout.readline() == f"{name}\n"
    process.send_signal(signal.SIGQUIT)
    assert process.wait(20) == 9


def test_a_signal_that_ends_the_command(runs: Runs) -> None:
    process = runs.worker()
    runs.journal.wait_for(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 128 + signal.SIGINT


def test_continuing_reaches_a_stopped_command(runs: Runs) -> None:
    process = runs.worker("--ttl", "5")
    child = runs.journal.wait_for(1).pid
    os.kill(child, signal.SIGSTOP)
    time.sleep(0.1)
    process.send_signal(signal.SIGCONT)
    before = runs.journal.wait_for(1).last
    eventually(lambda: runs.journal.wait_for(1).last > before)


def under_nohup(runs: Runs) -> subprocess.Popen[str]:
    """`coord run job` with a worker, started with SIGHUP ignored."""
    return runs.start(
        "-c",
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])",
        *("-m", "coord", "run", "job", "--url", runs.url, "--"),
        *(*WORKER, str(runs.journal.path)),
    )


def test_nohup_is_respected(runs: Runs) -> None:
    process = under_nohup(runs)
    child = runs.journal.wait_for(1).pid
    process.send_signal(signal.SIGHUP)
    os.kill(child, signal.SIGHUP)
    before = boottime()
    eventually(lambda: runs.journal.wait_for(1).last > before + 0.05)
    process.terminate()
    assert process.wait(20) == 143


def test_nohup_is_respected_while_it_waits(runs: Runs) -> None:
    leader = runs.worker()
    runs.journal.wait_for(1)
    process = under_nohup(runs)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("coord run: waiting for 'job'")
    process.send_signal(signal.SIGHUP)
    leader.terminate()
    runs.journal.wait_for(2)
    process.terminate()
    assert process.wait(20) == 143


def test_what_the_command_leaves_behind_is_ended(runs: Runs) -> None:
    script = f"{' '.join([*WORKER, str(runs.journal.path)])} & sleep 0.2; exit 4"
    process = runs.run("--", "sh", "-c", script)
    assert process.wait(20) == 4
    (stretch,) = runs.journal.stretches()
    assert not lives(stretch.pid)


def test_no_process_is_left(runs: Runs) -> None:
    process = runs.worker(flags=["--for", "0.2"])
    guardian = guardian_of(process.pid)
    assert process.wait(20) == 0
    eventually(lambda: not lives(guardian))


def test_others_see_host_pid_and_info(runs: Runs) -> None:
    process = runs.worker("--info", "zone=b", "--info", '{"shard": 3, "host": "elsewhere"}')
    runs.journal.wait_for(1)
    status, out, _ = runs.answer("leader", "job", "--url", runs.url, "--json")
    assert status == 0
    assert json.loads(out)["info"] == {
        "host": "elsewhere",
        "pid": process.pid,
        "zone": "b",
        "shard": 3,
    }


def test_the_guardian_killed(runs: Runs) -> None:
    process = runs.worker("--ttl", "30", flags=["--ignore-term", "--grandchild"])
    grandchild = runs.journal.wait_for(1, "grandchild").pid
    child = runs.journal.wait_for(1).pid
    (guardian,) = children(process.pid)
    os.kill(guardian, signal.SIGKILL)
    assert process.wait(20) == 70
    assert not lives(child)
    assert not lives(grandchild)
    assert runs.answer("leader", "job", "--url", runs.url)[0] == 1  # given up, not left to run out


def test_the_guardian_killed_while_the_runner_waits(runs: Runs) -> None:
    runs.worker()
    runs.journal.wait_for(1)
    process = runs.worker()
    os.kill(guardian_of(process.pid), signal.SIGKILL)
    assert process.wait(20) == 70


def test_options_of_the_command_are_its_own(runs: Runs) -> None:
    process = runs.run("echo", "--ttl", "--", "-x")
    assert process.communicate(timeout=20)[0] == "--ttl -- -x\n"
    process = runs.start.fork(
        "-m", "coord", "run", "--url", runs.url, "--ttl=9", "job", "--", "printf", "%s", "--url"
    )
    assert process.communicate(timeout=20)[0] == "--url"


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["run", "", "--", "true"], 2, "coord: invalid role '': "),
        (["run", "x" * 121, "--", "true"], 2, "coord: invalid role "),
        (["run", "job", "--ttl", "0", "--", "true"], 2, "coord: invalid --ttl 0: "),
        (["run", "job", "--ttl", "nan", "--", "true"], 2, "coord: invalid --ttl nan: "),
        (
            ["run", "job", "--ttl", "soon", "--", "true"],
            2,
            "invalid --ttl 'soon': must be a number",
        ),
        (
            ["run", "job", "--grace", "8", "--ttl", "10", "--", "true"],
            2,
            "must be between 0 and 4 seconds for a ttl of 10 seconds",
        ),
        (["run", "job", "--grace", "-1", "--", "true"], 2, "coord: invalid --grace -1: "),
        (["run", "job", "--priority", "1001", "--", "true"], 2, "an int from -1000 to 1000"),
        (
            ["run", "job", "--min-tenure", "-1", "--", "true"],
            2,
            "coord: invalid --min-tenure -1: ",
        ),
        (["run", "job", "--timeout", "-1", "--", "true"], 2, "coord: invalid --timeout -1: "),
        (["run", "job", "--timeout", "1", "--no-wait", "--", "true"], 2, "cannot be used together"),
        (
            ["run", "job", "--info", "zone", "--", "true"],
            2,
            "invalid --info 'zone': must be KEY=VALUE or a JSON object",
        ),
        (["run", "job", "--info", "{", "--", "true"], 2, "invalid --info '{'"),
        (["run", "job"], 2, "Missing argument 'COMMAND...'"),
        (
            ["run", "job", "--url", "memory://", "--", "true"],
            2,
            "coord: invalid --url 'memory://': ",
        ),
        (["run", "job", "--url", "memory://x", "--", "true"], 2, "that several processes can use"),
        (["run", "job", "--at-least", "-1", "--", "true"], 2, "coord: invalid --at-least -1: "),
        (
            ["run", "job", "--url", "sqlite:x.db", "--password-file", "x", "--", "true"],
            2,
            "coord: invalid --password-file 'x': ",
        ),
        (
            ["run", "job", "--url", "rethinkdb://h/d", "--password-file", "/no/x", "--", "true"],
            2,
            "password_file must be a text file that coord may read",
        ),
        (
            ["run", "job", "--", "no-such-command"],
            127,
            "coord run: cannot execute COMMAND 'no-such-command'",
        ),
        (
            ["run", "job", "--", "/etc/passwd"],
            126,
            "coord run: cannot execute COMMAND '/etc/passwd'",
        ),
        (
            ["run", "job", "--url", "mysql://me:secret@h/db", "--", "true"],
            2,
            "coord: invalid --url 'mysql:",
        ),
    ],
)
def test_mistakes_are_reported_in_a_line(words: list[str], status: int, says: str) -> None:
    exit_status, out, err = run_here(*words)
    assert (exit_status, out) == (status, "")
    assert says in err
    assert "Traceback" not in err
    assert "secret" not in err
    assert len(err.splitlines()) == 1 or err.startswith("Usage:")


@pytest.mark.stores("sqlite")
def test_a_path_that_cannot_be_written(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for words in (["--no-wait"], ["--timeout", "5"], []):
        url = f"sqlite://{tmp_path}/file/leases.db"
        status, out, err = runs.answer("run", "job", "--url", url, *words, "--", "echo", "ran")
        assert (status, out) == (78, "")
        assert len(err.splitlines()) == 1
        assert "leases.db" in err


def test_an_interrupted_wait(runs: Runs) -> None:
    runs.worker()
    runs.journal.wait_for(1)
    process = runs.worker()
    assert process.stderr is not None
    assert process.stderr.readline().startswith("coord run: waiting for 'job': the leader is pid ")
    for number in (signal.SIGUSR1, signal.SIGWINCH, signal.SIGTERM):
        process.send_signal(number)
        time.sleep(0.05)
    assert process.wait(20) == 128 + signal.SIGTERM
    assert len(runs.journal.stretches()) == 1


def test_no_wait_and_timeout_when_another_leads(runs: Runs) -> None:
    leader = runs.worker()
    runs.journal.wait_for(1)
    status, _, err = runs.answer("run", "job", "--url", runs.url, "--no-wait", "--", "true")
    held = re.fullmatch(
        r"coord run: not started, 'job' is held by pid (\d+) on (\S+), token 1, for (\d+\.\d) s more "
        r"unless the lease is renewed\n",
        err,
    )
    assert status == 75
    assert held is not None, err
    assert (int(held[1]), held[2]) == (leader.pid, os.uname().nodename)
    assert 0 < float(held[3]) <= 30
    begun = time.monotonic()
    status, _, err = runs.answer("run", "job", "--url", runs.url, "--timeout", "2.5", "--", "true")
    assert status == 76
    assert 2.5 <= time.monotonic() - begun < 15
    standing_by, gave_up = err.splitlines()
    assert standing_by.startswith("coord run: waiting for 'job': the leader is pid ")
    assert gave_up == "coord run: did not become the leader of 'job' within 2.5 s"


def test_no_wait_and_timeout_when_the_store_does_not_answer(
    start: Start, url: str, journal: Journal
) -> None:
    with contextlib.closing(StallingStore(url)) as store:
        runs = Runs(start, store.url, journal)
        assert runs.run("true").wait(20) == 0
        unblock = store.block()
        for words in (["--no-wait"], ["--timeout", "4"]):
            status, out, err = runs.answer(
                "run", "job", "--url", runs.url, "--ttl", "3", *words, "--", "echo", "ran"
            )
            assert (status, out) == (69, ""), err
            assert "Traceback" not in err
        unblock()


def test_the_leader_of_a_killed_group_is_not_left_alone(runs: Runs) -> None:
    """A supervisor that kills the runner's whole process group still leaves the guardian to end
    COMMAND's."""
    process = runs.worker(
        "--ttl", "3", flags=["--ignore-term", "--grandchild"], start_new_session=True
    )
    grandchild = runs.journal.wait_for(1, "grandchild").pid
    child = runs.journal.wait_for(1).pid
    os.killpg(process.pid, signal.SIGKILL)
    eventually(lambda: not lives(child) and not lives(grandchild), within=3)


def test_python_modules_that_commands_do_not_need(tmp_path: Path) -> None:
    """The help, --version and errors of usage import no election; a command imports what it does.

    All in one process, from the command that needs the fewest modules to the one that needs most.
    """
    code = textwrap.dedent("""
        import sys
        from coord.cli import main
        def modules(*words):
            try:
                main(words)
            except SystemExit as end:
                status = end.code
            print("MODULES", status, *sys.modules)
        modules("--help")
        modules("--version")
        modules("statu")
        modules("init")
        modules("leader", "job")
        modules("status")
        import coord.cli.run.command, coord.cli.run.runner
        modules("candidates", "job")
    """)
    out = subprocess.run(
        [*WORKER[:1], "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "COORD_URL": f"sqlite://{tmp_path}/coord.db"},
    ).stdout
    lines = [line.split() for line in out.splitlines() if line.startswith("MODULES")]
    assert [line[1] for line in lines] == ["0", "0", "2", "0", "1", "0", "0"], out
    texts, commands = lines[:3], lines[3:]
    election = {"asyncio", "logging", "dataclasses", "coord.core", "importlib.metadata"}
    never = {"rich", "rethinkdb", "structlog", "tenacity", "urllib.parse", "importlib.metadata"}
    for words in texts:
        assert not {*election, *never} & set(words), words
    for words in commands:
        assert not never & set(words), words


def test_inherited_descriptors_reach_the_command(runs: Runs) -> None:
    """The shell passes the output of a process substitution as an open descriptor."""
    words = f"-m coord run job --url '{runs.url}' -- cat <(echo text)"
    code = "import os, sys; os.execvp('bash', ['bash', '-c', sys.argv[1]])"
    process = runs.start("-c", code, f"'{sys.executable}' {words}")
    assert process.communicate(timeout=20)[0] == "text\n"
    assert process.returncode == 0


@pytest.mark.stores("sqlite")
def test_a_relative_url_becomes_absolute(runs: Runs, tmp_path: Path) -> None:
    words = ("-m", "coord", "run", "job", "--url", "sqlite:coord.db", "--")
    process = runs.start.fork(*words, "sh", "-c", "cd /; echo $COORD_URL", cwd=tmp_path)
    assert process.communicate(timeout=20)[0] == f"sqlite://{tmp_path}/coord.db\n"


def test_no_url_keeps_the_store_from_the_command(runs: Runs) -> None:
    passwords = {
        f"COORD_{store.upper()}_PASSWORD": "secret"
        for store in ("rethinkdb", "redis", "etcd")
        if not runs.url.startswith(store)  # these servers have no password
    }
    secrets = {"COORD_URL": runs.url, **passwords}
    words = ("-m", "coord", "run", "job")
    for options, names in (
        ((), {"COORD_ROLE", "COORD_TOKEN", *secrets}),
        (("--no-url",), {"COORD_ROLE", "COORD_TOKEN"}),
    ):
        process = runs.start.fork(*words, *options, "--", "env", env=secrets)
        out, _ = process.communicate(timeout=20)
        variables = {
            line.partition("=")[0] for line in out.splitlines() if line.startswith("COORD_")
        }
        # What the tests themselves are given is not of `coord run`.
        assert (
            variables - MARK.keys() - {name for name in os.environ if name not in secrets} == names
        )


def test_at_least_keeps_the_role_after_a_short_command(runs: Runs) -> None:
    """Several machines begin a short job at about the same time."""
    words = ("--ttl", "5", "--no-wait", "--at-least", "60")
    assert runs.run(*words, "--", "true").wait(20) == 0
    late = runs.run(*words, "--", "true")
    assert late.wait(20) == 75
    assert late.stderr is not None
    output = late.stderr.read()
    seconds = re.search(r"token \d+, for (\d+\.\d) s", output)
    assert seconds is not None, output
    assert 50 < float(seconds[1]) <= 60


def test_at_least_ends(runs: Runs) -> None:
    begun = time.monotonic()
    assert runs.run("--ttl", "30", "--at-least", "3", "--", "true").wait(20) == 0
    assert runs.run("--ttl", "30", "--", "true").wait(30) == 0
    assert 3 <= time.monotonic() - begun < 20


def test_at_least_counts_from_the_start_of_the_command(runs: Runs) -> None:
    assert runs.run("--at-least", "1", "--", "sleep", "1.2").wait(20) == 0
    assert runs.run("--no-wait", "--", "true").wait(20) == 0


def test_an_operator_ends_at_least(runs: Runs) -> None:
    """A leader that was asked to step down releases the role at once."""
    first = runs.worker("--at-least", "300")
    runs.journal.wait_for(1)
    assert runs.answer("step-down", "job", "--url", runs.url, "--yes")[0] == 0
    assert first.wait(20) == 77
    assert runs.run("--no-wait", "--", "true").wait(20) == 0


@pytest.mark.parametrize(
    "script",
    some(
        ("exec >&-", "exec 2>&-", "exec >&- 2>&-", "exec <&- >&- 2>&-"),
        lambda script: script in ("exec >&-", "exec <&- >&- 2>&-"),
    ),
)
def test_closed_streams_do_not_change_the_status(runs: Runs, script: str) -> None:
    assert _in_shell(runs, script, "--", "sh", "-c", "echo out; echo err >&2; exit 7") == 7


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("words", some(([], ["--verbose"]), bool))
def test_full_streams_do_not_change_the_status(runs: Runs, words: list[str]) -> None:
    assert _in_shell(runs, "exec >/dev/full 2>&1", *words, "--", "sh", "-c", "exit 7") == 7


def test_a_broken_pipe_does_not_change_the_status(runs: Runs) -> None:
    """The reader of stderr has ended before coord run writes."""
    first = runs.worker()
    runs.journal.wait_for(1)
    waiting = runs.run("-v", "--timeout", "1", "--", "true")
    assert waiting.stderr is not None
    waiting.stderr.close()
    assert waiting.wait(20) == 76
    assert first.poll() is None


def test_a_stderr_that_nobody_reads_does_not_delay_renewals(runs: Runs) -> None:
    """The pipe is full, and every write to it would wait."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    process = runs.worker("-v", "--ttl", "2", flags=["--for", "4"], stderr=writer)
    os.close(writer)
    assert process.wait(30) == 0
    os.close(reader)


def _in_shell(runs: Runs, script: str, *words: str) -> int:
    """The exit status of `coord run` after a shell has run `script`."""
    line = f'{script}; exec "$@"'
    begin = "import os, sys; os.execvp('sh', ['sh', '-c', *sys.argv[1:]])"
    coord = (sys.executable, "-m", "coord", "run", "job", "--url", runs.url)
    return runs.start("-c", begin, line, "sh", *coord, *words).wait(20)


def job_options(*, wait: bool, timeout: float | None = None) -> RunOptions:
    return RunOptions(
        role="job",
        ttl=30.0,
        margin=1.0,
        grace=1.0,
        wait=wait,
        timeout=timeout,
        info={},
        priority=0,
        min_tenure=0.0,
        at_least=0.0,
        slots=None,
        command_url=None,
    )


@pytest.mark.stores("sqlite")
def test_its_own_lease_is_no_reason_to_wait(url: str) -> None:
    """The claim may be applied just before `coord run` says that it waits."""
    job = job_options(wait=False)
    with Coordinator(url) as c:
        lead = c.leadership("job", ttl=30)
        answered = threading.Event()
        standby = Standby(job, c, lead, answered.set)
        assert answered.wait(30)
        assert standby.term is not None
        assert standby._leader() is None
        other = Standby(job, c, c.leadership("job", ttl=30), lambda: None)
        assert str(other._leader()).startswith("the leader is ")


@pytest.mark.stores("sqlite")
def test_a_term_that_was_lost_before_it_was_seen_is_followed_by_the_next(url: str) -> None:
    """As in a process that was stopped for a ttl at that moment."""
    with Coordinator(url) as c:
        chosen, answered, released = ChosenTerm(), threading.Event(), threading.Event()
        lead = c.leadership("job", ttl=30, on_lost=chosen.until_ended)
        lost: list[Term] = []

        def take(term: Term) -> bool:
            if not lost:
                lost.append(term)
                lead.step_down(cooldown=0)
            return chosen.take(term)

        def stop() -> None:
            lead.stop()
            released.set()

        standby = Standby(job_options(wait=True), c, lead, answered.set, take=take)
        try:
            assert answered.wait(30)
            assert standby.term is not None
            assert (lost[0].token, standby.term.token) == (1, 2)
            stopping = threading.Thread(target=stop)
            stopping.start()
            assert standby.term.lost.wait(30)
            assert not released.wait(0.2), "it was released while COMMAND ran"
            leader = c.leader("job")
            assert leader is not None
            assert leader.token == 2
        finally:
            chosen.ended.set()
        stopping.join(30)
        assert c.leader("job") is None


@pytest.mark.stores("sqlite")
def test_a_timeout_counts_from_the_first_claim_also_after_a_lost_term(
    url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with Coordinator(url) as c, Coordinator(url) as other:
        answered = threading.Event()
        lead, successor = c.leadership("job", ttl=30), other.leadership("job", ttl=30)

        def take(term: Term) -> bool:
            lead.step_down()
            assert successor.acquire(timeout=20)
            return term.held

        options = job_options(wait=True, timeout=2.0)
        standby = Standby(options, c, lead, answered.set, take=take)
        assert answered.wait(30)
        assert standby.why_not() == exit_codes.TIMED_OUT
        messages.flush()
        assert "did not become the leader of 'job' within 2 s" in capfd.readouterr().err
        successor.stop()


@pytest.mark.stores("sqlite")
def test_a_tick_is_run_under_the_next_term_if_another_process_had_the_role_meanwhile(
    url: str,
) -> None:
    """As `coord once` that was stopped for a ttl before it had looked again what was run."""
    with Coordinator(url) as c, Coordinator(url) as other:
        answered = threading.Event()
        lead, successor = c.leadership("job", ttl=30), other.leadership("job", ttl=30)
        tick = CommandTick(TickOptions(5, None, True, None), "job", c, lead)
        claimed = tick.claimed

        def late(term: Term) -> bool:
            if term.token == 1:
                successor.start()
                assert eventually(lambda: c.candidates("job"))
                c.request_transfer("job", str(successor.candidate), hold=20)
                assert successor.wait(20)
                successor.stop()
            return claimed(term)

        with mock.patch.object(tick, "claimed", late):
            standby = Standby(job_options(wait=True), c, lead, answered.set, tick=tick)
            assert answered.wait(30)
        assert standby.term is not None
        assert standby.term.token == 3
