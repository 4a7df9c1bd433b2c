"""Databases that are set up, lent to one test after the other: to make one takes longer than most
tests.

One that comes back is emptied. Where a test has changed more than rows, it is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Protocol

from coord.stores import urls
from coord.stores.rethinkdb.driver import reql
from coord.stores.rethinkdb.pool import Pool
from coord.stores.rethinkdb.setup import set_up
from coord.stores.rethinkdb.url import parse_url

TIMEOUT = 20.0
"""Seconds for each query."""
REST = 3
"""So many lie idle before one is lent again: what a test left running has come to its end by
then."""


class AnyServer(Protocol):
    def url(self, database: str = ..., options: str = ...) -> str: ...


def new_sqlite_url(path: Path) -> str:
    """Return the URL of a new SQLite file at `path`, set up as `coord init` does."""
    url = f"sqlite://{path}"
    asyncio.run(urls.open_admin(url).setup({}, 30))
    return url


def new_database() -> str:
    return f"coord_test_{uuid.uuid4().hex[:12]}"


class Databases:
    """Those of one server."""

    def __init__(self, server: AnyServer) -> None:
        self._server = server
        self._idle: deque[str] = deque()
        self._made: dict[str, Any] = {}
        """What each looked like when it was made."""

    def lent(self) -> Iterator[str]:
        """The URL of one, set up and empty; the rest of a fixture."""
        if len(self._idle) > REST:
            url = self._idle.popleft()
        else:
            url = self._server.url(new_database())
            asyncio.run(set_up(url))
            self._made[url] = asyncio.run(self._look(url))
        yield url
        if asyncio.run(self._as_made(url)):
            self._idle.append(url)

    def drop_all(self) -> None:
        async def drop() -> None:
            for url in self._idle:
                async with _connected(url) as pool:
                    await pool.run(reql().db_drop(parse_url(url).database), TIMEOUT)

        asyncio.run(drop())

    async def _as_made(self, url: str) -> bool:
        """Empty it, and say whether it is as good as new; drop it otherwise."""
        r, name, made = reql(), parse_url(url).database, self._made[url]
        async with _connected(url) as pool:
            if await pool.run(_appearance(name), TIMEOUT) != made:
                if name in await pool.run(r.db_list(), TIMEOUT):
                    await pool.run(r.db_drop(name), TIMEOUT)
                return False
            tables = [r.db(name).table(item["name"]) for item in made["tables"]]
            for _ in range(2):  # the second: what came while the first was under way
                deletions = [table.delete(durability="soft") for table in tables]
                await pool.run(r.expr(deletions), TIMEOUT)
            return True

    async def _look(self, url: str) -> Any:
        async with _connected(url) as pool:
            return await pool.run(_appearance(parse_url(url).database), TIMEOUT)


def _appearance(database: str) -> Any:
    """The query for what a test may change besides rows."""
    r = reql()
    system = r.db("rethinkdb")
    tables = (
        system.table("table_config")
        .filter({"db": database})
        .order_by("name")
        .without("id")
        .coerce_to("array")
    )
    rights = system.table("permissions").filter({"database": database}).count()
    return r.expr({"tables": tables, "rights": rights})


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Pool]:
    pool = Pool(parse_url(url))
    try:
        yield pool
    finally:
        await pool.close()
