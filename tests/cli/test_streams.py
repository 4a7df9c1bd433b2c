"""Standard streams that are closed, full or not read: no command prints a traceback, and none has
another status."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.commands import run_here
from tests.support.levels import some
from tests.support.processes import Runs

WORDS = (
    ["leader", "job"],
    ["leader", "nobody"],
    ["status", "--all"],
    ["history", "job", "--json"],
    ["doctor"],
    ["completion", "bash"],
    ["--help"],
    ["no-such-command"],
)
SILENT = (["leader", "nobody"], ["no-such-command"])
"""These print nothing on stdout."""
SHORT = (["leader", "job"], ["--help"])
"""These run by default: a command that asks the store, and click's own output."""
SCRIPTS = (
    "exec >&-",
    "exec 2>&-",
    "exec >&- 2>&- <&-",
    *(("exec >/dev/full", "exec >/dev/full 2>&1") if os.path.exists("/dev/full") else ()),
)


def shell(runs: Runs, script: str, *words: str) -> subprocess.Popen[str]:
    """Start coord in a shell that has run `script`."""
    begin = "import os, sys; os.execvp('sh', ['sh', '-c', *sys.argv[1:]])"
    coord = (sys.executable, "-m", "coord", *words)
    line = f'{script}; exec "$@"'
    return runs.start("-c", begin, line, "sh", *coord, env={"COORD_URL": runs.url})


@pytest.mark.parametrize("words", some(WORDS, lambda words: words in SHORT, name=" ".join))
def test_closed_and_full_streams(runs: Runs, words: list[str]) -> None:
    runs.worker()
    runs.journal.wait_for(1)
    usual, _, _ = run_here(*words, env={"COORD_URL": runs.url})
    processes = [shell(runs, script, *words) for script in SCRIPTS]
    for script, process in zip(SCRIPTS, processes, strict=True):
        _, err = process.communicate(timeout=60)
        assert process.returncode == usual, script
        assert "Traceback" not in err, script
        assert "Exception ignored" not in err, script
        if script == "exec >/dev/full" and words not in SILENT:
            assert err.endswith("coord: cannot write to stdout: No space left on device\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["watch"], ["watch", "job"]], ids=" ".join)
def test_watching_ends_when_its_output_is_lost(runs: Runs, words: list[str]) -> None:
    runs.worker()
    runs.journal.wait_for(1)
    process = shell(runs, "exec >/dev/full", *words)
    assert process.communicate(timeout=60) == (
        "",
        "coord: cannot write to stdout: No space left on device\n",
    )
    assert process.returncode == 1


@pytest.mark.parametrize("words", [["leader", "job"], ["leader", "nobody"]], ids=" ".join)
def test_a_reader_that_has_ended(runs: Runs, words: list[str]) -> None:
    assert runs.run("true").wait(60) == 0
    process = shell(runs, "sleep 0.3", *words)
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    assert process.wait(60) == 1  # Nobody leads either role.


def test_a_full_pipe_that_does_not_block(runs: Runs) -> None:
    """As below programs that make their pipes non-blocking: coord waits until there is space."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    filled = 0
    try:
        while True:
            filled += os.write(writer, b"x" * 4096)
    except BlockingIOError:
        pass
    process = runs.start("-m", "coord", "--help", stdout=writer)
    os.close(writer)
    text = b""
    while more := os.read(reader, 65536):
        text += more
    os.close(reader)
    assert process.wait(60) == 0
    assert b"Usage: coord" in text[filled:]
    assert b"completion" in text[filled:]
