"""A real Redis Sentinel: the primary is killed, the sentinel promotes the replica, and coord goes on
there."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from coord.core.lease import Lease
from coord.core.operations import Answer, Claim, Failure, Renew
from coord.stores.redis import RedisStore
from tests.support import requirements
from tests.support.redis_server import Sentinel, Server, set_up

pytestmark = pytest.mark.server

TTL = 2.0
DEADLINE = 60.0
"""Seconds until the replica must have been promoted and elect somebody."""


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Server, Server, Sentinel]]:
    """A primary, its replica, and a sentinel that knows both."""
    requirements.need("redis", "redis-sentinel")
    with (
        Server() as primary,
        Server("--replicaof", f"127.0.0.1 {primary.port}") as replica,
    ):
        # On a busy machine a primary that runs may be silent for a while: nothing is promoted
        # before the test wants it.
        sentinel = Sentinel(primary, tmp_path, down_after=600).start()
        try:
            yield primary, replica, sentinel
        finally:
            sentinel.kill()


async def until_replicated(store: RedisStore, sentinel: RedisStore) -> None:
    """Wait until the sentinel knows the replica, and the replica has what was written so far.

    Of the longest ttl, above all: a namespace whose replica does not have it yet refuses it there.
    """
    for _ in range(600):
        info = (await store.client.command(5, "INFO", "replication")).decode()
        reply = (await sentinel.client.command(5, "INFO", "sentinel")).decode()
        written = re.search(r"master_repl_offset:(\d+)", info)
        replicated = re.search(r"state=online,offset=(\d+)", info)
        if written and replicated and written[1] == replicated[1] and "slaves=1" in reply:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the replica does not have everything")


async def elected(
    store: RedisStore, role: str, holder: str, beats: Iterator[int], refusals: set[str]
) -> Lease:
    """Claim until the claim is applied, and return the lease. Why it was refused is collected."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE
    while loop.time() < deadline:
        result = await store.claim(Claim(role, holder, next(beats), TTL, skew=0.0), 20)
        if isinstance(result, Answer) and result.applied:
            return result.lease
        refusals.add(result.detail if isinstance(result, Failure) else str(result.lease))
        await asyncio.sleep(0.1)
    raise AssertionError(f"nobody was elected: {refusals}")


def test_the_replica_elects_once_a_lost_lease_has_expired(
    servers: tuple[Server, Server, Sentinel],
) -> None:
    primary, replica, sentinel = servers
    set_up(primary.url("epochs"), TTL)
    beats = iter(range(1, 100_000))

    async def body() -> None:
        direct = RedisStore(primary.url("epochs"))
        watcher = RedisStore(f"redis://127.0.0.1:{sentinel.port}")
        store = RedisStore(f"redis+sentinel://127.0.0.1:{sentinel.port}/billing?namespace=epochs")
        try:
            await until_replicated(direct, watcher)
            token = (await elected(store, "role", "a", beats, set())).token
            (renewed,) = await store.renew([Renew("role", "a", token, next(beats), TTL)], 5)
            assert isinstance(renewed, Answer)
            assert renewed.applied
            refusals = set[str]()
            await asyncio.to_thread(primary.kill)
            setting = ("down-after-milliseconds", 500)
            await watcher.client.command(5, "SENTINEL", "SET", "billing", *setting)
            # Nobody holds this role, so the first claim that reaches the new primary begins its
            # epoch, and nothing but the epoch can refuse it.
            other = await elected(store, "other", "b", beats, refusals)
            assert any("elects nobody for another" in refusal for refusal in refusals), refusals
            later = await elected(store, "role", "b", beats, set())
            # Above every token of the old primary, and not before the longest lease that it can
            # have granted has expired.
            for lease in (other, later):
                assert lease.token > token + 2**20
                assert lease.renewed_at >= renewed.lease.renewed_at + TTL
            assert (await store.client.primary()).port == replica.port
        finally:
            for opened in (direct, watcher, store):
                await opened.close()

    asyncio.run(asyncio.wait_for(body(), 200))
