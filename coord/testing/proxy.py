"""A TCP proxy between a store and its server that can do what networks do."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct


class Link(str, enum.Enum):
    """What the proxy does with each piece of data, in old connections as in new ones."""

    PASS = "pass"  # noqa: S105 # no password
    """Passes everything on."""
    DELAY = "delay"
    """Passes each piece on after `FaultProxy.delay` seconds."""
    SWALLOW = "swallow"
    """Passes requests on to the server, and drops its answers."""
    FREEZE = "freeze"
    """Passes nothing on. What was sent meanwhile arrives when the mode changes."""
    CUT = "cut"
    """Passes requests on, then half of the answer, and breaks the connection."""
    RESET = "reset"
    """Passes requests on, and breaks the connection as soon as the server answers."""
    REFUSE = "refuse"
    """Breaks every connection, old and new."""


class FaultProxy:
    """Listens on a port of the loopback interface, and connects to a server.

    It runs on one event loop:

        async with FaultProxy("localhost", 5432) as proxy:
            store = MyStore(f"mystore://{proxy.host}:{proxy.port}/test")
            proxy.set(Link.SWALLOW)

    Attributes:
        host: The address that it listens at.
        port: The port that it listens at, once it has started.
        mode: What it does at the moment.
        delay: Seconds by which `Link.DELAY` delays each piece.
    """

    def __init__(self, host: str, port: int) -> None:
        """Create a proxy for the server at `host` and `port`. It opens nothing."""
        self.host, self.port = "127.0.0.1", 0
        self.mode, self.delay = Link.PASS, 0.1
        self._upstream = (host, port)
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> FaultProxy:
        self._server = await asyncio.start_server(self._accept, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self.break_connections()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # a transport that was aborted ends in the next turn of the loop

    def set(self, mode: Link, *, delay: float | None = None) -> None:
        """Change what the proxy does from now on.

        Args:
            mode: The new mode.
            delay: The new delay in seconds; None leaves it as it is.
        """
        self.mode = mode
        if delay is not None:
            self.delay = delay
        if mode is Link.REFUSE:
            self.break_connections()
        self._changed.set()
        self._changed = asyncio.Event()

    def break_connections(self) -> None:
        """Break every open connection. New ones are accepted."""
        for writer in tuple(self._writers):
            _break(writer)
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode is Link.REFUSE:
            _break(writer)
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        writers = [writer]
        self._writers.add(writer)
        try:
            await self._wait_while_frozen()
            from_server, to_server = await asyncio.open_connection(*self._upstream)
            writers.append(to_server)
            self._writers.add(to_server)
            await asyncio.gather(
                self._pass_on(reader, to_server, writers, answers=False),
                self._pass_on(from_server, writer, writers, answers=True),
            )
        except OSError:
            pass  # the server refuses connections, and so does the proxy
        except asyncio.CancelledError:
            pass  # at the end of the proxy; Python 3.11 logs an error for a cancelled connection
        finally:
            for each in writers:
                _break(each)
                self._writers.discard(each)

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        both: list[asyncio.StreamWriter],
        *,
        answers: bool,
    ) -> None:
        """Pass on one direction until it ends, and then end the other direction."""
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                await self._wait_while_frozen()
                if self.mode is Link.DELAY:
                    await asyncio.sleep(self.delay)
                if answers and self.mode is Link.SWALLOW:
                    continue
                if answers and self.mode in (Link.CUT, Link.RESET):
                    if self.mode is Link.CUT:
                        writer.write(piece[: len(piece) // 2])
                        await writer.drain()
                    break
                writer.write(piece)
                await writer.drain()
        for each in both:
            each.close() if self.mode is not Link.RESET else _break(each)

    async def _wait_while_frozen(self) -> None:
        while self.mode is Link.FREEZE:
            await self._changed.wait()


def _break(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
