"""Servers that are no RethinkDB: what they send is bounded, checked and reported as coord's
errors."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from coord.core.announcements import Announcement
from coord.core.operations import Claim, Release, Renew
from coord.errors import CoordError, StoreUnavailable
from coord.stores.failures import RequestError
from coord.stores.rethinkdb import (
    RethinkDBStore,
    RethinkURL,
    connection,
    driver,
    handshake,
    parse_url,
    setup,
)
from coord.stores.rethinkdb.connection import Connection
from coord.stores.rethinkdb.doctor import check
from tests.stores.rethinkdb.kit import failed, r, run

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
VERSION = {"success": True, "min_protocol_version": 0, "max_protocol_version": 0}
ATOM, SEQUENCE, PARTIAL = 1, 2, 3


async def send(writer: asyncio.StreamWriter, message: object) -> None:
    writer.write(json.dumps(message).encode() + b"\0")
    await writer.drain()


async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """Take the first message, answer with the version, and return the client's first message."""
    first = json.loads((await reader.readuntil(b"\0"))[4:-1])["authentication"]
    await send(writer, VERSION)
    return str(first).removeprefix("n,,")


async def let_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Do the server's part of a log-in with an empty password."""
    first = await hello(reader, writer)
    nonce = first.partition("r=")[2] + "theirs"
    challenge = f"r={nonce},s={base64.b64encode(b'salt').decode()},i=1"
    await send(writer, {"success": True, "authentication": challenge})
    await reader.readuntil(b"\0")
    key = hashlib.pbkdf2_hmac("sha256", b"", b"salt", 1)
    server_key = hmac.digest(key, b"Server Key", "sha256")
    signature = hmac.digest(server_key, f"{first},{challenge},c=biws,r={nonce}".encode(), "sha256")
    text = f"v={base64.b64encode(signature).decode()}"
    await send(writer, {"success": True, "authentication": text})


async def against(talk: Talk, body: Callable[[str], Awaitable[None]]) -> None:
    """Run `body` with the URL of a server that talks like that."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        await body(f"rethinkdb://127.0.0.1:{port}/coord")
    finally:
        server.close()


async def connect_and_ask(url: RethinkURL) -> None:
    opened = await asyncio.wait_for(Connection.open(url, url.hosts[0]), 20)
    try:
        await opened.ask(url, driver.start(r.expr(1), {}), 20)
    finally:
        opened.close()


def open_against(talk: Talk) -> str:
    """Return what is reported of connecting and of one query."""
    reports: list[str] = []

    async def body(url: str) -> None:
        where = parse_url(url)
        with pytest.raises(RequestError) as caught:
            await connect_and_ask(where)
        assert caught.value.refusal is None
        reports.append(caught.value.detail)

    run(lambda: against(talk, body))
    return reports[0]


def challenge_of(fields: str) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonce = (await hello(reader, writer)).partition("r=")[2]
        text = fields.replace("NONCE", nonce)
        await send(writer, {"success": True, "authentication": text})

    return talk


SALT = base64.b64encode(b"salt").decode()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (f"r=NONCEx,s={SALT},i=30000000", "30,000,000 iterations"),
        (f"r=NONCEx,s={SALT},i=0", "invalid number of iterations"),
        (f"r=NONCEx,s={SALT},i=-5", "invalid number of iterations"),
        (f"r=NONCEx,s={SALT},i={'9' * 5000}", "invalid number of iterations"),
        (f"r=NONCEx,s={SALT}", "invalid number of iterations"),
        ("r=NONCEx,s=***,i=1", "field s"),
        ("r=NONCEx,i=1", "field s"),
        (f"r=NONCE,s={SALT},i=1", "nonce"),
        (f"r=other,s={SALT},i=1", "nonce"),
        ("", "nonce"),
    ],
)
def test_a_challenge_that_is_refused(fields: str, why: str) -> None:
    began = time.process_time()
    assert why in open_against(challenge_of(fields))
    assert time.process_time() - began < 3  # 30 million iterations take more than 10 s


def test_the_most_iterations_do_not_block_the_loop() -> None:
    """They are computed in a thread; the answer to the proof never comes."""
    turns = 0

    async def body(url: str) -> None:
        nonlocal turns
        store = RethinkDBStore(parse_url(url))
        opening = asyncio.ensure_future(store.open(1.5))
        while not opening.done():
            await asyncio.sleep(0.01)
            turns += 1
        with pytest.raises(StoreUnavailable):
            await opening
        await store.close()

    fields = f"r=NONCEx,s={SALT},i={handshake.MAX_ITERATIONS}"
    run(lambda: against(challenge_of(fields), body))
    assert turns > 5


def test_the_hash_in_a_thread_is_the_hash() -> None:
    for iterations in (1, handshake.MAX_ITERATIONS_ON_LOOP + 1):
        key = run(lambda count=iterations: handshake._salted("päss", b"salt", count))
        assert key == hashlib.pbkdf2_hmac("sha256", "päss".encode(), b"salt", iterations)


def greeting_of(*answers: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\0")
        for answer in answers:
            writer.write(answer)
            await writer.drain()

    return talk


@pytest.mark.parametrize(
    "answers",
    [
        [b"HTTP/1.1 400 Bad Request\r\n\r\n\0"],
        [b"[]\0"],
        [b"{}\0"],
        [b'{"success": true}\0'],
        [b'{"success": false, "error": "no", "error_code": "x"}\0'],
        [b'{"success": true, "min_protocol_version": "0", "max_protocol_version": null}\0'],
        [json.dumps(VERSION).encode() + b"\0", b"null\0"],
        [json.dumps(VERSION).encode() + b"\0", b'{"success": true}\0'],
        [json.dumps(VERSION).encode() + b"\0", b'{"success": true, "authentication": [1]}\0'],
        [b"[" * 10_000 + b"\0"],
        [b"\xff\xfe\0"],
        [b"x" * 200_000],
        [b"x" * 20_000 + b"\0"],
    ],
    ids=range(13),
)
def test_a_greeting_that_is_refused(answers: list[bytes]) -> None:
    assert "does not answer like RethinkDB" in open_against(greeting_of(*answers))


def test_a_server_that_does_not_know_the_password() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await challenge_of(f"r=NONCEx,s={SALT},i=1")(reader, writer)
        await reader.readuntil(b"\0")
        await send(writer, {"success": True, "authentication": f"v={SALT}"})

    assert "does not prove that it knows the password" in open_against(talk)


def answering(payload: Callable[[bytes], bytes], length: int | None = None) -> Talk:
    """Let the client in, and answer each query with what `payload` makes of it."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await let_in(reader, writer)
        while True:
            number, size = struct.unpack("<QL", await reader.readexactly(12))
            answer = payload(await reader.readexactly(size))
            writer.write(struct.pack("<QL", number, length or len(answer)) + answer)
            await writer.drain()

    return talk


def response(kind: int, *results: object) -> bytes:
    return json.dumps({"t": kind, "r": results}).encode()


def test_a_response_that_is_too_long_is_not_read() -> None:
    talk = answering(lambda _: b"{", length=connection.MAX_RESPONSE + 1)
    assert "sent a response of 67,108,865 bytes" in open_against(talk)


def test_a_result_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_RESULT", 100_000)
    talk = answering(lambda _: response(PARTIAL, "x" * 1000))
    assert "sent more than 100,000 bytes" in open_against(talk)


PAYLOADS = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"t": 1}',
    b'{"t": 1, "r": []}',
    b'{"t": "1", "r": [1]}',
    b'{"t": 1, "r": {"a": 1}}',
    b'{"t": 18, "r": [], "e": 4100000}',
    b'{"t": 18, "r": [[1]], "e": []}',
    b'{"t": 99, "r": []}',
    b"\xff",
    b"[" * 5_000,
    *(
        response(kind, result)
        for kind in (ATOM, SEQUENCE)
        for result in (
            None,
            7,
            "text",
            [[]],
            {},
            {"errors": 1, "first_error": None},
            {"errors": 0},
            {"errors": 0, "changes": [], "replaced": 0, "inserted": 0, "unchanged": 1},
            {"errors": 0, "changes": [7], "replaced": 1},
            {"written": 5, "now": "later"},
            {"written": {"errors": 0, "unchanged": 1, "changes": []}, "now": None},
            {"row": 5, "now": 1},
            {"row": {"id": "x", "renewed_at": {"epoch_time": "x"}}, "now": "x"},
            {"new_val": 5},
            {"old_val": None},
        )
    ),
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_malformed_answers_raise_coords_errors(
    payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every method of the store gets the same answer to everything. The table's settings alone
    are those that coord needs, or no method would get to its own query."""
    monkeypatch.setattr(setup, "ATTEMPTS", 1)
    sound = response(ATOM, {"write_acks": "majority", "durability": "hard"})

    def answer(query: bytes) -> bytes:
        is_config = json.loads(query)[1][0] == 174
        return sound if is_config else payload

    async def tried(attempt: Awaitable[Any]) -> None:
        with contextlib.suppress(CoordError):
            await attempt

    async def body(url: str) -> None:
        store = RethinkDBStore(parse_url(url))
        claims = [Claim(f"r{number}", "a", 1, 30.0) for number in range(3)]
        renewals = [Renew(f"r{number}", "a", 1, 2, 30.0) for number in range(9)]
        try:
            for result in (
                await store.claim(claims[0], 1),
                *await store.renew(renewals[:1], 1),
                await store.release(Release("r", "a", 1, 3), 1),
            ):
                assert getattr(result, "applied", False) is False
            for results in (
                await store.swap_all(claims, 1),
                await store.renew(renewals, 1),
                await store.renew(renewals[:2], 1),
            ):
                assert not any(getattr(result, "applied", False) for result in results)
            announcement = Announcement("key", "role", "request", {}, 60.0, True)
            record = {"id": "x", "role": "worker", "ttl": 60, "token": 1, "holder": "a"}
            announcements, records = store.announcements(), store.records("services")
            for attempt in (
                store.open(0.2),
                store.read(None, 0.1),
                store.read(["a"], 0.1),
                store.past(None, 0.1),
                announcements.post([announcement], 0.1),
                announcements.withdraw(["key"], 0.1),
                announcements.read(None, 0.1),
                announcements.purge(0.2),
                records.register(record, "nonce", 0.1),
                records.refresh(record, 0.1),
                records.remove("x", "nonce", 0.1),
                records.least_loaded("worker", 0.1),
                records.sample("worker", 2, 0.1),
                records.healthy(None, 0.1),
                records.list_all(None, 0.1),
                records.malformed(0.2),
                records.purge(2, 0.1),
                records.publish(record, 5, 0.1),
                records.withdraw("worker", 1, 0.1),
                check(url, 0.1),
                setup.raise_token_floor(url, 5, ["a"], 0.3),
                setup.set_up(url, 0.3),
            ):
                await tried(attempt)
            feeds: list[Any] = [store.watch(None), announcements.watch(), records.watch("worker")]
            for feed in feeds:
                await tried(asyncio.wait_for(_drained(feed), 5))
        finally:
            await store.close()

    run(lambda: against(answering(answer), body))


async def _drained(feed: Any) -> None:
    try:
        async for _ in feed:
            pass
    finally:
        await feed.aclose()


def test_a_late_answer_to_a_claim_is_unknown() -> None:
    """Whatever is malformed in the answer to a swap: it may have been applied."""

    async def body(url: str) -> None:
        store = RethinkDBStore(parse_url(url))
        try:
            store._settings.acceptable = True
            store._settings._loop = asyncio.get_running_loop()
            result = failed(await store.claim(Claim("r", "a", 1, 30.0), 2))
            assert (result.unknown, result.permanent) == (True, False)
        finally:
            await store.close()

    for payload in (b"{}", response(ATOM, {}), response(ATOM, {"written": {}, "now": 1})):
        run(lambda answer=payload: against(answering(lambda _: answer), body))
