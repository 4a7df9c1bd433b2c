"""Connections to Redis: pipelined, bounded in time, never retried by the driver.

redis-py repeats commands by default, a claim among them, so its retries are off. Answers come in
the order of the requests, so a late answer is never taken for another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import ssl
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Union

from coord.runtime.timers import within
from coord.stores import failures
from coord.stores.failures import RequestError
from coord.stores.redis import errors
from coord.stores.redis.url import RedisURL
from coord.stores.server_url import Address

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

SENTINEL_TIMEOUT = 1.0
"""Seconds that one sentinel may take."""
CLOSE_TIMEOUT = 0.5
"""Seconds that a connection may take to close."""
RETIRED_TIMEOUT = 5.0
"""Seconds after which a connection with a late answer is closed."""

Word = Union[str, bytes, int]
Reply = Any
Call = tuple[str, Sequence[str], Sequence[Word]]
"""A script, its keys and its arguments."""


class Connection:
    """One connection to one server.

    Attributes:
        server: The address, for messages.
        retired: Whether a request got no answer in time. The connection takes no further requests,
            and is closed when it has answered the others.
    """

    def __init__(self, driver: AbstractConnection, server: str) -> None:
        self.server, self.retired = server, False
        self._driver, self._closing = driver, Closing(driver)
        self._pending: deque[asyncio.Future[Reply]] = deque()
        self._reader = asyncio.get_running_loop().create_task(self._read(), name="coord redis")

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self._reader.done()

    def send(self, commands: Sequence[Sequence[Word]]) -> list[asyncio.Future[Reply]]:
        """Send commands now, in one write, and return their answers.

        The futures raise the server's error as a `RedisError`, and `RequestError` if the connection
        ends before the answer.
        """
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[Reply]] = [loop.create_future() for _ in commands]
        if self.closed or not self._driver.is_connected:
            for answer in answers:
                answer.set_exception(failures.unreachable(self.server, "the connection was closed"))
            return answers
        self._pending.extend(answers)
        # The driver writes in the first step, in order; what may wait is a full buffer.
        task = loop.create_task(self._write(self._driver.pack_commands(commands)))
        _background.add(task)
        task.add_done_callback(_forget)
        return answers

    async def _write(self, packed: list[bytes]) -> None:
        # If the connection has ended meanwhile, the driver would open another one, which nobody
        # reads or closes, and send commands whose callers have been told that they are lost.
        if self._driver.is_connected:
            await self._driver.send_packed_command(packed, check_health=False)

    async def _read(self) -> None:
        from redis.exceptions import ResponseError

        reason = "the connection was closed"
        try:
            while True:
                try:
                    reply: object = await self._driver.read_response()
                except ResponseError as err:
                    reply = err
                if not self._pending:
                    return  # an answer to nothing: the connection cannot be trusted
                answer = self._pending.popleft()
                if not answer.done():
                    if isinstance(reply, Exception):
                        answer.set_exception(reply)
                    else:
                        answer.set_result(reply)
                if self.retired and all(answer.done() for answer in self._pending):
                    return
        except Exception as err:  # whatever ends a connection, its requests are merely unknown
            reason = _reason(err)
        finally:
            while self._pending:
                answer = self._pending.popleft()
                if not answer.done():
                    answer.set_exception(failures.lost(self.server, reason))
                    answer.exception()  # the caller may have stopped waiting
            await self._closing.close()

    def retire(self) -> None:
        """Take no further requests; close once the others are answered, or after a few seconds."""
        if not self.retired:
            self.retired = True
            if all(answer.done() for answer in self._pending):
                self._reader.cancel()
            else:
                asyncio.get_running_loop().call_later(RETIRED_TIMEOUT, self._reader.cancel)

    async def close(self) -> None:
        """Close the connection. Requests that are under way are unknown."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    def abandon(self) -> None:
        """Forget the connection in a forked child, without a word to the server."""
        _abandoned.append(self)


_background: set[asyncio.Task[None]] = set()
_abandoned: list[Connection] = []
"""Connections of the parent process. They are kept, because the garbage collector would close
them."""


def _forget(task: asyncio.Task[None]) -> None:
    _background.discard(task)
    if not task.cancelled():
        task.exception()  # the reader sees what is wrong with the connection, too


def import_driver() -> None:
    """Import redis-py. That takes seconds on a busy machine, so the first request does it before
    its timeout begins: no server is late because of that."""
    import redis.asyncio.connection  # noqa: F401


async def connect(url: RedisURL, address: Address, *, sentinel: bool = False) -> Connection:
    """Connect to one server and log in.

    Raises:
        RequestError: The server cannot be reached, or refuses the user.
    """
    driver = make_driver(url, address, sentinel=sentinel)
    await open_driver(driver, str(address))
    return Connection(driver, str(address))


def make_driver(url: RedisURL, address: Address, *, sentinel: bool = False) -> AbstractConnection:
    """Return a connection of redis-py that is not open yet."""
    from redis.asyncio.connection import AbstractConnection, SSLConnection
    from redis.asyncio.connection import Connection as Plain
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    settings: dict[str, Any] = {
        "host": address.host,
        "port": address.port,
        "db": 0 if sentinel else url.database,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": None,
        "socket_connect_timeout": None,
        "protocol": 2,
    }
    # Without these redis-py names itself to the server, which takes two more requests.
    if "driver_info" in inspect.signature(AbstractConnection.__init__).parameters:
        settings["driver_info"] = None
    else:
        settings |= {"lib_name": None, "lib_version": None}
    password = url.sentinel_password if sentinel else url.password
    if password or (url.user and not sentinel):
        settings |= {"username": None if sentinel else url.user or None, "password": password}
    if not url.tls:
        return Plain(**settings)
    settings |= {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    return SSLConnection(**settings, ssl_ca_certs=url.ca_certs)


async def open_driver(driver: AbstractConnection, server: str) -> None:
    """Connect and log in.

    Raises:
        RequestError: The server cannot be reached, or refuses the user.
    """
    from redis.exceptions import AuthenticationError, ResponseError
    from redis.exceptions import ConnectionError as NotConnected

    try:
        await driver.connect()  # type: ignore[no-untyped-call]  # the driver's own
    except BaseException as err:
        await Closing(driver).close()
        if isinstance(err, (ResponseError, AuthenticationError)):
            raise errors.from_server(err, server) from None
        if isinstance(err, (NotConnected, OSError, asyncio.TimeoutError)):
            raise failures.unreachable(server, _reason(err)) from None
        raise


class Closing:
    """Closes a connection of redis-py that is open now, and waits until its socket is closed.

    redis-py itself drops its connection when a read is cancelled, and does not wait. TLS ends with
    a message that the server answers. A server that does not answer is left behind.
    """

    def __init__(self, driver: AbstractConnection) -> None:
        self._driver = driver
        self._writer: asyncio.StreamWriter | None = getattr(driver, "_writer", None)

    async def close(self) -> None:
        """Close the connection, whatever state it is in. Never raises."""
        with contextlib.suppress(Exception):
            await self._driver.disconnect(nowait=True)
        if self._writer is not None:
            self._writer.close()
            try:
                await within(self._writer.wait_closed(), CLOSE_TIMEOUT)
            except (OSError, asyncio.TimeoutError):
                self._writer.transport.abort()


def _reason(error: BaseException) -> str:
    # The driver's texts name hosts and system errors only; they never contain what was sent.
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


class Client:
    """The connection that all requests of a store share, to the server that is the primary now."""

    def __init__(self, url: RedisURL) -> None:
        self.url = url
        self._connection: Connection | None = None
        self._retired: set[Connection] = set()
        self._connecting: asyncio.Task[Connection] | None = None
        self._moved_to: Address | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    async def command(self, timeout: float, *words: Word) -> Reply:
        """Send one command, and return the answer within `timeout` seconds.

        A command that was certainly not applied is sent again while there is time, to the server
        that is the primary then.

        Raises:
            RequestError: There is no answer.
        """
        return (await self.pipeline(timeout, [words]))[0]

    async def pipeline(self, timeout: float, commands: Sequence[Sequence[Word]]) -> list[Reply]:
        """Send commands together, and return their answers in order.

        Raises:
            RequestError: One of them has no answer. The others may have been applied.
        """
        replies = await self.pipeline_each(timeout, commands)
        for reply in replies:
            if isinstance(reply, RequestError):
                raise reply
        return replies

    async def pipeline_each(
        self, timeout: float, commands: Sequence[Sequence[Word]]
    ) -> list[Reply]:
        """Send commands together, and return their answers in order. In the place of a command
        without an answer is a `RequestError`.

        Those that were certainly not applied are sent again, as by `command`.
        """
        import_driver()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        replies: list[Reply] = [None] * len(commands)
        numbers = list(range(len(commands)))
        failures = 0
        while True:
            try:
                answers = await self._send([commands[number] for number in numbers], deadline)
            except RequestError as err:  # there is no connection
                answers = [err] * len(numbers)
            for number, answer in zip(numbers, answers, strict=True):
                replies[number] = answer
            numbers = [number for number in numbers if _retryable(replies[number])]
            failures += 1
            if not numbers or failures > 3 or loop.time() + 0.05 * failures >= deadline:
                return replies
            if self._connection is not None:
                self._retire(self._connection)
            await asyncio.sleep(0.02 * failures)

    async def _send(self, commands: Sequence[Sequence[Word]], deadline: float) -> list[Reply]:
        from redis.exceptions import RedisError

        connection = await self.connection(deadline)
        answers = connection.send(commands)
        loop = asyncio.get_running_loop()
        try:
            _, late = await asyncio.wait(answers, timeout=max(0.0, deadline - loop.time()))
        finally:
            for answer in answers:
                answer.cancel()  # of a caller that was cancelled; nothing if there is an answer
        if late:
            self._retire(connection)
        replies: list[Reply] = []
        for answer in answers:
            if answer in late:
                replies.append(failures.lost(connection.server, "no answer in time"))
                continue
            try:
                replies.append(answer.result())
            except RequestError as err:
                replies.append(err)
            except RedisError as err:
                if errors.code_of(err) == "MOVED":
                    self._moved_to = _moved(err)
                missing = errors.code_of(err) == "NOSCRIPT"
                replies.append(err if missing else errors.from_server(err, connection.server))
        return replies

    async def connection(self, deadline: float) -> Connection:
        """Return the shared connection, connected by `deadline` on the loop's clock.

        Raises:
            RequestError: The server cannot be reached, or refuses the user.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._connection, self._connecting = loop, None, None
            self._retired = set()
        if self._is_closed:
            raise failures.closed()
        connection = self._connection
        if connection is not None and not (connection.closed or connection.retired):
            return connection
        connecting = self._connecting
        if connecting is None or connecting.done():
            connecting = loop.create_task(self._connect(), name="coord redis connect")
            connecting.add_done_callback(_observe)
            self._connecting = connecting
        # By the time that this caller goes on, another one may have begun to connect again.
        _, late = await asyncio.wait({connecting}, timeout=max(0.0, deadline - loop.time()))
        if late:
            raise failures.unreachable(self.url.redacted, "no connection in time", retryable=False)
        if connecting.cancelled():  # by `close`: this caller was not cancelled
            raise failures.closed()
        return connecting.result()

    async def _connect(self) -> Connection:
        address = self._moved_to or await self.primary()
        self._moved_to = None
        self._connection = await connect(self.url, address)
        return self._connection

    async def primary(self) -> Address:
        """Return the address of the primary.

        Raises:
            RequestError: No sentinel knows it.
        """
        if self.url.service is None:
            return self.url.hosts[0]
        problem = failures.unreachable(self.url.redacted, "no sentinel answered")
        for sentinel in self.url.hosts:
            try:
                connection = await within(
                    connect(self.url, sentinel, sentinel=True), SENTINEL_TIMEOUT
                )
            except (RequestError, asyncio.TimeoutError):
                continue
            try:
                (answer,) = connection.send(
                    [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.url.service)]
                )
                address = await within(answer, SENTINEL_TIMEOUT)
            except Exception as err:  # the next sentinel may know
                problem = failures.unreachable(str(sentinel), type(err).__name__)
                continue
            finally:
                await connection.close()
            if address:
                host, port = address
                return Address(host.decode(), int(port))
            problem = failures.unreachable(
                str(sentinel), f"the sentinel does not know {self.url.service!r}"
            )
        raise problem

    def _retire(self, connection: Connection) -> None:
        """Send later requests on another connection."""
        if connection is self._connection:
            self._connection = None
        connection.retire()
        self._retired = {old for old in {*self._retired, connection} if not old.closed}

    async def close(self) -> None:
        """Close all connections."""
        self._is_closed = True
        connections = [*self._retired, *([self._connection] if self._connection else [])]
        self._connection, self._retired = None, set()
        if self._connecting is not None and not self._connecting.done():
            self._connecting.cancel()
        await asyncio.gather(
            *(connection.close() for connection in connections), return_exceptions=True
        )

    def abandon(self) -> None:
        """Forget all connections in a forked child, without a word to the server."""
        for connection in [*self._retired, *([self._connection] if self._connection else [])]:
            connection.abandon()
        self._connection, self._retired, self._connecting, self._loop = None, set(), None, None


def _retryable(reply: Reply) -> bool:
    return isinstance(reply, RequestError) and reply.retryable


def _observe(task: asyncio.Task[Connection]) -> None:
    if not task.cancelled():
        task.exception()


def _moved(error: Exception) -> Address | None:
    host, _, port = str(error).rpartition(" ")[2].rpartition(":")
    return Address(host, int(port)) if host and port.isdigit() else None


class Scripts:
    """Runs scripts by their digest, and sends their text where the server does not have it."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def run(
        self, script: str, keys: Sequence[str], arguments: Sequence[Word], timeout: float
    ) -> Reply:
        """Return the answer of one script.

        Raises:
            RequestError: There is no answer.
        """
        (reply,) = await self.run_each([(script, keys, arguments)], timeout)
        if isinstance(reply, RequestError):
            raise reply
        return reply

    async def run_each(self, calls: Sequence[Call], timeout: float) -> list[Reply]:
        """Return the answers of scripts that are sent together, in order. In the place of a script
        without an answer is a `RequestError`."""
        import_driver()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        commands = [
            ("EVALSHA", _digest(script), len(keys), *keys, *values)
            for script, keys, values in calls
        ]
        replies = await self.client.pipeline_each(timeout, commands)
        # NOSCRIPT: the server ran nothing.
        missing = [
            number
            for number, reply in enumerate(replies)
            if isinstance(reply, Exception) and not isinstance(reply, RequestError)
        ]
        if missing:
            again = [("EVAL", calls[number][0], *commands[number][2:]) for number in missing]
            remaining = max(deadline - loop.time(), 0.001)
            answers = await self.client.pipeline_each(remaining, again)
            for number, reply in zip(missing, answers, strict=True):
                replies[number] = reply
        return replies


@lru_cache
def _digest(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
