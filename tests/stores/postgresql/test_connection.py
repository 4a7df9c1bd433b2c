"""Servers that are killed, frozen, silent or standbys: what is unknown then, and how long it
takes."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import time
from typing import Any

import pytest

from coord.core.operations import Claim, Renew
from coord.errors import AccessDenied, StoreRefused, StoreUnavailable
from coord.stores.failures import RequestError
from coord.stores.postgresql import PostgreSQLStore, admin, connection, parse_url
from coord.stores.postgresql.connection import Connection, Pool
from coord.stores.postgresql.errors import ConnectionLost
from coord.stores.postgresql.feed import LeaseFeed
from tests.stores.postgresql.kit import answered, execute, failed, opened, run, schema_of
from tests.support.postgresql_server import Server
from tests.support.store_urls import new_schema


def test_killed_and_back(own_postgresql_server: Server) -> None:
    url = new_schema(own_postgresql_server)

    async def body() -> None:
        async with opened(url) as store:
            assert answered(await store.claim(Claim("role", "a", 1, 30.0), 5)).applied
            feed: Any = store.watch(["role"])
            assert (await anext(feed)).token == 1
            assert store._notifying is not None
            await store._notifying  # so that a connection is free, on which the claim is sent
            own_postgresql_server.freeze()
            request = asyncio.ensure_future(store.claim(Claim("lost", "a", 1, 30.0), 30))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(own_postgresql_server.kill)
            lost = failed(await request)
            assert (lost.unknown, lost.permanent) == (True, False)
            with pytest.raises(StoreUnavailable, match="feed broke off"):
                await anext(feed)
            unsent = failed(await store.claim(Claim("unsent", "a", 1, 30.0), 5))
            assert (unsent.unknown, unsent.permanent) == (False, False)
            with pytest.raises(StoreUnavailable):
                await store.read(None, 0.5)
            await asyncio.to_thread(own_postgresql_server.start)
            (row,) = await store.read(["role"], 20)
            assert row.token == 1
            assert answered((await store.renew([Renew("role", "a", 1, 2, 30.0)], 5))[0]).applied

    run(body)


def test_frozen(own_postgresql_server: Server) -> None:
    url = new_schema(own_postgresql_server)

    async def body() -> None:
        async with opened(url) as store:
            roles = [f"role {n}" for n in range(9)]
            for role in roles:
                assert answered(await store.claim(Claim(role, "a", 1, 30.0), 5)).applied
            own_postgresql_server.freeze()
            began = time.monotonic()
            late = asyncio.ensure_future(store.claim(Claim("late", "a", 1, 30.0), 0.3))
            reading = asyncio.ensure_future(store.read(roles, 0.4))
            renewals = [Renew(role, "a", 1, 2, 30.0) for role in roles]
            for result in [*await store.renew(renewals, 0.5), await late]:
                failure = failed(result)
                assert not failure.permanent
            with pytest.raises(StoreUnavailable):
                await reading
            assert time.monotonic() - began < 5
            own_postgresql_server.thaw()
            assert len(await store.read(roles, 20)) == 9

    run(body)


def test_closing_is_quick_while_the_server_hangs(own_postgresql_server: Server) -> None:
    url = new_schema(own_postgresql_server)

    async def body() -> None:
        async with opened(url) as store:
            await store.open(5)
            feed: Any = store.watch(None)
            waiting = asyncio.ensure_future(anext(feed))
            await asyncio.sleep(0.2)
            own_postgresql_server.freeze()
            request = asyncio.ensure_future(store.claim(Claim("role", "a", 1, 30.0), 30))
            await asyncio.sleep(0.05)
            began = time.monotonic()
            await store.close()
            assert time.monotonic() - began < 3
            assert failed(await request).unknown
            with pytest.raises(StoreUnavailable):
                await waiting
        own_postgresql_server.thaw()

    run(body)


def test_a_cancelled_claim_sends_no_cancel_request(url: str) -> None:
    """Its connection is closed. A cancel request would end the wait for a standby with success."""

    async def body() -> None:
        async with opened(url) as store:
            await store.open(5)
            lock = await store.pool.open(5)
            await lock.raw.execute(f"BEGIN; LOCK TABLE {schema_of(url)}.leases IN SHARE MODE")
            request = asyncio.ensure_future(store.claim(Claim("role", "a", 1, 30.0), 20))
            await asyncio.sleep(0.3)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
            late = failed(await store.claim(Claim("other", "a", 1, 30.0), 0.3))
            assert late.unknown
            await lock.raw.execute("COMMIT")
            # The server goes on with what was given up: it was never cancelled.
            for _ in range(200):
                if len(await store.read(["role", "other"], 5)) == 2:
                    return
                await asyncio.sleep(0.05)
            raise AssertionError("the claims were cancelled")

    run(body)


def test_a_warning_makes_an_answer_unknown(url: str) -> None:
    """As when a commit was not replicated."""
    warn = "DO $$ BEGIN RAISE WARNING 'not replicated'; END $$"

    async def body() -> None:
        async with opened(url) as store:
            with pytest.raises(RequestError) as caught:
                await store.pool.run(warn, (), 5)
            assert (caught.value.unknown, type(caught.value)) == (True, ConnectionLost)
            await store.pool.run(warn.replace("WARNING", "NOTICE"), (), 5)

    run(body)


def test_hosts_that_do_not_answer_and_a_standby(own_postgresql_server: Server) -> None:
    """One refuses, one accepts and stays silent. The first that takes writes is used."""
    url = new_schema(own_postgresql_server)

    async def body() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            hosts = f"127.0.0.1:1,127.0.0.1:{silent.getsockname()[1]},"
            several = url.replace("@", f"@{hosts}")
            async with opened(several) as store:
                began = time.monotonic()
                await store.open(20)
                assert time.monotonic() - began < 8
            alone = url.replace(f":{own_postgresql_server.port}", f":{silent.getsockname()[1]}")
            async with opened(alone) as store:
                late = failed(await store.claim(Claim("role", "a", 1, 5.0), 0.3))
                assert (late.unknown, "in time" in late.detail) == (False, True)
        refused = url.replace(f":{own_postgresql_server.port}", ":1")
        async with opened(refused) as store:
            unsent = failed(await store.claim(Claim("role", "a", 1, 5.0), 5))
            assert (unsent.unknown, unsent.permanent) == (False, False)
            assert "cannot connect to 127.0.0.1:1" in unsent.detail

    run(body)
    execute(url, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")

    async def on_a_standby() -> None:
        async with opened(url) as store:
            for _ in range(100):  # the setting needs a moment
                result = await store.claim(Claim("role", "b", 1, 5.0), 5)
                if not hasattr(result, "lease"):
                    break
                await asyncio.sleep(0.05)
            assert (failed(result).unknown, failed(result).permanent) == (False, False)
            assert "standby" in failed(result).detail

    run(on_a_standby)


def test_a_server_that_is_no_postgresql(own_postgresql_server: Server) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    async def body() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with opened(f"postgresql://u:geheim@127.0.0.1:{port}/db") as store:
            result = failed(await store.claim(Claim("role", "a", 1, 5.0), 2))
            assert not result.unknown
            assert "geheim" not in result.detail
        server.close()

    run(body)


SECRET = "geheim"


def test_no_error_holds_a_row_or_a_password(url: str) -> None:
    execute(url, f"ALTER TABLE {schema_of(url)}.leases ADD CHECK (info NOT LIKE '%{SECRET}%')")

    async def body() -> None:
        async with opened(url) as store:
            claim = Claim(SECRET, SECRET, 1, 30.0, info={SECRET: SECRET})
            result = failed(await store.claim(claim, 5))
            assert (result.unknown, result.permanent) == (False, True)
            assert SECRET not in repr(result)
            assert answered(await store.claim(Claim("role", "a", 1, 30.0), 5)).applied
        wrong = url.replace("postgres@", f"nobody:{SECRET}@")
        async with opened(wrong) as store:
            with pytest.raises(AccessDenied) as caught:
                await store.open(5)
            assert SECRET not in f"{caught.value!r} {store!r} {store.url}"

    run(body)


def test_a_store_goes_from_loop_to_loop(url: str) -> None:
    store = PostgreSQLStore(url)
    for number in range(3):

        async def claim(beat: int) -> bool:
            return answered(await store.claim(Claim("role", "a", beat, 30.0), 5)).applied

        assert asyncio.run(claim(number + 1))  # and no loop closes the store

    async def close() -> None:
        await store.close()
        await store.close()

    asyncio.run(close())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_leaves_the_parents_connections_alone(url: str) -> None:
    async def body() -> None:
        async with opened(url) as store:
            await store.open(5)
            feed: Any = store.watch(["role"])
            first = asyncio.ensure_future(anext(feed))
            await asyncio.sleep(0.2)
            pid = os.fork()
            if pid == 0:
                store.abandon()
                os._exit(0 if not store.pool._all else 1)
            _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            assert answered(await store.claim(Claim("role", "a", 1, 30.0), 5)).applied
            assert (await asyncio.wait_for(first, 10)).holder == "a"
            await feed.aclose()

    run(body)


def test_the_driver_is_not_imported_before_it_is_needed() -> None:
    import subprocess

    code = (
        "import sys; from coord.stores import postgresql as p;"
        "p.open_url('postgresql://h/d'); p.admin('postgres://h/d');"
        "assert 'asyncpg' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_driver_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    connection.driver.cache_clear()
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    try:

        async def body() -> None:
            async with opened("postgresql://127.0.0.1:1/db") as store:
                with pytest.raises(StoreRefused, match="pip install"):
                    await store.open(5)
                result = failed(await store.claim(Claim("role", "a", 1, 5.0), 5))
                assert (result.unknown, result.permanent) == (False, True)
            (finding,) = await admin("postgresql://127.0.0.1:1/db").check(5)
            assert finding.level == "error"

        run(body)
    finally:
        connection.driver.cache_clear()


def test_connections_are_shared_and_few(url: str) -> None:
    async def body() -> None:
        async with opened(url) as store:
            claims = [store.claim(Claim(f"role {n}", "a", 1, 30.0), 20) for n in range(60)]
            for result in await asyncio.gather(*claims):
                assert answered(result).applied
            assert len(store.pool._all) <= connection.MAX_CONNECTIONS
            assert store._notifying is not None
            await store._notifying
            assert len(store.pool._idle) == len(store.pool._all)

    run(body)


def test_an_attempt_to_connect_that_is_cancelled_leaves_nothing_to_report(url: str) -> None:
    """asyncpg leaves a future with an exception behind, if the attempt is cancelled just when the
    server has accepted the connection; so it is cancelled after each number of loop iterations."""

    async def body() -> list[dict[str, Any]]:
        reports: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        for iterations in range(40):
            pool = Pool(parse_url(url))
            opening = asyncio.ensure_future(pool.open(10))
            for _ in range(iterations):
                await asyncio.sleep(0)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            await pool.close()
            await asyncio.sleep(0.001)
        gc.collect()
        await asyncio.sleep(0.01)
        return reports

    assert run(body) == []


def test_a_future_of_the_driver_leaves_nothing_to_report_when_its_loop_has_ended(url: str) -> None:
    """asyncpg sets the exception of its futures when a connection is terminated. The loop may end
    before anybody looks at it, and then asyncio reported it when the future was deleted."""
    reports: list[dict[str, Any]] = []

    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        pool = Pool(parse_url(url))
        raw = (await pool.open(10)).raw
        lost, cancelled = raw._loop.create_future(), raw._loop.create_future()
        try:
            cancelled.cancel()
            cancelled.set_result(True)  # asyncpg 0.31 does so if an attempt to connect is cancelled
            cancelled.set_exception(OSError())
            await pool.close()
            await asyncio.sleep(0.01)
            lost.set_exception(ConnectionError("connection was closed in the middle of operation"))
        finally:
            asyncio.get_running_loop().stop()

    loop = asyncio.new_event_loop()
    task = loop.create_task(body())
    loop.run_forever()
    loop.close()
    assert task.done()
    assert task.exception() is None
    del task
    gc.collect()
    assert reports == []


def test_an_old_attempt_that_succeeds_just_when_another_request_begins_is_used(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ATTEMPT_LIFETIME", 0.0)

    async def body() -> None:
        pool = Pool(parse_url(url))
        open_one, go_on = pool.open, asyncio.Event()
        taken: asyncio.Future[asyncio.Task[Connection]] = asyncio.Future()

        async def open_late(timeout: float) -> Connection:
            await go_on.wait()
            made = await open_one(timeout)
            # It runs after the attempt has ended, and before the attempt's callbacks.
            asyncio.get_running_loop().call_soon(lambda: taken.set_result(pool._attempt()[0]))
            return made

        monkeypatch.setattr(pool, "open", open_late)
        with pytest.raises(RequestError, match="no connection"):
            await pool.run("SELECT 1", (), 0.01)
        go_on.set()
        used = await (await taken)
        assert {used} == pool._all, "no connection is left that nobody uses"
        await pool.close()

    run(body)


def test_a_feed_that_is_cancelled_while_it_begins_to_listen_leaves_nothing_to_report() -> None:
    class Raw:
        """A connection that is closed while it registers the listener."""

        def __init__(self) -> None:
            self.closed = asyncio.Event()

        def add_termination_listener(self, _: object) -> None: ...

        def add_log_listener(self, _: object) -> None: ...

        async def add_listener(self, *_: object) -> None:
            await self.closed.wait()
            raise AttributeError("'NoneType' object has no attribute 'add'")

        def terminate(self) -> None:
            self.closed.set()

    async def body() -> list[dict[str, Any]]:
        reports: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        connection = Connection(Raw())
        feed = LeaseFeed(Pool(parse_url("postgresql://localhost/x")), None)
        listening = asyncio.ensure_future(feed._listen(connection))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        connection.terminate()
        for _ in range(5):
            await asyncio.sleep(0)
        gc.collect()
        return reports

    assert run(body) == []
