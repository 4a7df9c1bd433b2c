"""What the tests of the PostgreSQL store share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from coord.core.operations import Answer, Failure, Result
from coord.stores.postgresql import PostgreSQLStore, parse_url
from coord.stores.postgresql.connection import Pool

T = TypeVar("T")


def run(body: Callable[[], Awaitable[T]], timeout: float = 100) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(body(), timeout)

    return asyncio.run(bounded())


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgreSQLStore]:
    """A store, closed at the end; not opened, since nothing need be."""
    store = PostgreSQLStore(url)
    try:
        yield store
    finally:
        await store.close()


def execute(url: str, *statements: str) -> list[Any]:
    """The rows that these statements answer with, each in a transaction of its own."""

    async def body() -> list[Any]:
        pool = Pool(parse_url(url))
        try:
            return [await pool.run(statement, (), 30) for statement in statements]
        finally:
            await pool.close()

    return run(body)


def answered(result: Result) -> Answer:
    assert isinstance(result, Answer), result
    return result


def failed(result: Result) -> Failure:
    assert isinstance(result, Failure), result
    return result


def schema_of(url: str) -> str:
    return parse_url(url).schema
