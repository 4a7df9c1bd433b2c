"""Attempts to connect that several requests share: each request gets its own outcome, whatever the
others do meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coord.stores.failures import RequestError
from coord.stores.postgresql.connection import Pool as PostgreSQLPool
from coord.stores.postgresql.url import parse_url as parse_postgresql_url
from coord.stores.redis import connection as redis_connection
from coord.stores.redis import parse_url as parse_redis_url
from coord.stores.redis.connection import Client
from coord.stores.rethinkdb import parse_url as parse_rethinkdb_url
from coord.stores.rethinkdb.pool import Deadline
from coord.stores.rethinkdb.pool import Pool as RethinkDBPool

Patch = pytest.MonkeyPatch


class Opened:
    """A connection as far as a pool looks at it."""

    def __init__(self, closed: bool = False) -> None:
        self.closed, self.retired, self.usable = closed, False, not closed

    def terminate(self) -> None:
        self.usable = False

    async def close(self) -> None:
        self.terminate()


def test_redis_a_request_waits_for_its_attempt_when_another_has_begun(patch: Patch) -> None:
    """The connection of the first attempt breaks at once, and the first request connects again
    before the second one has seen the outcome."""

    async def body() -> None:
        loop, opened, gate = asyncio.get_running_loop(), list[Opened](), asyncio.Event()

        async def connect(*_: object) -> Opened:
            opened.append(Opened(closed=not opened))
            await gate.wait()
            gate.clear()
            return opened[-1]

        patch.setattr(redis_connection, "connect", connect)
        client = Client(parse_redis_url("redis://127.0.0.1:1/0"))

        async def twice() -> Any:
            await client.connection(loop.time() + 9)
            return await client.connection(loop.time() + 9)

        first = asyncio.ensure_future(twice())
        second = asyncio.ensure_future(client.connection(loop.time() + 9))
        await asyncio.sleep(0)
        gate.set()
        assert await second is opened[0]
        gate.set()
        assert await first is opened[1]

    asyncio.run(body())


def test_redis_a_request_that_connects_is_not_cancelled_by_close(patch: Patch) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()

        async def connect(*_: object) -> None:
            await asyncio.Event().wait()

        patch.setattr(redis_connection, "connect", connect)
        client = Client(parse_redis_url("redis://127.0.0.1:1/0"))
        request = asyncio.ensure_future(client.connection(loop.time() + 9))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(RequestError, match="closed"):
            await request

    asyncio.run(body())


def test_rethinkdb_a_query_that_connects_is_not_cancelled_by_close(patch: Patch) -> None:
    async def body() -> None:
        async def never(*_: object) -> None:
            await asyncio.Event().wait()

        pool = RethinkDBPool(parse_rethinkdb_url("rethinkdb://127.0.0.1:1/coord"))
        patch.setattr(pool, "_open", never)
        query = asyncio.ensure_future(pool._connected(Deadline(9)))
        await asyncio.sleep(0)
        await pool.close()
        with pytest.raises(RequestError, match="closed"):
            await query

    asyncio.run(body())


def postgresql_pool(patch: Patch, gate: asyncio.Event) -> tuple[PostgreSQLPool, list[Opened]]:
    """A pool whose attempts to connect succeed when the gate opens, and what they opened."""
    opened: list[Opened] = []

    async def connect(*_: object) -> Opened:
        await gate.wait()
        opened.append(Opened())
        return opened[-1]

    pool = PostgreSQLPool(parse_postgresql_url("postgresql://127.0.0.1:1/x"))
    pool._on_this_loop()
    patch.setattr(pool, "_open", connect)
    return pool, opened


def test_postgresql_requests_with_short_timeouts_get_a_connection_in_the_end(patch: Patch) -> None:
    """It takes longer to connect than any request waits."""

    async def body() -> None:
        gate = asyncio.Event()
        pool, opened = postgresql_pool(patch, gate)
        for _ in range(3):
            with pytest.raises(RequestError, match="in time"):
                await pool._connected(0.01)
        gate.set()
        connection: Any = await pool._connected(5)
        assert opened == [connection]
        later = asyncio.ensure_future(pool._connected(0.001))
        await asyncio.sleep(0)
        later.cancel()  # the attempt goes on, too
        await asyncio.gather(later, return_exceptions=True)
        for _ in range(3):
            await asyncio.sleep(0)
        assert await pool._connected(0.001) is opened[1]
        await pool.close()

    asyncio.run(body())


def test_postgresql_an_old_attempt_is_not_waited_for(patch: Patch) -> None:
    async def body() -> None:
        gate = asyncio.Event()
        pool, opened = postgresql_pool(patch, gate)
        patch.setattr("coord.stores.postgresql.connection.ATTEMPT_LIFETIME", 0.0)
        with pytest.raises(RequestError, match="in time"):
            await pool._connected(0.01)
        (old,) = pool._opening
        with pytest.raises(RequestError, match="in time"):
            await pool._connected(0.01)
        assert old.cancelled()
        assert len(pool._opening) == 1
        request = asyncio.ensure_future(pool._connected(5))
        await asyncio.sleep(0)
        await pool.close()
        with pytest.raises(RequestError, match="closed"):
            await request
        assert opened == []

    asyncio.run(body())


@pytest.fixture
def patch(monkeypatch: Patch) -> Patch:
    return monkeypatch
