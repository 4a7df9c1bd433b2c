"""A real standby is promoted after its primary died with rows that it never received: no token falls
or is issued twice."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import asyncpg
import pytest

from coord.core.lease import Revision
from coord.core.operations import Answer, Claim, Release, Renew, Retire
from coord.stores.postgresql import PostgreSQLStore
from tests.stores.postgresql.kit import answered, opened, run
from tests.support.postgresql_server import Server, binary
from tests.support.store_urls import new_schema

TIMELINE = 2**32
"""Tokens of one timeline."""
ROLES = ("known", "retired", "new", "retired too late", "lost and retired")


def ask(server: Server, query: str) -> Any:
    """The value that a query answers with. coord's own connections refuse a standby."""

    async def body() -> Any:
        connection = await asyncpg.connect(server.url(), timeout=30)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return run(body)


class Pair:
    """A primary with a standby that follows it by asynchronous streaming replication."""

    def __init__(self, primary: Server, standby: Server) -> None:
        self.primary, self.standby = primary, standby
        only = new_schema(primary)
        address = f"{primary.host}:{primary.port}"
        self.url = only.replace(address, f"{address},{standby.host}:{standby.port}")

    def follow(self) -> None:
        copy = binary("pg_basebackup")
        assert copy is not None
        address = ("-h", self.primary.host, "-p", str(self.primary.port), "-U", "postgres")
        words = ("-D", str(self.standby.data), "-X", "stream", "-c", "fast", "--no-sync", "-R")
        self.standby.run(copy, *address, *words)
        self.standby.start()

    def wait_until_it_has_everything(self) -> None:
        written = ask(self.primary, "SELECT pg_current_wal_lsn()::text")
        behind = (
            f"SELECT coalesce(pg_last_wal_replay_lsn() >= '{written}'::pg_lsn, false) AND "
            "EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')"
        )
        self._wait(behind)

    def cut_off(self) -> None:
        """The standby receives nothing from now on, as behind a link that broke."""
        statements = ("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
        for statement in statements:
            ask(self.standby, statement)
        self._wait("SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)")

    def promote(self) -> None:
        self.primary.kill()
        assert ask(self.standby, "SELECT pg_promote(true, 60)") is True

    def _wait(self, query: str) -> None:
        deadline = time.monotonic() + 60
        while not ask(self.standby, query):
            assert time.monotonic() < deadline, self.standby.log[-2000:]
            time.sleep(0.05)


@pytest.fixture
def pair(own_postgresql_server: Server) -> Iterator[Pair]:
    standby = Server("hot_standby=on")
    try:
        pair = Pair(own_postgresql_server, standby)
        pair.follow()
        yield pair
    finally:
        standby.discard()


async def claimed(store: PostgreSQLStore, role: str, holder: str) -> Answer:
    answer = answered(await store.claim(Claim(role, holder, 1, 30.0, takeover=True), 20))
    assert answer.applied
    return answer


async def retired(store: PostgreSQLStore, role: str, holder: str) -> int:
    """Return the token of a term that ends before its role is retired."""
    token = (await claimed(store, role, holder)).lease.token
    assert answered(await store.release(Release(role, holder, token, 2), 20)).applied
    request = Retire(role, "", Revision(None, token, 2), math.inf)
    assert list(await store.retire([request], 20)) == [True]
    return token


async def claimed_together(store: PostgreSQLStore, roles: Sequence[str], holder: str) -> list[int]:
    claims = [Claim(role, holder, 1, 30.0, takeover=True) for role in roles]
    results = [answered(result) for result in await store.swap_all(claims, 20)]
    assert all(result.applied for result in results)
    return [result.lease.token for result in results]


def test_a_promotion_gives_tokens_of_its_own(pair: Pair) -> None:
    """The standby never got the last claims and the last floor of retired roles.

    One store goes on through the promotion, as that of a process that runs on does.
    """
    issued: dict[str, list[int]] = {role: [] for role in ROLES}

    async def body() -> None:
        async with opened(pair.url) as store:
            issued["known"].append((await claimed(store, "known", "a")).lease.token)
            issued["retired"] += [await retired(store, "retired", who) for who in "ab"]
            issued["retired too late"].append(
                (await claimed(store, "retired too late", "a")).lease.token
            )
            await asyncio.to_thread(pair.wait_until_it_has_everything)
            await asyncio.to_thread(pair.cut_off)

            lost = (await claimed(store, "known", "b")).lease
            issued["known"].append(lost.token)
            issued["retired"].append((await claimed(store, "retired", "c")).lease.token)
            issued["new"].append((await claimed(store, "new", "b")).lease.token)
            issued["retired too late"].append(await retired(store, "retired too late", "b"))
            issued["lost and retired"] += [
                await retired(store, "lost and retired", who) for who in "ab"
            ]
            assert issued["known"] == [1, 2]
            assert issued["retired"] == [1, 2, 3]
            await asyncio.to_thread(pair.promote)

            (renewal,) = await store.renew([Renew("known", "b", lost.token, 2, 30.0)], 20)
            if not isinstance(renewal, Answer):  # It finds out that its connection is gone.
                (renewal,) = await store.renew([Renew("known", "b", lost.token, 3, 30.0)], 20)
            assert not answered(renewal).applied
            assert (answered(renewal).lease.holder, answered(renewal).lease.token) == ("a", 1)
            for role in ROLES:
                assert (await claimed(store, role, "c")).lease.token == TIMELINE + 1
            together = await claimed_together(store, ROLES, "d")
            assert together == [TIMELINE + 2] * len(ROLES)
            token = await retired(store, "known", "e")
            assert token == TIMELINE + 3
            assert (await claimed(store, "known", "f")).lease.token == TIMELINE + 4

    run(body)
