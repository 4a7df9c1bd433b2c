"""Fixtures of the command line's tests: a journal, a store in its own directory, a way to start
programs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coord.cli import COMMANDS
from tests.support.cli_terminal import Terminal
from tests.support.forkserver import ForkServer
from tests.support.processes import MARK, Journal, Runs, Start, end_marked, python_environment


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


@pytest.fixture(scope="module")
def command_forks() -> Iterator[ForkServer]:
    """Processes that have imported all commands, and the driver that takes longest."""
    commands = {module for module, _ in COMMANDS.values()}
    with ForkServer("coord.api.sync_coordinator", *commands, "rethinkdb") as server:
        yield server


def show(command: object, status: int, stderr: int) -> None:
    """Print what a process that has ended wrote and the test has not read."""
    os.set_blocking(stderr, False)
    with contextlib.suppress(BlockingIOError):  # some other process has it open, and wrote nothing
        print(f"{command} ended with {status}: {os.read(stderr, 65536).decode(errors='replace')}")


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a Python program of the tests or of coord; none outlives the test. pytest shows what
    they printed where a test fails."""
    running: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            **python_environment(),
            "PYTHONDONTWRITEBYTECODE": "",
            **MARK,
            **options.pop("env", {}),
        }
        options = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "stdin": subprocess.PIPE,
        } | options
        process = subprocess.Popen(
            [sys.executable, *arguments], env=environment, text=True, **options
        )
        running.append(process)
        return process

    yield begin
    end_marked()
    for process in running:
        status = process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                if pipe is process.stderr and not pipe.closed:
                    show(process.args, status, pipe.fileno())
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path / 'leases.db'}"


@pytest.fixture
def runs(start: Start, url: str, journal: Journal) -> Runs:
    return Runs(start, url, journal)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    """What a test puts here is ended after it."""
    made: list[Terminal] = []
    yield made
    end_marked()
    for item in made:
        with contextlib.suppress(ChildProcessError):  # The test has waited for it.
            os.waitpid(item.pid, 0)
        os.close(item.fd)
