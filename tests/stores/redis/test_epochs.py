"""Tokens never fall and are never given twice, whatever a Redis server loses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from coord.core.operations import Answer, Claim, Failure, Release, Renew, Result
from coord.errors import NotSetUp, StoreUnavailable
from coord.stores.redis import RedisStore, admin
from tests.support import redis_server as servers
from tests.support.redis_server import Server

TTL = 2.0


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisStore]:
    store = RedisStore(url)
    try:
        yield store
    finally:
        await store.close()


def answered(result: Result) -> Answer:
    assert isinstance(result, Answer), result
    return result


async def elected(
    store: RedisStore, holder: str, beat: int, role: str = "r", ttl: float = TTL
) -> int:
    """The token of a claim, which is tried until it is applied."""
    for _ in range(600):
        result = await store.claim(Claim(role, holder, beat, ttl, skew=0.0), 5)
        if isinstance(result, Answer) and result.applied:
            return result.lease.token
        await asyncio.sleep(0.05)
    raise AssertionError(result)


async def give_back(store: RedisStore, holder: str, token: int, beat: int) -> None:
    assert answered(await store.release(Release("r", holder, token, beat), 5)).applied


def set_up(server: Server, longest_ttl: float = TTL) -> str:
    return servers.set_up(server.url("epochs"), longest_ttl)


def test_a_restart_begins_an_epoch_with_higher_tokens(own_redis_server: Server) -> None:
    url = set_up(own_redis_server)

    async def body() -> None:
        async with opened(url) as store:
            assert await elected(store, "a", 1) == 1
            await give_back(store, "a", 1, 2)
            await asyncio.to_thread(own_redis_server.restart)
            loop = asyncio.get_running_loop()
            began = loop.time()
            first = await store.claim(Claim("r", "b", 1, TTL), 5)
            assert isinstance(first, Failure)
            assert not first.unknown
            assert not first.permanent
            assert "elects nobody for another" in first.detail
            assert await elected(store, "b", 2) > 2**20
            assert loop.time() - began > TTL * 0.9  # a lease that was lost has expired by now

    asyncio.run(body())


def test_the_holder_goes_on_through_a_restart(own_redis_server: Server) -> None:
    # Nobody is elected for so long after the restart: longer than the requests below can take.
    url = set_up(own_redis_server, 600)

    async def body() -> None:
        async with opened(url) as store:
            token = await elected(store, "a", 1)
            await asyncio.to_thread(own_redis_server.restart)
            (renewed,) = await store.renew([Renew("r", "a", token, 2, TTL)], 10)
            assert answered(renewed).applied
            # A claim of its own has to wait, too: in what was lost it may have released the role.
            assert isinstance(await store.claim(Claim("r", "a", 3, TTL), 5), Failure)
            await asyncio.sleep(TTL / 2)
            (renewed,) = await store.renew([Renew("r", "a", token, 4, TTL)], 10)
            assert answered(renewed).applied

    asyncio.run(body())


def test_a_promoted_replica_never_gives_a_token_again(own_redis_server: Server) -> None:
    """The replica did not hear of the last claims: its tokens are above those all the same."""
    url = set_up(own_redis_server)
    with Server("--replicaof", f"127.0.0.1 {own_redis_server.port}") as replica:

        async def body() -> None:
            async with opened(url) as store, opened(replica.url("epochs")) as other:
                token = await elected(store, "a", 1)
                for _ in range(200):
                    if await other.client.command(5, "EXISTS", "{coord:epochs}:l:r"):
                        break
                    await asyncio.sleep(0.05)
                replica.freeze()  # it hears nothing of what follows
                tokens = {token}
                for beat in range(2, 40, 2):
                    await give_back(store, "a", token, beat)
                    token = await elected(store, "a", beat + 1)
                    tokens.add(token)
                own_redis_server.kill()
                replica.thaw()
                refused = await other.claim(Claim("r", "b", 1, TTL), 5)
                assert isinstance(refused, Failure)
                assert "READONLY" in refused.detail
                with pytest.raises(StoreUnavailable, match="replica"):
                    await other.read(["r"], 1)
                await other.client.command(5, "REPLICAOF", "NO", "ONE")
                later = await elected(other, "b", 1)
                assert later > max(tokens)

        asyncio.run(body())


@pytest.mark.parametrize("loss", ["FLUSHALL", "an empty data directory"])
def test_a_server_that_lost_everything_elects_nobody(own_redis_server: Server, loss: str) -> None:
    url = set_up(own_redis_server)

    async def body() -> None:
        async with opened(url) as store:
            await elected(store, "a", 1)
            if loss == "FLUSHALL":
                await store.client.command(5, "FLUSHALL")
            else:
                await asyncio.to_thread(own_redis_server.kill)
                for path in own_redis_server.directory.glob("append*/*"):
                    path.unlink()
                await asyncio.to_thread(own_redis_server.start)
            result = await store.claim(Claim("r", "b", 1, TTL), 5)
            assert isinstance(result, Failure)
            assert result.permanent
            assert "coord init" in result.detail
            (renewal,) = await store.renew([Renew("r", "a", 1, 2, TTL)], 5)
            assert isinstance(renewal, Failure)
            with pytest.raises(NotSetUp):
                await store.read(["r"], 5)

    asyncio.run(body())


def test_a_greater_ttl_than_any_before_is_stored_first(own_redis_server: Server) -> None:
    """The quiet time of the next epoch must be as long as any lease that may be lost."""
    url = set_up(own_redis_server)

    async def body() -> None:
        async with opened(url) as store:
            assert await elected(store, "a", 1) == 1
            loop = asyncio.get_running_loop()
            began = loop.time()
            longer = Claim("other", "a", 1, 2 * TTL)
            first = await store.claim(longer, 5)
            assert isinstance(first, Failure)
            assert (first.unknown, first.permanent) == (False, False)
            assert "greater ttl than any before" in first.detail
            # For the two renewals it was stored just now, however long they take.
            meta = "{coord:epochs}:meta"
            raised = int(await store.client.command(5, "HGET", meta, "raised"))
            await store.client.command(5, "HSET", meta, "raised", raised + 600_000_000)
            (renewal,) = await store.renew([Renew("r", "a", 1, 2, 2 * TTL)], 5)
            assert isinstance(renewal, Failure)
            (renewal,) = await store.renew([Renew("r", "a", 1, 3, TTL)], 5)
            assert answered(renewal).applied  # the lease as it was goes on
            await store.client.command(5, "HSET", meta, "raised", raised)
            assert await elected(store, "a", 2, role="other", ttl=2 * TTL) == 1
            assert loop.time() - began > 1.8
            assert answered(await store.claim(Claim("third", "a", 1, 2 * TTL), 5)).applied

    asyncio.run(body())


def test_init_keeps_what_is_there(own_redis_server: Server) -> None:
    url = set_up(own_redis_server)

    async def body() -> None:
        async with opened(url) as store:
            token = await elected(store, "a", 1)
            for _ in range(3):
                assert await admin(url).setup({}, 10) == []
            await give_back(store, "a", token, 2)
            assert await elected(store, "b", 1) == token + 1

    asyncio.run(body())


def test_a_raised_floor_holds_for_roles_that_do_not_exist_yet(own_redis_server: Server) -> None:
    url = set_up(own_redis_server)

    async def body() -> None:
        async with opened(url) as store:
            await elected(store, "a", 1)
            assert await admin(url).raise_token_floor(1_000, ["known"], 10) == 2
            (renewal,) = await store.renew([Renew("r", "a", 1, 2, TTL)], 5)
            assert not answered(renewal).applied  # the token of its term is not the row's any more
            assert await elected(store, "b", 1, role="known") == 1_001
            assert await elected(store, "b", 1, role="new") == 1_001
            assert await admin(url).raise_token_floor(1_000, ["known"], 10) == 0

    asyncio.run(body())
