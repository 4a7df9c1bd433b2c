"""A Redis server that is slow, frozen, dead, full or forbids something."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from typing import Any

import pytest

from coord.core.operations import Answer, Claim, Failure, Renew, Result
from coord.errors import AccessDenied, BadArgument, StoreUnavailable
from coord.stores.failures import RequestError
from coord.stores.redis import RedisStore, admin, parse_url
from coord.stores.redis import feed as redis_feed
from coord.stores.redis.connection import Client, Connection, Word
from coord.stores.redis.rows import Keys
from tests.support import redis_server as servers
from tests.support.redis_server import Server
from tests.support.refused_calls import check_refusals


def failed(result: Result) -> Failure:
    assert isinstance(result, Failure), result
    return result


def set_up(server: Server, who: str = "") -> str:
    return servers.set_up(server.url("connection", who), 60.0)


def test_frozen(own_redis_server: Server) -> None:
    url = set_up(own_redis_server)

    async def body() -> None:
        store = RedisStore(url)
        try:
            assert isinstance(await store.claim(Claim("r", "a", 1, 30.0), 5), Answer)
            await store.renew([Renew("r", "a", 1, 2, 30.0)], 5)  # the server knows the scripts now
            own_redis_server.freeze()
            late = asyncio.ensure_future(store.claim(Claim("late", "a", 1, 30.0), 0.3))
            renewal = asyncio.ensure_future(store.renew([Renew("r", "a", 1, 3, 30.0)], 0.3))
            assert failed(await late).unknown
            assert failed((await renewal)[0]).unknown
            with pytest.raises(StoreUnavailable):
                await store.read(["r"], 0.3)
            own_redis_server.thaw()
            # The late claim was applied; the answers of the old connection disturb nobody.
            for _ in range(100):
                (lease,) = await store.read(["late"], 10) or [None]
                if lease is not None:
                    break
                await asyncio.sleep(0.05)
            assert lease is not None
            assert lease.holder == "a"
            (kept,) = await store.read(["r"], 10)
            assert (kept.role, kept.beat) == ("r", 3)
        finally:
            await store.close()

    asyncio.run(body())


def test_a_feed_that_is_cancelled_as_it_connects_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cancellation arrives together with the connection, as it may on a busy machine."""

    class Driver:
        async def send_command(self, *_: object, **__: object) -> None:
            await asyncio.Event().wait()

        async def disconnect(self, **_: object) -> None: ...

    async def body() -> None:
        opened = asyncio.get_running_loop().create_future()

        async def open_driver(*_: object) -> None:
            await opened

        monkeypatch.setattr(redis_feed, "make_driver", lambda *_: Driver())
        monkeypatch.setattr(redis_feed, "open_driver", open_driver)
        client = Client(parse_url("redis://127.0.0.1:1/0"))

        async def follow() -> None:
            async for _ in redis_feed.subscribe(client, ["channel"], ""):
                pass

        feed = asyncio.ensure_future(follow())
        await asyncio.sleep(0.01)
        opened.set_result(None)
        await asyncio.sleep(0)  # what waits for the connection has not gone on yet
        feed.cancel()
        done, _ = await asyncio.wait({feed}, timeout=5)
        assert done, "the feed goes on, and its close waits for it"

    asyncio.run(body())


def test_nothing_is_sent_once_the_connection_has_ended() -> None:
    """The server closes the connection at the moment at which a swap is sent."""

    async def body() -> None:
        received: list[bytes] = []
        connections: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(writer)
            while data := await reader.read(4096):
                received.append(data)
                writer.write(b"+OK\r\n")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = Client(parse_url(f"redis://127.0.0.1:{port}"))
        loop = asyncio.get_running_loop()
        try:
            connection = await client.connection(loop.time() + 20)
            assert await asyncio.wait_for(connection.send([("PING",)])[0], 20) == b"OK"
            connection._driver._reader.feed_eof()  # type: ignore[attr-defined]  # the driver's own
            (answer,) = connection.send([("SWAP",)])
            with pytest.raises(RequestError) as failure:
                await asyncio.wait_for(answer, 20)
            assert failure.value.unknown
            await asyncio.sleep(0.05)  # a connection that is opened now arrives
            assert len(connections) == 1
            assert not any(b"SWAP" in data for data in received)
        finally:
            await client.close()
            server.close()

    asyncio.run(body())


def test_killed_and_back(own_redis_server: Server) -> None:
    url = set_up(own_redis_server)

    async def body() -> None:
        store = RedisStore(url)
        try:
            assert isinstance(await store.claim(Claim("kept", "a", 1, 30.0), 5), Answer)
            feed = store.watch(["kept"])
            assert (await feed.__anext__()).token == 1
            own_redis_server.freeze()  # so that the claim is on its way when the server dies
            claim = asyncio.ensure_future(store.claim(Claim("lost", "a", 1, 30.0), 20))
            await asyncio.sleep(0.1)
            own_redis_server.kill()
            lost = failed(await claim)
            assert (lost.unknown, lost.permanent) == (True, False)
            with pytest.raises(StoreUnavailable):
                await feed.__anext__()
            unsent = failed(await store.claim(Claim("unsent", "a", 1, 30.0), 0.5))
            assert (unsent.unknown, unsent.permanent) == (False, False)
            own_redis_server.start()
            (kept,) = await store.read(["kept"], 20)
            assert (kept.holder, kept.token) == ("a", 1)
        finally:
            await store.close()

    asyncio.run(body())


def test_a_cancelled_request_leaves_the_others_their_answers(own_redis_server: Server) -> None:
    url = set_up(own_redis_server)

    async def body() -> None:
        store = RedisStore(url)
        try:
            await store.read(["r"], 5)
            claims = [
                asyncio.ensure_future(store.claim(Claim(f"r{n}", f"h{n}", 1, 30.0), 5))
                for n in range(50)
            ]
            await asyncio.sleep(0)
            for claim in claims[::2]:
                claim.cancel()
            results = await asyncio.gather(*claims, return_exceptions=True)
            for number, result in enumerate(results):
                if number % 2:
                    assert isinstance(result, Answer)
                    assert (result.lease.role, result.lease.holder) == (f"r{number}", f"h{number}")
        finally:
            await store.close()

    asyncio.run(body())


def test_a_slow_script_is_not_repeated(own_redis_server: Server) -> None:
    """The driver would repeat a command that got no answer in time; a claim may not be."""
    url = set_up(own_redis_server)

    async def body() -> None:
        store = RedisStore(url)
        try:
            slow = (
                "redis.call('INCR', KEYS[1]) local n = 0 "
                "for i = 1, 60000000 do n = n + i end return n"
            )
            with contextlib.suppress(Exception):
                await store.client.command(0.05, "EVAL", slow, 1, "{coord:connection}:count")
            for _ in range(200):
                with contextlib.suppress(Exception):
                    count = await store.client.command(5, "GET", "{coord:connection}:count")
                    break
                await asyncio.sleep(0.1)
            assert count == b"1"
        finally:
            await store.close()

    asyncio.run(body())


def test_a_full_server_changes_nothing(own_redis_server: Server) -> None:
    url = set_up(own_redis_server)

    async def body() -> None:
        store = RedisStore(url)
        try:
            await store.client.command(5, "CONFIG", "SET", "maxmemory", "1mb")
            result = failed(await store.claim(Claim("r", "a", 1, 30.0), 5))
            assert (result.unknown, result.permanent) == (False, False)
            assert "OOM" in result.detail
            await store.client.command(5, "CONFIG", "SET", "maxmemory", "0")
            assert await store.read(["r"], 5) == []
            findings = await admin(url).check(5)
            assert {finding.level for finding in findings} == {"ok"}, findings
        finally:
            await store.close()

    asyncio.run(body())


def test_a_wrong_password_and_missing_rights(own_redis_server: Server) -> None:
    password = secrets.token_hex(8)
    url = set_up(own_redis_server)

    async def body() -> None:
        operator = RedisStore(url)
        keys = "{coord:connection}:"
        rights = (
            f"~{keys}* &{keys}f:* +eval +evalsha +hmget +hset +hget +hdel +del +exists +rpush "
            "+ltrim +lset +lindex +lrange +sadd +srem +smembers +zadd +zrem +zcount "
            "+zrangebyscore +time +info +publish +subscribe +psubscribe +ping +select"
        )
        await operator.client.command(
            5, "ACL", "SETUSER", "app", "on", f">{password}", *rights.split()
        )
        await operator.close()
        with_rights = RedisStore(own_redis_server.url("connection", f"app:{password}@"))
        result = await with_rights.claim(Claim("r", "a", 1, 30.0), 5)
        assert isinstance(result, Answer), result
        board, records = with_rights.announcements(), with_rights.records("services")
        assert await board.read(None, 5) == []
        assert await records.healthy(None, 5) == []
        feed = with_rights.watch(["r"])
        assert (await feed.__anext__()).holder == "a"
        await feed.aclose()  # type: ignore[attr-defined] # it is a generator
        await with_rights.close()

        elsewhere_url = own_redis_server.url("other", f"app:{password}@")
        elsewhere = RedisStore(elsewhere_url)
        denied = failed(await elsewhere.claim(Claim("r", "a", 1, 30.0), 5))
        assert denied.refusal is AccessDenied
        await elsewhere.close()
        await check_refusals(elsewhere_url)

        wrong = RedisStore(own_redis_server.url("connection", "app:not-the-password@"))
        with pytest.raises(AccessDenied) as error:
            await wrong.read(["r"], 5)
        assert "not-the-password" not in str(error.value)
        assert "not-the-password" not in repr(wrong)
        await wrong.close()

    asyncio.run(body())


def test_a_damaged_row_is_refused_and_stops_no_other(own_redis_server: Server) -> None:
    url = set_up(own_redis_server)

    async def body() -> None:
        store = RedisStore(url)
        try:
            for role in ("bad", "good"):
                assert isinstance(await store.claim(Claim(role, "a", 1, 30.0), 5), Answer)
            await store.client.command(5, "HSET", "{coord:connection}:l:bad", "t", "many")
            bad = failed(await store.claim(Claim("bad", "b", 1, 30.0), 5))
            assert bad.permanent
            assert "'bad' is damaged" in bad.detail
            results = await store.renew(
                [Renew("bad", "a", 1, 2, 30.0), Renew("good", "a", 1, 2, 30.0)], 5
            )
            assert failed(results[0]).permanent
            assert isinstance(results[1], Answer)
            assert results[1].applied
        finally:
            await store.close()

    asyncio.run(body())


def test_each_swap_of_a_batch_has_its_own_result(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They leave in one write. What the server refuses costs the others nothing."""

    async def body() -> None:
        store = RedisStore(url)
        try:
            await store.claim(Claim("r0", "a", 1, 30.0), 5)  # the server knows the script now
            await store.client.command(5, "LPUSH", Keys(parse_url(url)).lease("r2"), "no lease")
            writes = list[int]()
            send = Connection.send

            def counted(
                connection: Connection, commands: Sequence[Sequence[Word]]
            ) -> list[asyncio.Future[Any]]:
                writes.append(len(commands))
                return send(connection, commands)

            monkeypatch.setattr(Connection, "send", counted)
            claims = [Claim(f"r{number}", "a", 1, 30.0) for number in range(1, 5)]
            first, refused, *others = await store.swap_all(claims, 5)
            assert writes == [4]
            assert isinstance(refused, Failure), refused
            assert all(isinstance(result, Answer) and result.applied for result in (first, *others))
            assert await store.swap_all([], 5) == []
        finally:
            await store.close()

    asyncio.run(body())


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://", "must have a host"),
        ("redis://a,b", "several sentinels"),
        ("redis://host:99999", "ports from 1 to 65535"),
        ("redis://host/x", "number of a database"),
        ("redis://host/0?namespace=a{b}", "namespace of 1 to 100"),
        ("redis://host?max_clock_skew=-1", "max_clock_skew"),
        ("redis://host?ca_certs=/etc/passwd", "rediss://"),
        ("redis://host?unknown=1", "the options are"),
        ("redis://u:p#w@host", "percent-encoded as %23"),
        ("redis+sentinel://host", "name the service"),
        ("redis://@host", "a user or a password"),
    ],
)
def test_invalid_urls(url: str, reason: str) -> None:
    with pytest.raises(BadArgument, match=reason):
        RedisStore(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:PASSWORD@host/x",
        "redis://u:PASS/WORD@host",
        "redis://u:PASSWORD",
        "redis://u:a?PASSWORD",
        "redis://:PASSWORD@host:0",
        "redis://u:PASSWORD@host?unknown=1",
    ],
)
def test_no_error_shows_a_password(url: str) -> None:
    with pytest.raises(BadArgument) as error:
        RedisStore(url)
    assert "PASS" not in str(error.value)
    assert "WORD" not in str(error.value)


def test_the_url_is_shown_without_its_password() -> None:
    store = RedisStore("rediss+sentinel://u:PW@a,[::1]:5/main/3?namespace=n&max_clock_skew=off")
    shown = "rediss+sentinel://u:***@a:26379,[::1]:5/main/3?namespace=n&max_clock_skew=off"
    assert store.url == shown
    assert RedisStore(shown.replace("***", "other")).url == shown
