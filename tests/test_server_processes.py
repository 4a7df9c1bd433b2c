"""The servers of tests end with the tests, also with tests that are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

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


def test_a_server_ends_with_the_process_that_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "output")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=python_environment(),
    ) as owner:
        assert owner.stdout is not None
        running, ended = map(int, owner.stdout.readline().split())
        assert lives(running)
        assert not lives(ended)
        owner.send_signal(signal.SIGKILL)
    eventually(lambda: not lives(running), 30)
