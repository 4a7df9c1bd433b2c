"""Servers that are killed, frozen, replaced, secured; what is unknown then, and that no answer is
taken for another."""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coord.core.lease import MAX_TOKEN, PAUSED, Revision
from coord.core.operations import Claim, Failure, Override, Read, Release, Renew
from coord.errors import StoreRefused, StoreUnavailable
from coord.stores.failures import RequestError
from coord.stores.requests import discard
from coord.stores.rethinkdb import RethinkDBStore, driver, parse_url
from coord.stores.rethinkdb import store as store_module
from coord.stores.rethinkdb.connection import Connection
from coord.stores.rethinkdb.driver import InlineTemplate
from coord.stores.rethinkdb.pool import Deadline
from coord.stores.rethinkdb.setup import set_up
from tests.stores.rethinkdb.kit import answered, ask, db, failed, opened, r, run
from tests.support import requirements
from tests.support.certificates import Authority
from tests.support.rethinkdb_server import Cluster, Server, tls_options


@pytest.fixture
def server(own_server: Server) -> Server:
    run(lambda: set_up(own_server.url()))
    return own_server


def test_the_import_of_the_driver_takes_no_time_of_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a busy machine the import took all of the five seconds in which `coord watch` connects."""
    imported = []

    class Watched(Deadline):
        def __init__(self, timeout: float) -> None:
            imported.append("_queries" in vars(store))
            super().__init__(timeout)

    monkeypatch.setattr(store_module, "Deadline", Watched)
    url = parse_url("rethinkdb://127.0.0.1:1/db")
    store = RethinkDBStore(url)
    with pytest.raises(StoreUnavailable):
        run(lambda: store.open(0.05))
    store = RethinkDBStore(url)
    pause = Override("job", Revision(None, 0, 0), PAUSED, 1, 5.0)
    assert isinstance(run(lambda: store.override(pause, 0.05)), Failure)
    assert imported == [True, True]


async def until_applied(store: RethinkDBStore, claim: Claim) -> None:
    for _ in range(200):
        result = await store.claim(claim, 2)
        if not hasattr(result, "unknown") and result.applied:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(result)


def test_killed_and_back(server: Server) -> None:
    async def body() -> None:
        async with opened(server.url()) as store:
            assert answered(await store.claim(Claim("kept", "a", 1, 30.0), 5)).applied
            feed = store.watch(["kept"])
            assert (await feed.__anext__()).token == 1
            server.freeze()  # so that the claim is on its way when the server dies
            request = asyncio.ensure_future(store.claim(Claim("lost", "a", 1, 30.0), 20))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.kill)
            lost = failed(await request)
            assert (lost.unknown, lost.permanent) == (True, False)
            with pytest.raises(StoreUnavailable, match="feed broke off"):
                await feed.__anext__()
            begun = time.monotonic()
            unsent = failed(await store.claim(Claim("unsent", "a", 1, 30.0), 5))
            assert (unsent.unknown, unsent.permanent) == (False, False)
            assert "Connect" in unsent.detail
            with pytest.raises(StoreUnavailable):
                await store.read(None, 0.3)
            assert time.monotonic() - begun < 2
            await asyncio.to_thread(server.start)
            assert [(row.role, row.token) for row in await store.read(["kept"], 20)] == [
                ("kept", 1)
            ]
            await until_applied(store, Claim("kept", "a", 2, 30.0))

    run(body)


def test_frozen(server: Server) -> None:
    async def body() -> None:
        async with opened(server.url()) as store:
            roles = [f"role{number}" for number in range(20)]
            for role in roles:
                assert answered(
                    await store.claim(Claim(role, f"holder of {role}", 1, 30.0), 5)
                ).applied
            server.freeze()
            begun = time.monotonic()
            late = asyncio.ensure_future(store.claim(Claim("late", "a", 1, 30.0), 0.3))
            reading = asyncio.ensure_future(store.read(roles, 0.4))
            opening = asyncio.ensure_future(store.open(0.4))
            renewed = await store.renew(
                [Renew(role, f"holder of {role}", 1, 2, 30.0) for role in roles], 0.5
            )
            assert {failed(item).unknown for item in [*renewed, await late]} == {True}
            for item in (reading, opening):
                with pytest.raises(StoreUnavailable):
                    await item
            unsent = failed(await store.claim(Claim("again", "a", 1, 30.0), 0.3))
            assert not unsent.unknown  # no connection to send it on
            assert time.monotonic() - begun < 3
            asyncio.get_running_loop().call_later(0.2, server.thaw)
            # On a new connection, while the old one's answers are still on their way.
            answers = await asyncio.gather(*(store.read([role], 20) for role in roles))
            assert [[row.holder for row in rows] for rows in answers] == [
                [f"holder of {role}"] for role in roles
            ]
            await asyncio.sleep(0.2)
            (row,) = await store.read(["role0"], 5)
            assert row.beat in (1, 2)  # what was unknown may have been applied

    run(body)


def test_one_slow_query_spoils_no_other(server: Server) -> None:
    """Given up, its connection takes no new queries; those that are on it keep their own
    answers."""

    async def body() -> None:
        async with opened(server.url()) as store:
            pool = store.pool
            await store.open(5)
            first = pool._shared
            # r.js takes as long as it is told to; the three are on one connection.
            slow = r.js(
                "(function () { var until = Date.now() + 700;"
                " while (Date.now() < until) {} return 7; })()"
            )
            kept = asyncio.ensure_future(pool.query(slow, 20))
            given_up = asyncio.ensure_future(pool.query(slow, 0.1))
            with pytest.raises(RequestError) as caught:
                await given_up
            assert caught.value.unknown
            assert pool._shared is None
            assert await pool.query(r.expr("other"), 5) == "other"
            assert pool._shared is not first
            assert await kept == 7
            assert first is not None
            assert first.closed

    run(body)


def test_a_cancelled_query_is_given_up_like_a_late_one(server: Server) -> None:
    async def body() -> None:
        async with opened(server.url()) as store:
            await store.open(5)
            first = store.pool._shared
            server.freeze()
            request = asyncio.ensure_future(store.claim(Claim("role", "a", 1, 30.0), 20))
            await asyncio.sleep(0.1)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
            server.thaw()
            assert first is not None
            assert first.closed
            assert await store.read(["nothing"], 10) == []

    run(body)


def test_failover_between_hosts_that_do_not_answer(server: Server) -> None:
    """One refuses, one lets in and keeps silent, one is not RethinkDB's."""

    def talk(listener: socket.socket) -> None:
        while True:
            try:
                other, _ = listener.accept()
            except OSError:
                return
            other.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n\0")
            other.close()

    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        socket.create_server(("127.0.0.1", 0)) as wrong,
    ):
        talker = threading.Thread(target=talk, args=(wrong,))
        talker.start()
        hosts = ["127.0.0.1:1", *(f"127.0.0.1:{item.getsockname()[1]}" for item in (silent, wrong))]

        async def body() -> None:
            for _ in range(6):  # the order is random
                async with opened(f"rethinkdb://{','.join(hosts)},{server.address}/coord") as store:
                    begun = time.monotonic()
                    await store.open(10)
                    assert time.monotonic() - begun < 5
            async with opened(f"rethinkdb://{hosts[2]}/coord") as store:
                assert (
                    "does not answer like RethinkDB"
                    in failed(await store.claim(Claim("r", "a", 1, 5.0), 2)).detail
                )
            async with opened(f"rethinkdb://{hosts[1]}/coord") as store:
                assert "in time" in failed(await store.claim(Claim("r", "a", 1, 5.0), 0.2)).detail

        run(body)
        wrong.shutdown(socket.SHUT_RDWR)
        talker.join(5)


def test_answers_that_come_in_pieces_or_together(
    rethinkdb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of a connection come as they like: one by one, or many answers at once."""
    whole, kept = Connection.data_received, bytearray()

    def one_by_one(connection: Connection, data: bytes) -> None:
        for byte in data:
            whole(connection, bytes([byte]))

    def together(connection: Connection, data: bytes) -> None:
        kept.extend(data)
        asyncio.get_running_loop().call_later(0.2, at_once, connection)

    def at_once(connection: Connection) -> None:
        if kept:
            whole(connection, bytes(kept))
            kept.clear()

    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            monkeypatch.setattr(Connection, "data_received", one_by_one)
            await store.open(5)
            texts = [f"{number}" * 500 for number in range(10)]
            requests = [store.pool.query(r.expr(text), 5) for text in texts]
            monkeypatch.setattr(Connection, "data_received", together)
            assert await asyncio.gather(*requests) == texts

    run(body)


def test_what_is_begun_is_sent_before_it_is_awaited(rethinkdb_url: str) -> None:
    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            assert store.begin(Claim("r", "a", 1, 30.0), 5) is None  # it is not connected
            await store.open(5)
            assert store.begin(Read("r"), 5) is None
            sent = store.begin(Claim("r", "a", 1, 30.0), 5)
            assert sent is not None
            await asyncio.sleep(0.2)
            assert [row.holder for row in await store.read(["r"], 5)] == ["a"]
            assert answered(await sent).lease.token == 1
            first = store.pool._shared
            discard(store.begin(Release("r", "a", 1, 2), 5))
            assert (
                store.pool._shared is None
            )  # what may still come on that connection is for nobody
            assert first is not None
            assert first.closed
            assert answered(await store.claim(Claim("r", "b", 1, 30.0), 5)).lease.token > 0

    run(body)


@pytest.mark.parametrize("history", [7, "text", [], [7], [None], {}, None, [{"until": "never"}]])
def test_a_history_that_somebody_edited_hinders_no_handover(
    rethinkdb_url: str, history: object
) -> None:
    row = db(rethinkdb_url).table("coord_leases").get("r")

    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            assert answered(await store.claim(Claim("r", "a", 1, 30.0), 5)).applied
            await store.pool.query(row.update({"history": history}), 5)
            assert answered(await store.release(Release("r", "a", 1, 2), 5)).applied
            await store.pool.query(row.update({"history": history}), 5)
            assert (
                answered(
                    await store.claim(Claim("r", "b", 1, 30.0, expected=Revision(None, 1, 2)), 5)
                ).lease.token
                == 2
            )
            await store.pool.query(row.update({"history": history}), 5)
            assert answered(await store.claim(Claim("r", "b", 2, 30.0), 5)).lease.token == 3
            assert [term.token for term in await store.past(None, 5)][:1] == [3]

    run(body)


@pytest.mark.parametrize("token", [2.5, -3, "7", None, MAX_TOKEN])
def test_a_token_that_somebody_edited(rethinkdb_url: str, token: object) -> None:
    row = db(rethinkdb_url).table("coord_leases").get("r")

    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            assert answered(await store.claim(Claim("r", "a", 1, 30.0), 5)).applied
            assert answered(await store.release(Release("r", "a", 1, 2), 5)).applied
            await store.pool.query(row.update({"token": token}), 5)
            result = await store.claim(Claim("r", "b", 1, 30.0), 5)
            if token == MAX_TOKEN:
                assert "at its end" in failed(result).detail
            else:
                assert answered(result).lease.token == (3 if token == 2.5 else 1)

    run(body)


def test_what_will_be_urgent_is_built_at_leisure(
    rethinkdb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            claim = Claim("r", "a", 1, 30.0, skew=60.0)
            assert answered(await store.claim(claim, 5)).applied
            await asyncio.sleep(0.5)
            monkeypatch.setattr(driver, "start", None)  # nothing more is built
            assert answered(await store.release(Release("r", "a", 1, 2), 5)).applied
            again = replace(claim, beat=3, expected=Revision(None, 1, 2))
            assert answered(await store.claim(again, 5)).lease.token == 2
            taken = replace(claim, holder="b", expected=Revision("a", 2, 3), takeover=True)
            assert answered(await store.claim(taken, 5)).lease.token == 3

    run(body)


@pytest.mark.parametrize(
    "value", ["", 'a"b\\c\n', "ä\u2028😀", 0, -7, 2**53, 1.5, 1e-300, 1e21, 30.0, None, True, False]
)
def test_what_is_filled_into_a_query_is_as_the_driver_writes_it(value: Any) -> None:
    form = InlineTemplate(lambda values: r.expr([values["what"], "and", values["what"]]))
    assert json.loads(form.fill({"what": value})) == json.loads(
        driver.start(r.expr([value, "and", value]), {})
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, [1], {}])
def test_what_cannot_be_filled_into_a_query(value: Any) -> None:
    form = InlineTemplate(lambda values: r.expr([values["what"]]))
    with pytest.raises((ValueError, AssertionError)):
        form.fill({"what": value})


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every query that goes over a connection."""
    messages: list[bytes] = []
    real = Connection._put

    def counted(self: Connection, number: int, message: bytes, until: float) -> Any:
        messages.append(message)
        return real(self, number, message, until)

    monkeypatch.setattr(Connection, "_put", counted)
    return messages


def test_each_operation_is_one_query(rethinkdb_url: str, sent: list[bytes]) -> None:
    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            await store.open(5)  # The settings of the table are known from then on.
            sent.clear()
            for claim in (
                Claim("x", "a", 1, 30.0),
                Claim("x", "b", 1, 30.0, skew=5.0),
                Claim("y", "a", 1, 30.0),
            ):
                await store.claim(claim, 5)
                assert len(sent) == 1
                sent.clear()
            renewals = [Renew(role, "a", 1, 2, 30.0) for role in ("x", "y", "absent")]
            assert [answered(item).applied for item in await store.renew(renewals, 5)] == [
                True,
                True,
                False,
            ]
            assert len(sent) == 1
            sent.clear()
            await store.release(Release("x", "a", 1, 3), 5)
            assert len(sent) == 1
            sent.clear()
            assert len(await store.read(None, 5)) == 2
            assert await store.read([], 5) == []
            assert len(sent) == 1

    run(body)


SECRET = "geheim"


def test_no_error_holds_a_query(rethinkdb_url: str) -> None:
    """The driver's errors hold it whole; ours are made of what the server says about tables and
    servers."""

    async def body() -> None:
        async with opened(f"{rethinkdb_url}?table=nowhere") as store:
            result = failed(
                await store.claim(Claim(SECRET, SECRET, 1, 30.0, info={SECRET: SECRET}), 5)
            )
            assert result.permanent
            assert SECRET not in repr(result)
        async with opened(rethinkdb_url) as store:
            odd = {"$reql_type$": SECRET}
            result = failed(await store.claim(Claim("role", "a", 1, 30.0, info=odd), 5))
            assert result.permanent
            assert SECRET not in repr(result)
            assert answered(await store.claim(Claim("role", "a", 1, 30.0), 5)).applied
            assert answered(await store.claim(Claim("other", "a", 1, 30.0), 5)).applied
            both = [Renew("role", "a", 1, 2, 30.0, info=odd), Renew("other", "a", 1, 2, 30.0)]
            bad, good = await store.renew(both, 5)
            assert SECRET not in repr(bad)
            assert not failed(bad).unknown
            assert answered(good).applied

    run(body)


def test_a_store_goes_from_loop_to_loop(rethinkdb_url: str) -> None:
    store = RethinkDBStore(parse_url(rethinkdb_url))
    for number in range(3):

        async def claim(beat: int) -> bool:
            return answered(await store.claim(Claim("role", "a", beat, 30.0), 5)).applied

        assert asyncio.run(
            claim(number + 1)
        )  # and no loop closes the store, as in an application that forgets to

    async def close() -> None:
        await store.close()
        await store.close()

    asyncio.run(close())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_leaves_the_parents_connections_alone(rethinkdb_url: str) -> None:
    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            await store.open(5)
            feed = store.watch(["role"])
            first = asyncio.ensure_future(feed.__anext__())
            await asyncio.sleep(0.1)
            pid = os.fork()
            if pid == 0:
                store.abandon()
                os._exit(0 if store.pool._shared is None and not store.pool._connections else 1)
            _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            assert answered(await store.claim(Claim("role", "a", 1, 30.0), 5)).applied
            assert (await asyncio.wait_for(first, 5)).holder == "a"
            await feed.aclose()  # type: ignore[attr-defined]

    run(body)


def test_closing_is_quick_while_a_server_hangs(server: Server) -> None:
    async def body() -> None:
        async with opened(server.url()) as store:
            await store.open(5)
            feed = store.watch(["role"])
            waiting = asyncio.ensure_future(feed.__anext__())
            await asyncio.sleep(0.1)
            server.freeze()
            request = asyncio.ensure_future(store.claim(Claim("role", "a", 1, 30.0), 30))
            await asyncio.sleep(0.05)
            begun = time.monotonic()
            await store.close()
            assert time.monotonic() - begun < 0.5
            assert failed(await request).unknown
            with pytest.raises(StoreUnavailable):
                await waiting
        server.thaw()

    run(body)


def test_a_driver_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    driver.reql.cache_clear()
    monkeypatch.setitem(sys.modules, "rethinkdb", None)
    try:

        async def body() -> None:
            store = RethinkDBStore(parse_url("rethinkdb://127.0.0.1:1"))
            with pytest.raises(StoreRefused, match="pip install"):
                await store.open(5)
            result = failed(await store.claim(Claim("r", "a", 1, 5.0), 5))
            assert (result.permanent, result.unknown) == (True, False)

        run(body)
    finally:
        driver.reql.cache_clear()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    requirements.need("openssl")
    return Authority(tmp_path)


@pytest.fixture
def secured(authority: Authority) -> Iterator[Server]:
    with Server(*tls_options(authority)) as server:
        yield server


@pytest.mark.rethinkdb
def test_tls(secured: Server, authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    run(lambda: set_up(secured.url(options=f"?ca_certs={authority.ca_certs}")))

    async def refused(options: str, why: str) -> None:
        async with opened(secured.url(options=options)) as store:
            result = failed(await store.claim(Claim("role", "a", 1, 30.0), 5))
            assert (result.unknown, why in result.detail) == (False, True), result

    async def body() -> None:
        async with opened(secured.url(options=f"?tls=1&ca_certs={authority.ca_certs}")) as store:
            await store.open(10)
            assert answered(await store.claim(Claim("role", "a", 1, 30.0), 5)).applied
        await refused(f"?tls=1&ca_certs={other.ca_certs}", "certificate is not trusted")
        await refused("?tls=1", "certificate is not trusted")
        await refused("", "does it want TLS")
        by_another_name = secured.url(options=f"?ca_certs={authority.ca_certs}").replace(
            "127.0.0.1", "localhost"
        )
        async with opened(by_another_name) as store:
            assert (
                "certificate is not trusted"
                in failed(await store.claim(Claim("r", "a", 1, 5.0), 5)).detail
            )

    run(body)


@pytest.mark.cluster
def test_three_nodes_one_of_which_is_killed(rethinkdb_cluster: Cluster) -> None:
    url = rethinkdb_cluster.url("coord_cluster")
    assert "created the table coord_leases with 3 replicas" in run(lambda: set_up(url)).done
    (config,) = ask(url, db(url).table("coord_leases").config())
    assert [len(shard["replicas"]) for shard in config["shards"]] == [3]
    (primary,) = {shard["primary_replica"] for shard in config["shards"]}
    (killed,) = [node for node in rethinkdb_cluster.nodes if node.name == primary]

    async def body() -> None:
        async with opened(url) as store:
            await store.open(20)
            assert answered(await store.claim(Claim("role", "a", 1, 30.0), 10)).applied
            await asyncio.to_thread(killed.kill)
            try:
                for beat in range(2, 400):  # the others choose a primary among them
                    (result,) = await store.renew([Renew("role", "a", 1, beat, 30.0)], 2)
                    if not hasattr(result, "unknown"):
                        break
                    await asyncio.sleep(0.1)
                assert answered(result).applied
                (row,) = await store.read(["role"], 20)
                assert (row.holder, row.token, row.beat) == ("a", 1, beat)
            finally:
                await asyncio.to_thread(killed.start)

    run(body, 100)
