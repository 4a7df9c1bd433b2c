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


TALKS = """
import os, sys
own = os.getsid(0) == os.getpgrp() == os.getpid()
print(own, list(os.environ), flush=True)
print(sys.stdin.read(), file=sys.stderr)
os.execv("/bin/sh", ["sh", "-c", "echo executed; kill -TERM $$"])
"""


@pytest.mark.parametrize("new_session", [True, False])
def test_a_forked_process_shows_its_environment_and_talks(new_session: bool) -> None:
    """Whoever looks for processes in /proc finds it by its variables."""
    variables = {"COLOR": "red", "LC_ALL": "C.UTF-8"}
    shown = {f"{name}={value}".encode() for name, value in variables.items()}
    with ForkServer("json") as python:
        process = python.start(
            *("-c", TALKS),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            environment=variables,
            new_session=new_session,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == f"{new_session} {list(variables)}\n"
        environ = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert set(environ.split(b"\0")) - {b""} == shown
        assert process.communicate("heard", timeout=30) == ("executed\n", "heard\n")
        assert process.returncode == -signal.SIGTERM
        silent = python.start("-c", "import time; time.sleep(600)", stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            silent.communicate(timeout=0.01)


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
