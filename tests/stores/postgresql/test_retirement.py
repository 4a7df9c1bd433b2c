"""Rows of PostgreSQL are deleted, and tokens never fall: races, promotions, guards, restores."""

from __future__ import annotations

import asyncio
import math

import pytest

from coord.core.lease import Revision
from coord.core.operations import Claim, Release, Retire
from coord.stores.failures import RequestError
from coord.stores.postgresql import PostgreSQLStore, admin
from coord.stores.postgresql import rows as pg_rows
from coord.stores.postgresql.schema import calls
from tests.stores.postgresql.kit import answered, execute, opened, run, schema_of
from tests.support.postgresql_server import Server
from tests.support.store_urls import new_schema

SECOND_TIMELINE = 2**32


async def led(store: PostgreSQLStore, role: str, floor: int = 0) -> Revision:
    """Return the revision of the row after a term."""
    claimed = answered(await store.claim(Claim(role, "a", 1, 30.0, floor=floor), 20))
    assert claimed.applied
    released = answered(await store.release(Release(role, "a", claimed.lease.token, 2), 20))
    assert released.applied
    return released.lease.revision


def request(role: str, revision: Revision, prefix: str = "") -> Retire:
    return Retire(role, prefix, revision, math.inf)


def test_a_claim_that_waits_while_its_role_is_retired_gets_a_higher_token(url: str) -> None:
    """It has found no row. Meanwhile a whole life of the role passes in one transaction."""
    name = schema_of(url)

    async def body() -> None:
        async with opened(url) as store:
            other, observer = (await store.pool.open(10)).raw, (await store.pool.open(10)).raw
            queries = calls(name)
            await other.execute("BEGIN")
            first = Claim("x", "b", 1, 30.0)
            row = await other.fetchrow(queries["claim"], *pg_rows.claim_parameters(first))
            claim = asyncio.ensure_future(store.claim(Claim("x", "c", 1, 30.0), 20))
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            while not (await observer.fetchval(waiting)):
                assert not claim.done()
                await asyncio.sleep(0.02)
            released = Release("x", "b", row["token"], 2)
            await other.fetch(queries["release"], *pg_rows.release_parameters(released))
            revision = Revision(None, row["token"], 2)
            retire = pg_rows.retire_parameters([request("x", revision)])
            assert [r["role"] for r in await other.fetch(queries["retire"], *retire)] == ["x"]
            await other.execute("COMMIT")
            answer = answered(await claim)
            assert answer.applied
            assert answer.lease.token == row["token"] + 1
            assert [lease.token for lease in await store.read(["x"], 20)] == [row["token"] + 1]
            (term,) = await store.past(["x"], 20)
            assert term.token == row["token"] + 1

    run(body)


def test_a_row_that_somebody_has_locked_stays(url: str) -> None:
    async def body() -> None:
        async with opened(url) as store:
            revision = await led(store, "x")
            other = (await store.pool.open(10)).raw
            await other.execute("BEGIN")
            await other.execute(f"SELECT 1 FROM {schema_of(url)}.leases FOR UPDATE")
            assert list(await store.retire([request("x", revision)], 20)) == [False]
            await other.execute("ROLLBACK")
            assert list(await store.retire([request("x", revision)], 20)) == [True]

    run(body)


def test_tokens_of_retired_roles_rise_on_each_timeline(url: str) -> None:
    name = schema_of(url)

    async def body() -> None:
        async with opened(url) as store:
            revision = await led(store, "x", floor=7)
            assert list(await store.retire([request("x", revision)], 20)) == [True]
            await asyncio.to_thread(
                execute,
                url,
                f"CREATE OR REPLACE FUNCTION {name}.token_floor_1() RETURNS bigint LANGUAGE sql "
                f"AS 'SELECT {SECOND_TIMELINE}'",
            )
            promoted = await led(store, "x")
            assert promoted.token == SECOND_TIMELINE + 1
            assert list(await store.retire([request("x", promoted)], 20)) == [True]
            assert (await led(store, "x")).token == SECOND_TIMELINE + 2
            assert (await led(store, "new")).token == SECOND_TIMELINE + 2

    run(body)


def test_a_raised_floor_is_never_below_the_tokens_of_retired_roles(url: str) -> None:
    async def body() -> None:
        async with opened(url) as store:
            revision = await led(store, "tenant-1", floor=900)
            assert list(await store.retire([request("tenant-1", revision, "tenant-")], 20)) == [
                True
            ]
            await admin(url).raise_token_floor(50, ["tenant-1", "other"], 20)
            assert (await led(store, "tenant-1")).token == 902
            assert (await led(store, "other")).token == 51
            await admin(url).raise_token_floor(5_000, [], 20)
            assert (await led(store, "tenant-2")).token == 5_001

    run(body)


def test_the_guards_refuse_to_forget_a_token(url: str) -> None:
    name = schema_of(url)

    async def retired() -> None:
        async with opened(url) as store:
            revision = await led(store, "x")
            assert list(await store.retire([request("x", revision)], 20)) == [True]
            await led(store, "x")  # its token is above the floor

    run(retired)
    for statement in (
        f"DELETE FROM {name}.leases",
        f"DELETE FROM {name}.floors",
        f"UPDATE {name}.floors SET token = 0",
        f"UPDATE {name}.floors SET prefix = 'y'",
    ):
        with pytest.raises(RequestError, match="P0001"):  # an exception of a trigger
            execute(url, statement)


def test_a_restarted_server_keeps_the_floors(own_postgresql_server: Server) -> None:
    url = new_schema(own_postgresql_server)

    async def first() -> None:
        async with opened(url) as store:
            revision = await led(store, "x", floor=70)
            assert list(await store.retire([request("x", revision)], 20)) == [True]

    async def second() -> int:
        async with opened(url) as store:
            return (await led(store, "x")).token

    run(first)
    own_postgresql_server.kill()
    own_postgresql_server.start()
    assert run(second) == 72
