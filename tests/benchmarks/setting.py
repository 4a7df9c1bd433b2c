"""Where a run takes place: a directory, a RethinkDB server of its own, and how long it may take."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.support import rethinkdb_server

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Setting:
    """`server` is None where there is no RethinkDB. `quick`: few rounds, to see that it runs, not
    to publish."""

    directory: Path
    server: rethinkdb_server.Server | None
    quick: bool = False

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

    def stores(self, name: str) -> dict[str, str]:
        """A fresh URL on each store that is here."""
        here = ["SQLite", *(["RethinkDB"] if self.server is not None else [])]
        return {store: self.url(store, name) for store in here}


@contextmanager
def setting(quick: bool) -> Iterator[Setting]:
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="coord-benchmarks-"))
        )
        server = None
        if rethinkdb_server.available():
            server = stack.enter_context(rethinkdb_server.Server())
        yield Setting(directory, server, quick)


def spawn(
    module: str, *arguments: object, stdin: int | IO[str] | None = None
) -> subprocess.Popen[str]:
    """`python -m tests.benchmarks.<module>` with these arguments; its output is text to be read
    line by line."""
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, text=True)
