"""Real RethinkDB servers for the tests that need them, and what is said when there are none.

Tests marked `rethinkdb` or `cluster` are skipped where no server can be had, and the end of the run
says so in one line. With COORD_REQUIRE_RETHINKDB=1 the run fails then. COORD_TEST_RETHINKDB may
name a running server (`rethinkdb://host:port`); tests that kill, freeze or secure a server want the
binary all the same."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import rethinkdb_server as servers
from tests.support.databases import Databases

EXTERNAL, REQUIRE = "COORD_TEST_RETHINKDB", "COORD_REQUIRE_RETHINKDB"
_skipped: list[str] = []
_names = itertools.count()
NEEDS_BINARY = {"rethinkdb_cluster", "own_server"}


def pytest_runtest_setup(item: pytest.Item) -> None:
    fixtures = set(getattr(item, "fixturenames", ()))
    if not ({"rethinkdb", "cluster"} & {mark.name for mark in item.iter_markers()}):
        return
    if servers.available() or (os.environ.get(EXTERNAL) and not fixtures & NEEDS_BINARY):
        return
    _skipped.append(item.nodeid)
    pytest.skip("no RethinkDB server")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped and os.environ.get(REQUIRE) == "1" and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _skipped:
        required = os.environ.get(REQUIRE) == "1"
        consequence = f"; {REQUIRE}=1 makes this a failure" if required else ""
        terminalreporter.write_line(
            f"RETHINKDB NOT TESTED: {len(_skipped)} tests skipped, since no `{servers.BINARY}` is on PATH "
            f"and {EXTERNAL} names no server that would do{consequence}",
            red=required,
            yellow=not required,
            bold=True,
        )


class External:
    """A server that somebody else runs."""

    def __init__(self, url: str) -> None:
        self._base = url.partition("?")[0].rstrip("/")

    def url(self, database: str = "coord", options: str = "") -> str:
        return f"{self._base}/{database}{options}"


@pytest.fixture(scope="session")
def rethinkdb_server() -> Iterator[servers.Server | External]:
    """A server that all tests share: not to be killed, nor are its databases to be counted. Use
    `.url(database)`."""
    if given := os.environ.get(EXTERNAL):
        yield External(given)
        return
    with servers.Server() as server:
        yield server


@pytest.fixture
def own_server() -> Iterator[servers.Server]:
    """A running server of this test's own, to be killed, frozen and restarted at will."""
    with servers.Server() as server:
        yield server


@pytest.fixture(scope="session")
def rethinkdb_cluster() -> Iterator[servers.Cluster]:
    """Three nodes. Whoever stops one starts it again."""
    with servers.Cluster(3) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def rethinkdb_databases(rethinkdb_server: servers.Server | External) -> Iterator[Databases]:
    found = Databases(rethinkdb_server)
    yield found
    found.drop_all()


@pytest.fixture
def rethinkdb_url(rethinkdb_databases: Databases) -> Iterator[str]:
    """A database of this test's own, set up."""
    yield from rethinkdb_databases.lent()


@pytest.fixture(scope="module")
def rethinkdb_module_url(rethinkdb_databases: Databases) -> Iterator[str]:
    """A database that the tests of a module share, set up."""
    yield from rethinkdb_databases.lent()


@pytest.fixture
def database(rethinkdb_url: str) -> str:
    """The RethinkDB database behind `url`: a new one for each test. A folder whose tests need less
    says so."""
    return rethinkdb_url


@pytest.fixture(params=["memory", "sqlite", pytest.param("rethinkdb", marks=pytest.mark.rethinkdb)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store: a test that takes this runs on all of them."""
    if request.param == "memory":
        return f"memory://test-{next(_names)}"
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/coord.db"
    found: str = request.getfixturevalue("database")
    return found
