"""Empty stores of every kind, by name: SQLite files, and databases on servers that all tests of a
process share.

These are fixtures: `tests/conftest.py` imports them for all tests. A kind whose server cannot be
started here skips the test.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coord.stores.postgresql import admin
from tests.support import etcd_server, postgresql_server, redis_server, requirements
from tests.support.databases import new_sqlite_url

STORES = ("memory", "sqlite", "rethinkdb", "postgresql", "redis", "etcd")
EVERYWHERE = ("memory", "sqlite", "rethinkdb")
"""The stores on which each test with a `url` runs, apart from those of `IN_TURNS`."""
IN_TURNS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("api", "election", "cli"), ("rethinkdb", "postgresql", "redis", "etcd")),
    "services": ("rethinkdb", "postgresql", "redis"),
}
"""The servers of which a test of these directories runs on one, each test on the next; with
COORD_LONG=1 on all of them."""
PARAMETERS = [
    "memory",
    "sqlite",
    pytest.param("rethinkdb", marks=pytest.mark.rethinkdb),
    *(pytest.param(kind, marks=pytest.mark.server) for kind in ("postgresql", "redis", "etcd")),
]
"""Parameters of a fixture that takes the name of a store."""
LONGEST_TTL = 1e6
"""Seconds of the greatest ttl that a new Redis namespace accepts at once."""
NewURL = Callable[[str], str]
_names = itertools.count()


def runs_here(item: pytest.Item) -> bool:
    """Return whether a test runs on the store that its parameter `url` names, if it has one.

    A mark `stores` names the stores on which the test makes sense. With the mark `one_store` it
    runs on one of those that several processes can use.
    """
    callspec = getattr(item, "callspec", None)
    kind = callspec.params.get("url") if callspec is not None else None
    if kind not in STORES:
        return True
    directory = next((part for part in item.path.parts if part in IN_TURNS), "")
    mark = item.get_closest_marker("stores")
    sensible = STORES if mark is None else mark.args
    if kind not in sensible:
        return False
    in_turns = IN_TURNS.get(directory, ())
    if item.get_closest_marker("one_store") is not None:
        in_turns = tuple(store for store in STORES if store != "memory")
    turns = [server for server in in_turns if server in sensible]
    if kind not in turns:
        return kind in EVERYWHERE
    name = item.nodeid.partition("[")[0].encode()
    return bool(os.environ.get("COORD_LONG")) or turns[zlib.crc32(name) % len(turns)] == kind


@pytest.fixture(scope="session", name="postgresql_server")
def shared_postgresql_server() -> Iterator[postgresql_server.Server]:
    """A server that all tests of a process share: not to be stopped."""
    requirements.need("postgresql")
    with postgresql_server.Server() as server:
        yield server


@pytest.fixture(scope="session", name="redis_server")
def shared_redis_server() -> Iterator[redis_server.Server]:
    """A server that all tests of a process share: not to be stopped."""
    requirements.need("redis")
    with redis_server.Server() as server:
        yield server


@pytest.fixture(scope="session", name="etcd_member")
def shared_etcd_member() -> Iterator[etcd_server.Member]:
    """A member that all tests of a process share: not to be stopped."""
    requirements.need("etcd")
    with etcd_server.Member() as member:
        yield member


def new_schema(server: postgresql_server.Server) -> str:
    """Create a PostgreSQL schema, and return its URL."""
    url = server.url(options=f"?schema=test_{secrets.token_hex(6)}")
    asyncio.run(admin(url).setup({}, 30))
    return url


def new_redis_namespace(server: redis_server.Server) -> str:
    """Create a Redis namespace, and return its URL."""
    return redis_server.set_up(server.url(f"test-{secrets.token_hex(6)}"), LONGEST_TTL)


def new_etcd_namespace(member: etcd_server.Member) -> str:
    """Return the URL of an etcd namespace, which needs no setup."""
    return member.url(f"test-{secrets.token_hex(6)}")


@pytest.fixture
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> NewURL:
    """Return a function that makes an empty store of a kind, one of `STORES`, and returns its URL.

    There is one RethinkDB database for each test.
    """

    def make(store: str) -> str:
        if store == "memory":
            return f"memory://test-{next(_names)}"
        if store == "sqlite":
            return new_sqlite_url(tmp_path / f"coord-{next(_names)}.db")
        if store == "rethinkdb":
            requirements.need("rethinkdb")
            url: str = request.getfixturevalue("database")
            return url
        if store == "postgresql":
            return new_schema(request.getfixturevalue("postgresql_server"))
        if store == "redis":
            return new_redis_namespace(request.getfixturevalue("redis_server"))
        return new_etcd_namespace(request.getfixturevalue("etcd_member"))

    return make


@pytest.fixture(name="url", params=PARAMETERS[1:])
def shared_url(request: pytest.FixtureRequest, new_url: NewURL) -> str:
    """An empty store that several processes can use: for modules whose tests run on all kinds."""
    return new_url(request.param)


@pytest.fixture(name="url", params=PARAMETERS[2:])
def any_server(request: pytest.FixtureRequest, new_url: NewURL) -> str:
    """An empty store on a server."""
    return new_url(request.param)
