"""The network between one worker and one server, as a TCP proxy that can do to it what networks do.

pass       hands everything on blackhole  hands nothing on; what was sent meanwhile, the end of a
connection too, arrives when it heals: late requests stall      hands on half of the next message,
and then nothing; when it heals, the rest follows or the connection breaks delay      hands on each
piece late reset      hands on what the worker asks and, once the server has answered, breaks the
connection instead of answering refuse     breaks every connection, old and new"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct

MODES = ("pass", "blackhole", "stall", "delay", "reset", "refuse")


class Proxy:
    """Listens on a loopback port of its own (`port`). All on one loop."""

    def __init__(
        self, host: str, port: int, chance: random.Random, handshake_answers: int = 0
    ) -> None:
        """`handshake_answers`: texts that end with a NUL which the server sends before it answers
        queries; a `reset` lets them pass."""
        self.upstream, self.handshake_answers = (host, port), handshake_answers
        self.port = 0
        self.mode = "pass"
        self.delay = 0.1
        self.broken = 0
        """Connections that a `reset` broke after the server's answer."""
        self.held = 0
        """Pieces that were held back by a blackhole or a stall."""
        self._chance = chance
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()
        self._links: set[Link] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for link in tuple(self._links):
            link.abort()
            link.task.cancel()
        await asyncio.gather(*(link.task for link in self._links), return_exceptions=True)

    def set(self, mode: str, delay: float = 0.1) -> None:
        """From now on, for open connections too."""
        assert mode in MODES
        healed_stall = self.mode == "stall" and mode == "pass"
        self.mode, self.delay = mode, delay
        for link in tuple(self._links):
            if mode == "refuse" or (healed_stall and link.stalled and self._chance.random() < 0.5):
                link.abort()
            link.stalled = False
        self._changed.set()
        self._changed = asyncio.Event()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == "refuse":
            break_off(writer)
            return
        link = Link(self, reader, writer)
        self._links.add(link)
        link.task.add_done_callback(lambda _: self._links.discard(link))

    async def gate(self, link: Link) -> None:
        """Wait until a piece may pass."""
        if self.mode in ("blackhole", "stall"):
            self.held += 1
        while self.mode == "blackhole" or (self.mode == "stall" and link.stalled):
            await self._changed.wait()
        if self.mode == "delay":
            await asyncio.sleep(self.delay * self._chance.uniform(0.5, 1.5))


class Link:
    """One connection, and its two directions."""

    def __init__(
        self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.proxy, self.stalled = proxy, False
        self._client = (reader, writer)
        self._writers = [writer]
        self._answers = 0
        self.task = asyncio.get_running_loop().create_task(self._run())

    def abort(self) -> None:
        for writer in self._writers:
            break_off(writer)

    async def _run(self) -> None:
        try:
            await self.proxy.gate(self)
            upstream, to_server = await asyncio.open_connection(*self.proxy.upstream)
        except OSError:
            self.abort()
            return
        self._writers.append(to_server)
        reader, to_client = self._client
        await asyncio.gather(
            self._pump(reader, to_server, False), self._pump(upstream, to_client, True)
        )
        for writer in self._writers:
            writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool
    ) -> None:
        """Hand on one direction until it ends. A write to a side that has gone ends nothing: the
        other may go on."""
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                handshake = self.proxy.handshake_answers
                if answers and self.proxy.mode == "reset" and self._answers >= handshake:
                    self.proxy.broken += 1
                    self.abort()
                    return
                if answers and self._answers < handshake:
                    self._answers += piece.count(b"\0")
                await self.proxy.gate(self)
                if self.proxy.mode == "stall" and len(piece) > 1:
                    writer.write(piece[: len(piece) // 2])
                    piece = piece[len(piece) // 2 :]
                    self.stalled = True
                    await self.proxy.gate(self)
                writer.write(piece)
                await writer.drain()
        with contextlib.suppress(OSError, RuntimeError):
            await self.proxy.gate(self)
            if writer.can_write_eof():
                writer.write_eof()


def break_off(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
