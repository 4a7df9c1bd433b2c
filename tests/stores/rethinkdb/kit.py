"""What the tests of the RethinkDB store share: running one body on a loop, and asking a server
directly."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from coord.core.operations import Answer, Failure, Result
from coord.stores.rethinkdb import RethinkDBStore, parse_url
from coord.stores.rethinkdb.driver import reql
from coord.stores.rethinkdb.pool import Pool

T = TypeVar("T")
r: Any = reql()


def run(body: Callable[[], Awaitable[T]], timeout: float = 60) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(body(), timeout)

    return asyncio.run(bounded())


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[RethinkDBStore]:
    """A store, closed at the end; not opened, since nothing need be."""
    store = RethinkDBStore(parse_url(url))
    try:
        yield store
    finally:
        await store.close()


def ask(url: str, *terms: Any) -> list[Any]:
    """The answers to these queries, by an admin or the user that the URL names."""

    async def body() -> list[Any]:
        pool = Pool(parse_url(url))
        try:
            return [await pool.run(term, 30) for term in terms]
        finally:
            await pool.close()

    return run(body)


def db(url: str) -> Any:
    return r.db(parse_url(url).database)


def answered(result: Result) -> Answer:
    assert isinstance(result, Answer), result
    return result


def failed(result: Result) -> Failure:
    assert isinstance(result, Failure), result
    return result
