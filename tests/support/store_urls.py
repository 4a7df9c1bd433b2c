"""Empty stores of every kind, by name: SQLite files, and databases on servers that all tests of a
process share.

These are fixtures: `tests/conftest.py` imports them for all tests. A kind whose server cannot be
started here skips the test.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coord.stores.postgresql import admin
from tests.support import etcd_server, postgresql_server, redis_server, requirements
from tests.support.databases import new_sqlite_url

STORES = ("memory", "sqlite", "rethinkdb", "postgresql", "redis", "etcd")
IN_TURNS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("api", "election", "cli"), ("sqlite", "rethinkdb", "postgresql", "redis", "etcd")
    ),
    "services": ("sqlite", "rethinkdb", "postgresql", "redis"),
}
"""The stores of which a test with a `url` in these directories runs on one, each test on the next;
with COORD_LONG=1 it runs on all of them. Each such test also runs on memory, if it can."""
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


def store_of(item: pytest.Item) -> str | None:
    """Return the store that a test's parameter `url` names, or None."""
    callspec = getattr(item, "callspec", None)
    kind = callspec.params.get("url") if callspec is not None else None
    return kind if kind in STORES else None


def turns(item: pytest.Item) -> list[str]:
    """Return the stores on which a test runs in turn, without those that its mark `stores` leaves out."""
    directory = next((part for part in item.path.parts if part in IN_TURNS), "")
    mark = item.get_closest_marker("stores")
    return [store for store in IN_TURNS.get(directory, ()) if mark is None or store in mark.args]


def makes_sense(item: pytest.Item) -> bool:
    """Return whether a test can run on its store: a mark `stores` names those on which it can."""
    kind, mark = store_of(item), item.get_closest_marker("stores")
    if kind == "memory":
        return mark is None or kind in mark.args
    return kind is None or kind in turns(item)


def is_long(item: pytest.Item) -> bool:
    """Return whether a test runs on its store with COORD_LONG=1 only: it is another one's turn."""
    if (kind := store_of(item)) in (None, "memory"):
        return False
    if item.get_closest_marker("on_memory") is not None:
        return True
    stores, name = turns(item), item.nodeid.partition("[")[0].encode()
    return stores[zlib.crc32(name) % len(stores)] != kind


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
