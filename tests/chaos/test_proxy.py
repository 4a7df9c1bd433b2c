"""The proxy does to a connection what it says."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.chaos.proxy import Proxy

HANDSHAKE = b"one\0two\0three\0"
HANDSHAKE_ANSWERS = 3


class Server:
    """Greets as RethinkDB does, then answers each piece with the same in capitals. Keeps what it
    got."""

    def __init__(self) -> None:
        self.got = b""
        self.ended = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(HANDSHAKE)
            while piece := await reader.read(1000):
                self.got += piece
                writer.write(piece.upper())
        except OSError:
            pass
        self.ended += 1
        writer.close()

    async def has(self, text: bytes) -> bool:
        """Whether it gets this soon."""
        for _ in range(200):
            if text in self.got:
                return True
            await asyncio.sleep(0.01)
        return False


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, text: bytes) -> None:
        self.writer.write(text)

    async def hears(self, text: bytes) -> bool:
        try:
            return await asyncio.wait_for(self.reader.readexactly(len(text)), 2) == text
        except (asyncio.IncompleteReadError, ConnectionError):
            return False

    async def hears_nothing(self) -> bool:
        try:
            await asyncio.wait_for(self.reader.read(1), 0.15)
        except asyncio.TimeoutError:
            return True
        return False

    async def is_broken(self) -> bool:
        try:
            return await asyncio.wait_for(self.reader.read(100), 2) == b""
        except ConnectionError:
            return True


def on_a_line(scene: Callable[[Proxy, Server, Client], Awaitable[None]], seed: int = 1) -> None:
    """Play it with one connection made and greeted."""

    async def play() -> None:
        server = Server()
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        proxy = Proxy(
            "127.0.0.1",
            listening.sockets[0].getsockname()[1],
            random.Random(seed),
            HANDSHAKE_ANSWERS,
        )
        await proxy.start()
        client = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
        try:
            assert await client.hears(HANDSHAKE)
            client.send(b"first")
            assert await client.hears(b"FIRST")
            await scene(proxy, server, client)
        finally:
            client.writer.transport.abort()
            await proxy.close()
            listening.close()
            await asyncio.sleep(0.05)

    asyncio.run(play())


def test_a_blackhole_delivers_late_even_what_was_hung_up_on() -> None:
    async def scene(proxy: Proxy, server: Server, client: Client) -> None:
        proxy.set("blackhole")
        client.send(b"late")
        assert await client.hears_nothing()
        client.writer.close()
        await asyncio.sleep(0.1)
        assert (server.got, server.ended) == (b"first", 0)
        proxy.set("pass")
        assert await server.has(b"late")

    on_a_line(scene)


def test_a_stall_stops_in_the_middle_of_a_message() -> None:
    async def scene(proxy: Proxy, server: Server, client: Client) -> None:
        proxy.set("stall")
        client.send(b"abcdef")
        assert await server.has(b"abc")
        await asyncio.sleep(0.1)
        assert server.got == b"firstabc"
        proxy.set("pass")

    on_a_line(scene)


@pytest.mark.parametrize("seed", range(4))
def test_a_stall_that_heals_goes_on_or_breaks(seed: int) -> None:
    breaks = random.Random(seed).random() < 0.5

    async def scene(proxy: Proxy, server: Server, client: Client) -> None:
        proxy.set("stall")
        client.send(b"abcdef")
        assert await server.has(b"abc")
        proxy.set("pass")
        if breaks:
            assert await client.is_broken() or server.got == b"firstabc"
        else:
            assert await server.has(b"abcdef")

    on_a_line(scene, seed)


def test_a_reset_comes_after_the_server_has_answered() -> None:
    async def scene(proxy: Proxy, server: Server, client: Client) -> None:
        proxy.set("reset")
        client.send(b"applied")
        assert await client.is_broken()
        assert server.got == b"firstapplied"
        assert proxy.broken == 1
        again = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
        assert await again.hears(
            HANDSHAKE
        )  # a new connection is let in, and breaks at its first answer
        again.send(b"x")
        assert await again.is_broken()
        again.writer.close()

    on_a_line(scene)


def test_a_delay_is_one() -> None:
    async def scene(proxy: Proxy, server: Server, client: Client) -> None:
        proxy.set("delay", 0.1)
        began = time.monotonic()
        client.send(b"slow")
        assert await client.hears(b"SLOW")
        assert time.monotonic() - began >= 0.1  # two ways, each at least half of it

    on_a_line(scene)


def test_refused_is_old_and_new() -> None:
    async def scene(proxy: Proxy, server: Server, client: Client) -> None:
        proxy.set("refuse")
        assert await client.is_broken()
        other = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
        assert await other.is_broken()
        other.writer.close()
        proxy.set("pass")

    on_a_line(scene)
