"""The fixtures of these tests: a test that fails leaves no process behind, and no command forks or
ends the process of the tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import run_here
from tests.support.processes import ROOT, lives
from tests.support.waits import eventually

FAILS = '''
import json, os, signal
from pathlib import Path
from tests.cli.conftest import command_forks, journal, runs, start, terminals, url
from tests.support.cli_terminal import Terminal
from tests.support.processes import Runs, guardian_of

HERE = Path(__file__).parent


def test_fails(runs, terminals):
    """Every kind of process: a stopped guardian, a daemon, a killed runner, a terminal."""
    runner = runs.worker(flags=["--ignore-term", "--grandchild", "--daemon"])
    daemon = runs.journal.wait_for(1, "grandchild").pid
    worker = runs.journal.wait_for(1).pid
    guardian = guardian_of(runner.pid)
    os.kill(guardian, signal.SIGSTOP)
    runner.kill()
    runner.wait()
    terminal = Terminal("/bin/sh", "-c", "sleep 60 & sleep 60")
    terminals.append(terminal)
    pids = {"daemon": daemon, "worker": worker, "guardian": guardian, "terminal": terminal.pid}
    (HERE / "pids").write_text(json.dumps(pids))
    raise AssertionError("as intended")
'''


def test_a_failing_test_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(FAILS)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", "/dev/null"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "as intended" in done.stdout, done.stdout
    assert "1 failed" in done.stdout
    pids = json.loads((tmp_path / "pids").read_text())
    eventually(lambda: not [name for name, pid in pids.items() if lives(pid)], pids)


@pytest.mark.parametrize("words", [("run", "job"), ("once", "job", "--tick", "1")])
def test_a_command_that_forks_needs_a_process_of_its_own(words: tuple[str, ...], url: str) -> None:
    with pytest.raises(AssertionError, match="this command needs a process of its own"):
        run_here(*words, "--url", url, "--", "true")
