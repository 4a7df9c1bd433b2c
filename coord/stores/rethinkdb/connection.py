"""One connection to one server: trust in the server, the log-in, and queries.

Queries are pipelined: the number of a query tells its answer from every other one. Numbers are
never used twice on a connection, so the late answer to a query that was given up belongs to nobody.
Closing never waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Coroutine
from functools import lru_cache
from typing import Any, cast

from coord.errors import AccessDenied
from coord.runtime.timers import DeadlineTimer
from coord.stores.failures import RequestError
from coord.stores.rethinkdb import driver, errors, handshake
from coord.stores.rethinkdb.handshake import LoginRefused, MalformedGreeting
from coord.stores.rethinkdb.url import Address, RethinkURL

MAX_GREETING = 16_384
"""Bytes of one answer during the log-in. RethinkDB sends some hundred."""
MAX_RESPONSE = 64 * 2**20
"""Bytes of one response. RethinkDB sends long results in parts of about one MiB; a batch of 1,000
rows with the largest info has 33 MiB."""
MAX_RESULT = 256 * 2**20
"""Bytes of all responses to one query."""
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds, seconds and times: a feed, which only listens, learns within half a minute that its
machine is gone."""
_HEADER = struct.Struct("<QL")
_CONTINUE = b"[2]"


@lru_cache(maxsize=8)
def ssl_context(ca_certs: str | None) -> ssl.SSLContext:
    """Return the settings for TLS 1.2 or later, with the certificate and the host name checked.

    Args:
        ca_certs: The PEM file of trusted certificates; None means those of the system.

    Raises:
        RequestError: The file cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=ca_certs)
    except (OSError, ssl.SSLError) as err:
        raise RequestError(
            f"ca_certs cannot be used: {describe(err)}", unknown=False, refusal=AccessDenied
        ) from None


def set_socket_options(sock: Any) -> None:
    """Send without delay, and notice when the other machine is gone."""
    with contextlib.suppress(OSError, AttributeError):  # Correct answers need none of this.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


def describe(err: BaseException) -> str:
    """Return what went wrong, for people."""
    if isinstance(err, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({err.verify_message})"
    if isinstance(err, ssl.SSLError):
        return f"TLS failed ({err.reason})"
    if isinstance(err, OSError) and err.strerror:
        return err.strerror
    return type(err).__name__ if isinstance(err, EOFError) else str(err)[:120]


class Connection(asyncio.Protocol):
    """An open connection, made by `Connection.open`. It belongs to the loop that it was opened on.

    It decodes answers as they arrive. A stream that a task reads would cost each answer one more
    turn of the loop.

    Attributes:
        address: The server.
        retired: Whether it takes no new queries. It closes when the last query has its answer or
            was given up.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.retired = False
        self._transport: asyncio.Transport | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _PendingQuery] = {}
        self._received = bytearray()
        """What has arrived and is not a whole answer yet."""
        self._logged_in = False
        self._greeting: asyncio.Future[bytes] | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._alarm = DeadlineTimer(self._loop)
        self._end_of_life: asyncio.Future[None] = self._loop.create_future()
        self._keeper = self._loop.create_task(self._keep(), name="coord rethinkdb connection")

    @classmethod
    async def open(cls, url: RethinkURL, address: Address) -> Connection:
        """Connect and log in. It has no timeout: the caller sets a limit.

        Raises:
            RequestError: The server cannot be reached, refuses the user, or is no RethinkDB server.
        """
        driver.reql()  # Without the driver there are no queries, so it is not worth connecting.
        connection = cls(address)
        try:
            transport, _ = await asyncio.get_running_loop().create_connection(
                lambda: connection,
                address.host,
                address.port,
                ssl=ssl_context(url.ca_certs) if url.tls else None,
            )
            set_socket_options(transport.get_extra_info("socket"))
            await connection._log_in(url)
        except (OSError, ssl.CertificateError) as err:
            connection.close()
            raise errors.unreachable(f"cannot connect to {address}: {describe(err)}") from None
        except BaseException:
            connection.close()
            raise
        return connection

    @property
    def usable(self) -> bool:
        """Whether it takes queries."""
        return not (self.retired or self._lost)

    @property
    def closed(self) -> bool:
        """Whether it was closed, by either side."""
        return self._closed

    @property
    def _lost(self) -> bool:
        return self._closed or self._transport is None or self._transport.is_closing()

    async def ask(self, url: RethinkURL, message: bytes, timeout: float) -> Any:
        """Return the whole answer to one query, a list for a sequence.

        Raises:
            RequestError: The server reports an error, or the connection was lost.
            TimeoutError: There is no answer after `timeout` seconds.
        """
        return await self.begin(url, message, timeout)

    def begin(self, url: RethinkURL, message: bytes, timeout: float) -> Coroutine[Any, Any, Any]:
        """Send a query now. Returns what must be awaited for its answer, as with `ask`."""
        until = self._loop.time() + timeout
        return self._whole(url, self._put(next(self._numbers), message, until), until)

    async def _whole(self, url: RethinkURL, query: _PendingQuery, until: float) -> Any:
        items: list[Any] = []
        size = 0
        while True:
            response = await self._answer(query)
            size += query.size
            if size > MAX_RESULT:
                raise errors.lost(f"{self.address} sent more than {MAX_RESULT:,} bytes")
            if response["t"] != errors.PARTIAL:
                break
            items += response["r"]
            query = self._put(query.number, _CONTINUE, until)
        if response["t"] == errors.SEQUENCE:
            return items + response["r"]
        if response["t"] in (errors.ATOM, errors.SERVER_INFO):
            return response["r"][0]
        raise errors.from_response(response, url)

    async def feed(self, url: RethinkURL, message: bytes) -> AsyncGenerator[Any, None]:
        """Yield the items of a changefeed as they arrive.

        Raises:
            RequestError: The feed broke off.
        """
        number = next(self._numbers)
        response = await self._answer(self._put(number, message))
        while response["t"] == errors.PARTIAL:
            for item in response["r"]:
                yield item
            await asyncio.sleep(0)  # What the items have woken goes first.
            response = await self._answer(self._put(number, _CONTINUE))
        if response["t"] == errors.SEQUENCE:
            raise errors.lost("the feed ended")
        raise errors.from_response(response, url)

    def retire(self) -> None:
        """Take no new queries, and close when none is under way."""
        self.retired = True
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """Close at once. The outcome of every query that has no answer is unknown."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(RuntimeError):  # Its loop has been closed already.
            self._end()
            self._fail(errors.lost("the connection was closed"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio with the next bytes."""
        received, at = self._received, 0
        received += data
        if not self._logged_in:
            self._take_greeting()
            return
        try:
            while len(received) - at >= _HEADER.size:
                number, length = _header(received, at)
                begin, end = at + _HEADER.size, at + _HEADER.size + length
                if len(received) < end:
                    break
                query = self._waiting.get(number)
                if query is not None and not query.answer.done():
                    query.size = length
                    query.answer.set_result(_response(received[begin:end]))
                at = end
        except _Malformed as err:
            self._broken(err)
        del received[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio when the connection was closed by the other side."""
        self._broken(exc)

    def _broken(self, err: Exception | None) -> None:
        self._closed = True
        self._end()
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_exception(err or EOFError())
        why = f"{self.address} sent {err}" if isinstance(err, _Malformed) else ""
        self._fail(errors.lost(why or f"the connection to {self.address} broke off"))

    async def _keep(self) -> None:
        """A loop that ends cancels its tasks. That closes a connection that everybody has
        forgotten."""
        try:
            await self._end_of_life
        finally:
            self.close()

    def _write(self, data: bytes) -> None:
        assert self._transport is not None  # It is connected.
        self._transport.write(data)

    def _end(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        if not self._end_of_life.done():
            self._end_of_life.set_result(None)

    async def _log_in(self, url: RethinkURL) -> None:
        address = self.address
        try:
            await handshake.log_in(self._exchange_greeting, url.user, url.password)
        except LoginRefused:
            detail = f"{address} refuses the user {url.user!r}: wrong user or password"
            raise RequestError(detail, unknown=False, refusal=AccessDenied) from None
        except MalformedGreeting as err:
            detail = f"{address} does not answer like RethinkDB: {err}"
            raise errors.unreachable(detail) from None
        except (OSError, EOFError) as err:
            hint = "" if url.tls else " (does it want TLS? then add tls=1)"
            detail = f"{address} broke off while logging in: {describe(err)}{hint}"
            raise errors.unreachable(detail) from None
        self._logged_in = True
        self.data_received(b"")

    async def _exchange_greeting(self, request: bytes) -> bytes:
        """Send a message of the log-in, and return the next answer without the 0 that ends it."""
        if self._closed:
            raise EOFError
        self._greeting = asyncio.get_running_loop().create_future()
        try:
            if request:
                self._write(request)
            self._take_greeting()  # Two answers may have arrived together.
            return await self._greeting
        finally:
            self._greeting = None

    def _take_greeting(self) -> None:
        end = self._received.find(b"\0", 0, MAX_GREETING)
        if end < 0 and len(self._received) >= MAX_GREETING:
            self._broken(MalformedGreeting(f"it sends more than {MAX_GREETING:,} bytes"))
        elif end >= 0 and self._greeting is not None and not self._greeting.done():
            self._greeting.set_result(bytes(self._received[:end]))
            del self._received[: end + 1]
        elif len(self._received) > 4 * MAX_GREETING:  # It sends though it is our turn.
            self._broken(None)

    def _put(self, number: int, message: bytes, until: float = math.inf) -> _PendingQuery:
        if self._lost:
            raise errors.unreachable(f"the connection to {self.address} was lost")
        query = self._waiting[number] = _PendingQuery(number, self._loop.create_future(), until)
        self._write(_HEADER.pack(number, len(message)) + message)
        return query

    async def _answer(self, query: _PendingQuery) -> dict[str, Any]:
        if query.deadline < math.inf:
            self._alarm.add(query)
        try:
            return await query.answer
        finally:
            self._alarm.remove(query)
            del self._waiting[query.number]
            if self.retired and not self._waiting:
                self.close()

    def _fail(self, error: RequestError) -> None:
        for query in self._waiting.values():
            if not query.answer.done():
                query.answer.set_exception(error)


class _Malformed(Exception):
    """These bytes are no response of RethinkDB. The text says what they are."""


def _header(received: bytearray, at: int) -> tuple[int, int]:
    """Return the number of the query and the length of its response."""
    number, length = _HEADER.unpack_from(received, at)
    if length > MAX_RESPONSE:
        raise _Malformed(f"a response of {length:,} bytes, of at most {MAX_RESPONSE:,}")
    return number, length


def _response(payload: bytearray) -> dict[str, Any]:
    """Return the response in these bytes: `t` is its type, `r` the list of its results."""
    try:
        response = json.loads(str(payload, "utf-8"))
    except (ValueError, RecursionError):
        raise _Malformed("a response that is not JSON") from None
    if (
        isinstance(response, dict)
        and isinstance(response.get("t"), int)
        and isinstance(response.get("r"), list)
        and (response["r"] or response["t"] not in (errors.ATOM, errors.SERVER_INFO))
    ):
        return response
    raise _Malformed("a response without a type and results")


class _PendingQuery:
    """A query that was sent.

    Attributes:
        number: Its number on the connection.
        answer: The response.
        deadline: When its time is over, by the loop's clock.
        size: Bytes of the response.
    """

    __slots__ = ("answer", "deadline", "number", "size")

    def __init__(
        self, number: int, answer: asyncio.Future[dict[str, Any]], deadline: float
    ) -> None:
        self.number, self.answer, self.deadline = number, answer, deadline
        self.size = 0

    def on_deadline(self) -> None:
        """Called when its time is over."""
        if not self.answer.done():
            self.answer.set_exception(asyncio.TimeoutError())
