"""What comes before a connection can be used: trust in the server, the socket's options, the
log-in."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from functools import lru_cache
from typing import Any, cast

from coord.errors import AccessDenied
from coord.runtime.timers import DeadlineTimer
from coord.stores.rethinkdb import driver, errors
from coord.stores.rethinkdb.errors import QueryError
from coord.stores.rethinkdb.url import Address, RethinkURL

_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds, seconds and times: a feed, which only listens, learns within half a minute that its
machine is gone."""


@lru_cache(maxsize=8)
def ssl_context(ca_certs: str | None) -> ssl.SSLContext:
    """TLS 1.2 or later, with the certificate and the host name checked; without `ca_certs` by the
    system's roots."""
    try:
        return ssl.create_default_context(cafile=ca_certs)
    except (OSError, ssl.SSLError) as err:
        raise QueryError(
            f"ca_certs cannot be used: {describe(err)}", unknown=False, permanent=AccessDenied
        ) from None


def set_socket_options(sock: Any) -> None:
    """No delay, and the end of a machine is noticed."""
    with contextlib.suppress(OSError, AttributeError):  # none of this is needed for right answers
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def log_in(
    greet: Callable[[bytes], Awaitable[bytes]], url: RethinkURL, address: Address
) -> None:
    """`greet` sends a message, "" for none, and returns the server's answer. Raises `Trouble`."""
    handshake = driver.handshake(address.host, address.port, url.user, url.password)
    from rethinkdb.errors import ReqlAuthError

    answer: bytes | None = None
    try:
        while (request := handshake.next_message(answer)) is not None:
            answer = await greet(request)
    except ReqlAuthError:
        detail = f"{address} refuses the user {url.user!r}: wrong user or password"
        raise QueryError(detail, unknown=False, permanent=AccessDenied) from None
    except (OSError, EOFError) as err:
        hint = "" if url.tls else " (does it want TLS? then add tls=1)"
        raise errors.unreachable(
            f"{address} broke off while logging in: {describe(err)}{hint}"
        ) from None
    except Exception as err:  # whatever the driver makes of an answer that is not RethinkDB's
        raise errors.unreachable(
            f"{address} does not answer like RethinkDB ({type(err).__name__})"
        ) from None


def describe(err: BaseException) -> str:
    """What went wrong, for people."""
    if isinstance(err, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({err.verify_message})"
    if isinstance(err, ssl.SSLError):
        return f"TLS failed ({err.reason})"
    if isinstance(err, OSError) and err.strerror:
        return err.strerror
    return type(err).__name__ if isinstance(err, EOFError) else str(err)[:120]


# -- One connection to one server: queries are pipelined, an answer is told from every other by its
# query's number. Numbers are never used twice on a connection, and a query that was given up takes
# its number with it: its late answer is for nobody. Closing never waits.

_HEADER = struct.Struct("<QL")
_CONTINUE = b"[2]"
_LONGEST_GREETING = 65_536
"""Bytes without an end, from which on it is no RethinkDB that greets."""


class Connection(asyncio.Protocol):
    """An open connection. Make one with `Wire.open`; it belongs to the loop that it was opened on.

    It takes answers apart as they arrive. A stream that a task reads would cost each of them a turn
    of the loop more."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.retired = False
        """Set: it takes no new queries, and closes when the last of those under way has its answer
        or was given up."""
        self._transport: asyncio.Transport | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _PendingQuery] = {}
        self._came = bytearray()
        """What came and is not a whole answer yet."""
        self._greeting: asyncio.Future[bytes] | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._alarm = DeadlineTimer(self._loop)
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._keeper = self._loop.create_task(self._keep(), name="coord rethinkdb connection")

    @classmethod
    async def open(cls, url: RethinkURL, address: Address) -> Connection:
        """Connect and log in. Takes as long as it takes: the caller bounds it. Raises `Trouble`."""
        connection = cls(address)
        try:
            transport, _ = await asyncio.get_running_loop().create_connection(
                lambda: connection,
                address.host,
                address.port,
                ssl=ssl_context(url.ca_certs) if url.tls else None,
            )
            set_socket_options(transport.get_extra_info("socket"))
            await log_in(connection._greet, url, address)
        except (OSError, ssl.CertificateError) as err:
            connection.close()
            raise errors.unreachable(f"cannot connect to {address}: {describe(err)}") from None
        except BaseException:
            connection.close()
            raise
        return connection

    @property
    def usable(self) -> bool:
        return not (self.retired or self._lost)

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def _lost(self) -> bool:
        return self._closed or self._transport is None or self._transport.is_closing()

    async def ask(self, url: RethinkURL, message: bytes, timeout: float) -> Any:
        """The whole answer to one query, a list for a sequence. Raises `Trouble`, and
        `TimeoutError` after `timeout` seconds."""
        return await self.begin(url, message, timeout)

    def begin(self, url: RethinkURL, message: bytes, timeout: float) -> Coroutine[Any, Any, Any]:
        """Send a query now; what is returned must be awaited, as `ask` is."""
        until = self._loop.time() + timeout
        return self._whole(url, self._put(next(self._numbers), message, until), until)

    async def _whole(self, url: RethinkURL, question: _PendingQuery, until: float) -> Any:
        items: list[Any] = []
        response = await self._answer(question)
        while response["t"] == errors.PARTIAL:
            items += response["r"]
            response = await self._exchange(question.number, _CONTINUE, until)
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
            await asyncio.sleep(0)  # whoever was woken by them goes first
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
            self._end()
            self._fail(errors.lost("the connection was closed"))

    # -- What asyncio tells it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        came, at = self._came, 0
        came += data
        if self._greeting is not None:
            self._greeted(self._greeting)
            return
        try:
            while len(came) - at >= _HEADER.size:
                number, length = _HEADER.unpack_from(came, at)
                begin, end = at + _HEADER.size, at + _HEADER.size + length
                if len(came) < end:
                    break
                asked = self._waiting.get(number)
                if asked is not None and not asked.answer.done():
                    asked.answer.set_result(json.loads(str(came[begin:end], "utf-8")))
                at = end
        except (ValueError, RecursionError):  # not the server's words
            self._broken(None)
        del came[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        self._broken(exc)

    # -- Inside

    def _broken(self, err: Exception | None) -> None:
        self._closed = True
        self._end()
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_exception(err or EOFError())
        self._fail(errors.lost(f"the connection to {self.address} broke off"))

    async def _keep(self) -> None:
        """A loop that ends cancels its tasks: that is how a connection which everybody has
        forgotten gets closed."""
        try:
            await self._over
        finally:
            self.close()

    def _write(self, data: bytes) -> None:
        assert self._transport is not None  # it is connected
        self._transport.write(data)

    def _end(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        if not self._over.done():
            self._over.set_result(None)

    async def _greet(self, request: bytes) -> bytes:
        """The answer to one message of the log-in, up to the 0 that ends it."""
        if self._closed:
            raise EOFError
        self._greeting = asyncio.get_running_loop().create_future()
        try:
            if request:
                self._write(request)
            self._greeted(self._greeting)  # two answers may have come as one
            return await self._greeting
        finally:
            self._greeting = None

    def _greeted(self, greeting: asyncio.Future[bytes]) -> None:
        end = self._came.find(b"\0")
        if end < 0 and len(self._came) > _LONGEST_GREETING:
            self._broken(ValueError("no greeting"))
        elif end >= 0 and not greeting.done():
            greeting.set_result(bytes(self._came[:end]))
            del self._came[: end + 1]

    async def _exchange(
        self, number: int, message: bytes, until: float = math.inf
    ) -> dict[str, Any]:
        return await self._answer(self._put(number, message, until))

    def _put(self, number: int, message: bytes, until: float) -> _PendingQuery:
        if self._lost:
            raise errors.unreachable(f"the connection to {self.address} was lost")
        question = self._waiting[number] = _PendingQuery(number, self._loop.create_future(), until)
        self._write(_HEADER.pack(number, len(message)) + message)
        return question

    async def _answer(self, question: _PendingQuery) -> dict[str, Any]:
        if question.deadline < math.inf:
            self._alarm.add(question)
        try:
            return await question.answer
        finally:
            self._alarm.remove(question)
            del self._waiting[question.number]
            if self.retired and not self._waiting:
                self.close()

    def _fail(self, error: QueryError) -> None:
        for question in self._waiting.values():
            if not question.answer.done():
                question.answer.set_exception(error)


class _PendingQuery:
    """Something that was sent, and is to be answered before `deadline`, by the loop's clock."""

    __slots__ = ("answer", "deadline", "number")

    def __init__(
        self, number: int, answer: asyncio.Future[dict[str, Any]], deadline: float
    ) -> None:
        self.number, self.answer, self.deadline = number, answer, deadline

    def on_deadline(self) -> None:
        """Its time is over."""
        if not self.answer.done():
            self.answer.set_exception(asyncio.TimeoutError())
