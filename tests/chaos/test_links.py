"""The network among nodes loses the node that it is told to, in both directions, and no other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

from tests.chaos.links import ClusterProxy, listens, owner
from tests.support.server_process import free_ports

Echo = Callable[[bytes], Awaitable[bool]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(100):
        writer.write(piece)
    writer.close()


def through_a_proxy(
    number: int, caller: int, scene: Callable[[ClusterProxy, Echo], Awaitable[None]]
) -> None:
    """In front of node `number`, whom this process calls: it is node `caller`."""

    async def play() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        with free_ports(1) as ports:
            pass
        pids = [0, 0, 0]
        pids[caller] = os.getpid()
        proxy = ClusterProxy(number, server.sockets[0].getsockname()[1], ports[0], lambda: pids)
        await proxy.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)

        async def comes_back(text: bytes) -> bool:
            writer.write(text)
            try:
                return await asyncio.wait_for(reader.readexactly(len(text)), 0.3) == text
            except (asyncio.TimeoutError, asyncio.IncompleteReadError, ConnectionError):
                return False

        try:
            assert await comes_back(b"first")
            await scene(proxy, comes_back)
        finally:
            writer.transport.abort()
            await proxy.close()
            server.close()
            await asyncio.sleep(0.05)

    asyncio.run(play())


@pytest.mark.parametrize("cut", [1, 2])
def test_who_is_cut_off_is_cut_off_whoever_called(cut: int) -> None:
    """Node 2 has called node 1."""

    async def scene(proxy: ClusterProxy, comes_back: Echo) -> None:
        proxy.separate(cut, silently=True)
        assert not await comes_back(b"x")
        assert proxy.held == 1
        proxy.separate(None, silently=True)
        assert await comes_back(b"x")  # the first of the two: it arrives late

    through_a_proxy(1, 2, scene)


def test_the_others_are_not() -> None:
    async def scene(proxy: ClusterProxy, comes_back: Echo) -> None:
        proxy.separate(0, silently=False)
        assert await comes_back(b"a")

    through_a_proxy(1, 2, scene)


def test_a_cut_that_breaks_connections_breaks_them() -> None:
    async def scene(proxy: ClusterProxy, comes_back: Echo) -> None:
        proxy.separate(2, silently=False)
        assert not await comes_back(b"a")
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"new")
        with pytest.raises(asyncio.TimeoutError):  # it waits
            await asyncio.wait_for(reader.read(3), 0.2)
        proxy.separate(None, silently=False)
        assert await asyncio.wait_for(reader.readexactly(3), 2) == b"new"
        writer.close()

    through_a_proxy(1, 2, scene)


def test_the_kernel_tells_who_has_a_socket() -> None:
    async def scene() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        own_port = writer.get_extra_info("sockname")[1]
        assert owner(own_port, [1 << 30, os.getpid()]) == 1
        assert owner(own_port, [1 << 30]) is None
        assert listens(port)
        assert not listens(own_port)
        writer.close()
        server.close()
        await asyncio.sleep(0.05)

    asyncio.run(scene())
