"""The examples do what they say."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def run(name: str, *args: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *args],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_paused_old_leader_is_refused() -> None:
    output = run("fenced_writes.py")
    assert output[0] == "first leads, token 1"
    assert output[1:3] == ["second leads, token 2", "second has written"]
    assert output[3].startswith(
        "first is refused: the row in report refuses token 1: it has already seen token 2"
    )
    assert output[4] == "the report was written by second"


def test_callbacks_start_and_pause_a_scheduler(tmp_path: Path) -> None:
    output = run("scheduler_callbacks.py", f"sqlite://{tmp_path}/coord.db", "2")
    assert output == [
        "elected, token 1: the ticker runs",
        "tick 0 under token 1",
        "tick 1 under token 1",
        "lost (released): the ticker is paused",
    ]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("scheduler_callbacks.py", ()),
        ("apscheduler_leader.py", ()),
        ("sharded_worker.py", ()),
        ("registry_proxy.py", ("backend",)),
        ("registry_proxy.py", ("proxy",)),
    ],
)
def test_it_ends_quietly_at_ctrl_c(name: str, arguments: tuple[str, ...], tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            str(EXAMPLES / name),
            *arguments,
            f"sqlite://{tmp_path}/c.db",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, err) == (0, "")


def test_the_tests_of_a_job_need_no_plugin_but_that_of_coord() -> None:
    # As its page says, from the root of the project, whose own tests need pytest-timeout and
    # pytest-xdist.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "no:timeout", "-p", "no:xdist", "examples/testing_a_singleton_job.py"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=EXAMPLES.parent, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_each_is_short_and_says_at_its_head_what_it_is() -> None:
    for path in EXAMPLES.glob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 65, path.name
        assert lines[0].startswith('"""'), path.name
        assert any("Run it" in line for line in lines[:15]), path.name
