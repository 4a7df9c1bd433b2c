"""Fixtures of the command line's tests: a journal, a store in its own directory, a way to start
programs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from coord.cli import COMMANDS
from tests.support.cli_terminal import Terminal
from tests.support.forkserver import ForkServer
from tests.support.processes import Journal, Runs, Start, end_marked

COORDINATOR = ("coord.api.sync_coordinator", "coord.cli.run.runner", "coord.cli.run.command_host")
STORES = ("sqlite", "rethinkdb", "postgresql", "redis", "etcd")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


@pytest.fixture(scope="session")
def command_forks() -> Iterator[ForkServer]:
    """Processes that have imported all commands, the stores, and the driver that takes longest."""
    commands = {module for module, _ in COMMANDS.values()}
    stores = [f"coord.stores.{name}.store" for name in STORES]
    with ForkServer(*COORDINATOR, *commands, *stores, "rethinkdb") as server:
        yield server


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts a Python program of the tests or of coord; none outlives the test."""
    # Most tests fork nothing: the server starts with the first that does.
    starting = Start(lambda: request.getfixturevalue("command_forks"))
    yield starting
    starting.end()


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
