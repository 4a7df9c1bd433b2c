"""Where a run takes place: a directory, a RethinkDB server of its own, and how long it may take."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

from tests.support import etcd_server, postgresql_server, redis_server, rethinkdb_server
from tests.support.store_urls import new_etcd_namespace, new_redis_namespace, new_schema

ROOT = Path(__file__).parent.parent.parent

Size = Literal["whole", "quick", "smallest"]
"""How much is measured: for the page, to see in minutes that it runs, or in a test."""
T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """`server` is None where there is no RethinkDB. `servers`: PostgreSQL, Redis and etcd, as far
    as they are here."""

    directory: Path
    server: rethinkdb_server.Server | None
    size: Size = "whole"
    servers: Mapping[str, Any] = field(default_factory=dict)

    def pick(self, whole: T, quick: T, smallest: T) -> T:
        """Return the number of rounds, roles or seconds that belongs to the size of this run."""
        return {"whole": whole, "quick": quick, "smallest": smallest}[self.size]

    def sqlite(self, name: str) -> str:
        """The URL of a file of its own."""
        return f"sqlite://{self.directory}/{name}.db"

    def rethinkdb(self, database: str) -> str:
        """The URL of a database of its own, set up."""
        from coord.stores.rethinkdb.setup import set_up

        assert self.server is not None
        url = self.server.url(database)
        asyncio.run(set_up(url))
        return url

    def url(self, store: str, name: str) -> str:
        return self.rethinkdb(name) if store == "RethinkDB" else self.sqlite(name)

    def server_url(self, store: str, name: str) -> str:
        """The URL of an empty store of one of `servers`; `name` is for people."""
        server = self.servers[store]
        if store == "PostgreSQL":
            return new_schema(server)
        return new_redis_namespace(server) if store == "Redis" else new_etcd_namespace(server)

    def stores(self, name: str) -> dict[str, str]:
        """A fresh URL on each store that is here."""
        here = ["SQLite", *(["RethinkDB"] if self.server is not None else [])]
        return {store: self.url(store, name) for store in here}

    def every_store(self, name: str) -> dict[str, str]:
        """`stores`, and the servers."""
        servers = {store: self.server_url(store, name) for store in self.servers}
        return {**self.stores(name), **servers}


@contextmanager
def setting(size: Size) -> Iterator[Setting]:
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="coord-benchmarks-"))
        )
        server = None
        if rethinkdb_server.available():
            # With the small cache of the tests, what is not used in every turn is read from files.
            server = stack.enter_context(rethinkdb_server.Server(cache="auto"))
        servers: dict[str, Any] = {}
        if postgresql_server.available():
            servers["PostgreSQL"] = stack.enter_context(postgresql_server.Server())
        if redis_server.binary() is not None and importlib.util.find_spec("redis"):
            servers["Redis"] = stack.enter_context(redis_server.Server())
        if etcd_server.available() and importlib.util.find_spec("aiohttp"):
            servers["etcd"] = stack.enter_context(etcd_server.Member())
        yield Setting(directory, server, size, servers)


def spawn(
    module: str, *arguments: object, stdin: int | IO[str] | None = None
) -> subprocess.Popen[str]:
    """`python -m tests.benchmarks.<module>` with these arguments; its output is text to be read
    line by line."""
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, text=True)
