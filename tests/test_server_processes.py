"""The servers of tests, and the processes that tests fork, end with the tests, also with tests that
are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.forkserver import ForkServer
from tests.support.processes import ROOT, lives, python_environment
from tests.support.waits import eventually

OWNER = """
import pathlib, sys
from tests.support.server_process import ServerProcess

first, second = ServerProcess(), ServerProcess()
first.run(["sleep", "600"], pathlib.Path(sys.argv[1]))
second.run(["sleep", "600"], pathlib.Path(sys.argv[1]))
ended = second.pid
second.stop()
print(first.pid, ended, flush=True)
sys.stdin.read()
"""


def owner_of_processes(
    program: str, *arguments: str, stderr: int | None = None
) -> subprocess.Popen[str]:
    """Start a program that starts others and prints their ids."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        cwd=ROOT,
        env=python_environment(),
    )


def test_a_server_ends_with_the_process_that_was_killed(tmp_path: Path) -> None:
    with owner_of_processes(OWNER, str(tmp_path / "output")) as owner:
        assert owner.stdout is not None
        running, ended = map(int, owner.stdout.readline().split())
        assert lives(running)
        assert not lives(ended)
        owner.send_signal(signal.SIGKILL)
    eventually(lambda: not lives(running))


PROGRAM = """
import os, sys, time
print(sys.argv[1:], os.environ.get("COLOR"), os.getcwd(), sys.stdin.readline().strip(), flush=True)
time.sleep(float(sys.argv[1]))
sys.exit(7)
"""


def test_a_forked_process_is_like_one_that_was_started(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    with ForkServer("json") as python:
        process = python.start(
            "program.py",
            "0",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            environment={"COLOR": "red"},
            cwd=tmp_path,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.poll() is None
        process.stdin.write("a line\n")
        process.stdin.close()
        assert process.stdout.readline() == f"['0'] red {tmp_path.resolve()} a line\n"
        assert process.wait(30) == 7
        assert process.poll() == 7
        process.stdout.close()
        killed = python.start("program.py", "600", cwd=tmp_path)
        with pytest.raises(subprocess.TimeoutExpired):
            killed.wait(0.01)
        killed.kill()
        assert killed.wait(30) == -signal.SIGKILL


FORKS = """
import sys
from tests.support.forkserver import ForkServer

with ForkServer("json") as python:
    print(python.start("-m", "http.server", "0", "--bind", "127.0.0.1", stdout=2).pid, flush=True)
    sys.stdin.read()
"""


def test_forked_processes_end_with_the_process_that_was_killed() -> None:
    with owner_of_processes(FORKS, stderr=subprocess.DEVNULL) as owner:
        assert owner.stdout is not None
        running = int(owner.stdout.readline())
        assert lives(running)
        owner.send_signal(signal.SIGKILL)
    eventually(lambda: not lives(running))
