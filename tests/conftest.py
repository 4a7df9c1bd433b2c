"""Which tests are slow and which are quick, what becomes of those that need something that is not
here, and real RethinkDB servers for those that need one.

`pytest -m quick` is all that needs no server, no cluster, no chaos and at most 0.3 seconds.
A test that takes a fixture with a server is marked `rethinkdb`, `cluster` or `server` (PostgreSQL,
Redis, etcd); one that starts a server itself has the mark in its file. Such tests are skipped where no server can be started.
COORD_TEST_RETHINKDB may name a running server (`rethinkdb://host:port`); tests that kill, freeze or
secure a server need the binary nevertheless. Each process of a run starts a server of its own."""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import compiled, levels, requirements, scratch, signals
from tests.support import rethinkdb_server as servers
from tests.support.databases import Databases
from tests.support.postgresql_server import shared_files
from tests.support.requirements import EXTERNAL
from tests.support.store_urls import (
    PARAMETERS,
    NewURL,
    is_long,
    makes_sense,
    new_url,
    shared_etcd_member,
    shared_postgresql_server,
    shared_redis_server,
)

__all__ = ["new_url", "shared_etcd_member", "shared_postgresql_server", "shared_redis_server"]

HERE = Path(__file__).parent
SLOW_TESTS = HERE / "support" / "slow_tests.txt"
NEEDS_BINARY = {"rethinkdb_cluster", "own_server"}
NEEDS_SERVER = {
    "rethinkdb_server",
    "rethinkdb_databases",
    "rethinkdb_url",
    "rethinkdb_module_url",
    "own_server",
}
NEEDS_OTHER_SERVER = {
    "postgresql_server",
    "own_postgresql_server",
    "redis_server",
    "own_redis_server",
    "etcd_member",
    "own_etcd_member",
    "own_etcd_cluster",
}
OTHER_SERVERS = {"postgresql", "redis", "etcd"}
NOT_QUICK = {"slow", "rethinkdb", "cluster", "server", "chaos", "long", "longest"}
SHARED = {
    "browser",
    "code_forks",
    "distributions",
    "mutant_runner",
    "mypy_errors",
    "on_rethinkdb",
    "on_servers",
    "on_sqlite",
    "picture_forks",
    "prometheus",
    "shell_forks",
}
"""Fixtures of a module that are costly, or begin the runs of several tests at once: one process of
the run has all tests with such a fixture."""
FIRST = 3.0
"""Seconds from which on a test is among the first of a run."""
TIMEOUT_OF_THE_LONGEST = 3_600
"""Seconds that a test may take with COORD_LONG=2, also on a machine that does other work."""
WITHOUT_REPRESENTATIVE = pytest.StashKey[list[str]]()
"""The collected test functions that only COORD_LONG=1 runs."""


@pytest.fixture(scope="session", autouse=True)
def state_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests, and the processes that they start, out of the user's own state."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


def pytest_configure(config: pytest.Config) -> None:
    requirements.required()  # an invalid name is an error at once
    signals.restore()
    contexts = ExitStack()
    contexts.enter_context(scratch.directory_in_memory())
    contexts.enter_context(shared_files())
    config.add_cleanup(contexts.close)
    # Without compiled files each process of the run compiles all tests, and each process that a
    # test starts compiles coord.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if sys.version_info < (3, 12):
        # The driver of RethinkDB imports distutils. That of setuptools takes as long as all of coord.
        os.environ["SETUPTOOLS_USE_DISTUTILS"] = "stdlib"
    compiled.compile_once(config, HERE)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave what all tests consist of out of garbage collections: each takes a quarter of a second
    otherwise, and some tests begin dozens of them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes run the tests.

    Quick tests compute, and each process first imports them all. The others wait for half of their
    time: with six processes two cores are idle for a fifth of it, with ten they only do more.
    """
    return 4 if config.option.markexpr == "quick" else 8


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    leave_out(config, items)
    slow = slow_tests()
    seconds: dict[str, float] = {}
    for item in items:
        file = file_in_tests(item.path)
        if file is None:
            continue
        whole = file + item.nodeid[item.nodeid.find("::") :]
        took = slow.get(whole.partition("[")[0])
        if took is not None and not on_virtual_time(item):
            seconds[item.nodeid] = took
            item.add_marker("slow")
        if "chaos" in file.split("/"):
            item.add_marker("chaos")
        fixtures = set(getattr(item, "fixturenames", ()))
        if "rethinkdb_cluster" in fixtures:
            item.add_marker("cluster")
        elif fixtures & NEEDS_SERVER:
            item.add_marker("rethinkdb")
        # The published contract of servers has one fixture name for all of them.
        own_kind = "contract_server" in fixtures and OTHER_SERVERS & set(item.path.parts)
        if fixtures & NEEDS_OTHER_SERVER or own_kind:
            item.add_marker("server")
        marks = {mark.name for mark in item.iter_markers()}
        if "rethinkdb_cluster" in fixtures:
            item.add_marker(pytest.mark.xdist_group("cluster"))
        elif {"chaos", "longest"} <= marks:  # the machine has enough to do with one
            item.add_marker(pytest.mark.xdist_group("chaos"))
        elif shared := fixtures & SHARED:
            item.add_marker(pytest.mark.xdist_group(min(shared)))  # the same in each process
        if not marks & NOT_QUICK:
            item.add_marker("quick")
    if hasattr(config, "workerinput"):  # the longest first: none is left over at the end
        items.sort(key=lambda item: -long if (long := seconds.get(item.nodeid, 0)) >= FIRST else 0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    if getattr(session.config.option, "loadgroup", False):
        name_groups(session.items)


def name_groups(items: list[pytest.Item]) -> None:
    """Append its group to the id of each test, by which pytest-xdist distributes the tests.

    pytest-xdist 3.8 assigns an attribute that pytest 9.2 has no longer, so that each test would be
    a group of its own.
    """
    for item in items:
        groups = {str(mark.args[0]) for mark in item.iter_markers("xdist_group")}
        if groups and (node_id := getattr(item, "_id", None)) is not None:
            grouped = type(node_id).parse(f"{item.nodeid}@{'_'.join(sorted(groups))}")
            item._id = grouped  # type: ignore[attr-defined]


def leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what does not run at this level (tests/support/levels.py), and note the functions of
    which nothing runs without COORD_LONG. A variant that the command line names runs always."""
    named_nodes = {argument for argument in config.args if "::" in argument}
    items[:] = [item for item in items if makes_sense(item)]
    kept_items: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    functions: dict[str, bool] = {}
    for item in items:
        if is_long(item):
            item.add_marker("long")
        marks = {mark.name for mark in item.iter_markers()}
        if item.nodeid in named_nodes:
            marks.clear()
        if (
            levels.LONGEST and "timeout" not in marks
        ):  # some state machines take more than five minutes
            item.add_marker(pytest.mark.timeout(TIMEOUT_OF_THE_LONGEST))
        (left_out if levels.left_out(marks) else kept_items).append(item)
        name = name_of_function(item)
        functions[name] = functions.get(name, True) and "long" in marks
    config.stash[WITHOUT_REPRESENTATIVE] = [name for name, long in functions.items() if long]
    if left_out:
        items[:] = kept_items
        config.hook.pytest_deselected(items=left_out)


@functools.cache
def file_in_tests(path: Path) -> str | None:
    """Return the path of a file below this directory; None if it is elsewhere."""
    return path.relative_to(HERE).as_posix() if path.is_relative_to(HERE) else None


def name_of_function(item: pytest.Item) -> str:
    """Return what identifies a test function: classes of a file that inherit a test share it."""
    defined_in, _, name = getattr(item, "function", item).__qualname__.rpartition(".")
    inherited = defined_in and item.cls is not None and defined_in != item.cls.__qualname__  # type: ignore[attr-defined] # of functions
    return f"{item.path}::{name}" if inherited else item.nodeid.partition("[")[0]


def on_virtual_time(item: pytest.Item) -> bool:
    """Return whether this is the variant on memory of a test whose other variants wait."""
    callspec = getattr(item, "callspec", None)
    on_memory = callspec is not None and callspec.params.get("url") == "memory"
    return on_memory and "store_time" in getattr(item, "fixturenames", ())


def slow_tests() -> dict[str, float]:
    """Seconds by test, without its parameters."""
    lines = SLOW_TESTS.read_text(encoding="utf-8").splitlines()
    pairs = (line.split() for line in lines if line and not line.startswith("#"))
    return {name: float(seconds) for seconds, name in pairs}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        requirements.need(*mark.args)
    fixtures = set(getattr(item, "fixturenames", ()))
    if not ({"rethinkdb", "cluster"} & {mark.name for mark in item.iter_markers()}):
        return
    if servers.available() or (os.environ.get(EXTERNAL) and not fixtures & NEEDS_BINARY):
        return
    requirements.skip("rethinkdb")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    requirements.note(report)
    # In the process that starts the others: --last-failed knows tests by their own ids.
    name, at, group = report.nodeid.rpartition("@")
    if at and "]" not in group and hasattr(report, "node"):
        report.nodeid = name


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.exitstatus == 0 and any(fails for _, fails in requirements.summary()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line, fails in requirements.summary():
        terminalreporter.write_line(line, red=fails, yellow=not fails, bold=True)


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
    if address := os.environ.get(EXTERNAL):
        yield External(address)
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
    """Three nodes. A test that stops one starts it again."""
    with servers.Cluster(3) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def rethinkdb_databases(rethinkdb_server: servers.Server | External) -> Iterator[Databases]:
    databases = Databases(rethinkdb_server)
    yield databases
    if isinstance(rethinkdb_server, External):  # else they end with the server
        databases.drop_all()


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


@pytest.fixture(params=PARAMETERS)
def url(request: pytest.FixtureRequest, new_url: NewURL) -> str:
    """An empty store: a test that takes this runs on several of them (`is_long`)."""
    return new_url(request.param)
