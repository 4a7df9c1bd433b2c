"""One connection to one server: queries are pipelined, an answer is told from every other by its query's number.

Numbers are never used twice on a connection, and a query that was given up takes its number with it: its late answer is
for nobody. Closing never waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import ssl
import struct
from collections.abc import AsyncGenerator
from functools import lru_cache
from typing import Any

from coord.errors import AccessDenied
from coord.stores.rethinkdb import driver, errors
from coord.stores.rethinkdb.errors import Trouble
from coord.stores.rethinkdb.url import Address, RethinkURL

_HEADER = struct.Struct("<QL")
_CONTINUE = b"[2]"
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds, seconds and times: a feed, which only listens, learns within half a minute that its machine is gone."""


class Wire:
    """An open connection. Make one with `Wire.open`; it belongs to the loop that it was opened on."""

    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.Transport, address: Address) -> None:
        self.address = address
        self.retired = False
        """Set: it takes no new queries, and closes when the last of those under way has its answer or was given up."""
        self._reader, self._transport = reader, transport
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._closed = False
        self._listener = asyncio.get_running_loop().create_task(self._listen(), name="coord rethinkdb connection")

    @classmethod
    async def open(cls, url: RethinkURL, address: Address) -> Wire:
        """Connect and log in. Takes as long as it takes: the caller bounds it. Raises `Trouble`."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, address.host, address.port, ssl=_trust(url.ca_certs) if url.tls else None
            )
        except (OSError, ssl.CertificateError) as err:
            raise errors.unreachable(f"cannot connect to {address}: {_why(err)}") from None
        try:
            _tune(transport.get_extra_info("socket"))
            await _log_in(reader, transport, url, address)
            return cls(reader, transport, address)
        except BaseException:
            transport.abort()
            raise

    @property
    def usable(self) -> bool:
        return not (self._closed or self.retired or self._transport.is_closing())

    @property
    def closed(self) -> bool:
        return self._closed

    async def ask(self, url: RethinkURL, message: bytes, timeout: float) -> Any:
        """The whole answer to one query, a list for a sequence. Raises `Trouble`, and `TimeoutError` after `timeout`
        seconds."""
        until = asyncio.get_running_loop().time() + timeout
        number, items = next(self._numbers), []
        response = await self._exchange(number, message, until)
        while response["t"] == errors.PARTIAL:
            items += response["r"]
            response = await self._exchange(number, _CONTINUE, until)
        if response["t"] == errors.SEQUENCE:
            return items + response["r"]
        if response["t"] in (errors.ATOM, errors.SERVER_INFO):
            return response["r"][0]
        raise errors.from_response(response, url)

    async def feed(self, url: RethinkURL, message: bytes) -> AsyncGenerator[Any, None]:
        """Items of a changefeed, as they come. Raises `Trouble` when it breaks off."""
        number = next(self._numbers)
        response = await self._exchange(number, message)
        while response["t"] == errors.PARTIAL:
            for item in response["r"]:
                yield item
            response = await self._exchange(number, _CONTINUE)
        if response["t"] == errors.SEQUENCE:
            raise errors.lost("the feed ended")
        raise errors.from_response(response, url)

    def retire(self) -> None:
        """Take no new queries; close when none is under way."""
        self.retired = True
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """At once, without a word. Whoever waits for an answer learns that it is unknown."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(RuntimeError):  # its loop has been closed already
            self._listener.cancel()
            self._transport.abort()
            self._fail(errors.lost("the connection was closed"))

    async def _exchange(self, number: int, message: bytes, until: float | None = None) -> dict[str, Any]:
        if self._closed or self._transport.is_closing():
            raise errors.unreachable(f"the connection to {self.address} was lost")
        loop = asyncio.get_running_loop()
        future = self._waiting[number] = loop.create_future()
        self._transport.write(_HEADER.pack(number, len(message)) + message)
        # A timer of its own is a tenth of what `wait_for` costs, which makes a task.
        timer = None if until is None else loop.call_at(until, _give_up, future)
        try:
            answer: dict[str, Any] = await future
            return answer
        finally:
            if timer is not None:
                timer.cancel()
            del self._waiting[number]
            if self.retired and not self._waiting:
                self.close()

    async def _listen(self) -> None:
        trouble = errors.lost(f"the connection to {self.address} broke off")
        try:
            while True:
                number, length = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
                body = await self._reader.readexactly(length)
                future = self._waiting.get(number)
                if future is not None and not future.done():
                    future.set_result(json.loads(body))
        except (OSError, EOFError, ValueError):
            pass
        finally:
            self._closed = True
            self._transport.abort()
            self._fail(trouble)

    def _fail(self, trouble: Trouble) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(trouble)


def _give_up(future: asyncio.Future[dict[str, Any]]) -> None:
    if not future.done():
        future.set_exception(asyncio.TimeoutError())


@lru_cache(maxsize=8)
def _trust(ca_certs: str | None) -> ssl.SSLContext:
    """TLS 1.2 or later, with the certificate and the host name checked; without `ca_certs` by the system's roots."""
    try:
        return ssl.create_default_context(cafile=ca_certs)
    except (OSError, ssl.SSLError) as err:
        raise Trouble(f"ca_certs cannot be used: {_why(err)}", unknown=False, refused=AccessDenied) from None


def _tune(sock: Any) -> None:
    with contextlib.suppress(OSError, AttributeError):  # none of this is needed for right answers
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def _log_in(
    reader: asyncio.StreamReader, transport: asyncio.Transport, url: RethinkURL, address: Address
) -> None:
    handshake = driver.handshake(address.host, address.port, url.user, url.password)
    from rethinkdb.errors import ReqlAuthError

    answer: bytes | None = None
    try:
        while (request := handshake.next_message(answer)) is not None:
            if request:
                transport.write(request)
            answer = (await reader.readuntil(b"\0"))[:-1]
    except ReqlAuthError:
        detail = f"{address} refuses the user {url.user!r}: wrong user or password"
        raise Trouble(detail, unknown=False, refused=AccessDenied) from None
    except (OSError, EOFError) as err:
        hint = "" if url.tls else " (does it want TLS? then add tls=1)"
        raise errors.unreachable(f"{address} broke off while logging in: {_why(err)}{hint}") from None
    except Exception as err:  # whatever the driver makes of an answer that is not RethinkDB's
        raise errors.unreachable(f"{address} does not answer like RethinkDB ({type(err).__name__})") from None


def _why(err: BaseException) -> str:
    if isinstance(err, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({err.verify_message})"
    if isinstance(err, ssl.SSLError):
        return f"TLS failed ({err.reason})"
    if isinstance(err, OSError) and err.strerror:
        return err.strerror
    return type(err).__name__ if isinstance(err, EOFError) else str(err)[:120]
