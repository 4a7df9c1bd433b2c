"""The connections of one store: one shared by all queries, and one for each feed.

The shared connection goes to whichever server of the URL answers. When it fails, it is thrown away
and the next query makes a new one. Announcements and service records use their store's pool.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

from coord.errors import CoordError, StoreUnavailable
from coord.runtime.retry import retry_until, rng
from coord.runtime.timers import within
from coord.stores.connecting import first_connection
from coord.stores.failures import RequestError
from coord.stores.rethinkdb import driver, errors
from coord.stores.rethinkdb.connection import Connection
from coord.stores.rethinkdb.url import Address, RethinkURL

CONNECT_TIMEOUT = 10.0
"""Seconds after which an attempt to connect is given up, whether or not a query waits for it."""
MIN_TIMEOUT = 0.001
"""The least number of seconds that a query gets, so that a timeout is never 0 or negative."""

_leaked: list[object] = []
"""Keeps the parent's connections alive in a forked child. If they were garbage-collected, that
could touch the parent's sockets."""


class Deadline:
    """The moment by which an operation of several queries must be done.

    Args:
        timeout: Seconds from now.
    """

    __slots__ = ("_loop", "_until")

    def __init__(self, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + timeout

    def left(self) -> float:
        """Return the seconds that are left, at least `MIN_TIMEOUT`."""
        return max(self._until - self._loop.time(), MIN_TIMEOUT)


class Pool:
    """The connections of one store.

    A pool works on the event loop that it is called from. When it is called from another loop, it
    drops the connections of the first.

    Args:
        url: The servers, the user and the database.
        in_order: Whether to try the servers in the order of the URL. Otherwise the first is chosen
            at random, so that clients spread over the servers.
    """

    def __init__(self, url: RethinkURL, *, in_order: bool = False) -> None:
        self.url = url
        self._order = list(url.hosts) if in_order else rng.sample(url.hosts, len(url.hosts))
        self._reset()

    def _reset(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._shared: Connection | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._connections: set[Connection] = set()

    async def run(self, term: Any, timeout: float) -> Any:
        """Return the answer to one query, which is sent at most once.

        Args:
            term: A term of the driver, or an encoded query.
            timeout: Seconds for connecting and for the answer together.

        Raises:
            StoreUnavailable: No server answered in time.
            StoreRefused: The server rejects this query.
        """
        try:
            return await self.query(term, timeout)
        except RequestError as error:
            raise error.error() from None

    async def read(self, term: Any, timeout: float) -> Any:
        """Return the answer to a query that changes nothing, and so may be sent again.

        Args:
            term: A term of the driver, or an encoded query.
            timeout: Seconds for all attempts together.

        Raises:
            StoreUnavailable: No server answered in time.
            StoreRefused: The server rejects this query.
        """

        async def attempt(remaining: float) -> Any:
            try:
                return await self.query(term, remaining)
            except RequestError as error:
                if error.retryable:
                    raise error.error() from None
                raise  # no other attempt

        try:
            return await retry_until(attempt, timeout)
        except RequestError as error:
            raise error.error() from None

    async def feed(self, term: Any, *, refusals: bool = False) -> AsyncGenerator[Any, None]:
        """Yield the changes of a changefeed. The feed has a connection of its own.

        Args:
            term: A term of the driver that ends in `changes()`.
            refusals: Whether to raise `StoreRefused` when the server rejects the feed. Otherwise
                this is a `StoreUnavailable` as well, as the protocols of `watch` require.

        Raises:
            StoreUnavailable: The feed broke off, or lost changes. Open a new one.
            StoreRefused: The server rejects this feed.
        """
        try:
            async with contextlib.aclosing(self._changes(term)) as changes:
                async for change in changes:
                    yield change
        except RequestError as error:
            if refusals and error.refusal is not None:
                raise error.error() from None
            raise StoreUnavailable(f"the feed broke off: {error.detail}") from None
        except asyncio.TimeoutError:
            raise StoreUnavailable("the feed could not be opened in time") from None
        except CoordError:
            raise
        except Exception as error:  # Whatever it is, a new feed may work.
            raise StoreUnavailable(f"the feed broke off ({type(error).__name__})") from None

    async def query(self, term: Any, timeout: float) -> Any:
        """Do the same as `run`, for callers that must know whether the query may have been applied.

        These are the swaps of leases (rule 8) and the set-up.

        Raises:
            RequestError: There is no answer.
        """
        deadline = Deadline(timeout)
        message = term if isinstance(term, bytes) else driver.start(term, {})
        connection = await self._connected(deadline)
        return await self._answer(
            connection, connection.ask(self.url, message, deadline.left()), timeout
        )

    def begin(self, message: bytes, timeout: float) -> Coroutine[Any, Any, Any] | None:
        """Send a query at once, before anybody awaits the answer.

        Args:
            message: An encoded query.
            timeout: Seconds that the answer may take.

        Returns:
            The answer, to be awaited like `query`; None if there is no connection yet. Then nothing
            was sent.
        """
        connection = self._shared
        if (
            connection is None
            or not connection.usable
            or self._loop is not asyncio.get_running_loop()
        ):
            return None
        return self._answer(connection, connection.begin(self.url, message, timeout), timeout)

    async def _answer(
        self, connection: Connection, answer: Coroutine[Any, Any, Any], timeout: float
    ) -> Any:
        try:
            return await answer
        except asyncio.TimeoutError:
            self._discard(connection)
            detail = f"{connection.address} did not answer within {timeout:g} s"
            raise errors.lost(detail) from None
        except asyncio.CancelledError:
            self._discard(connection)
            raise
        except RequestError as error:
            if error.retryable:
                self._discard(connection)
            raise

    async def _changes(self, term: Any) -> AsyncGenerator[Any, None]:
        self._on_this_loop()
        message = driver.start(term, {})
        connection = await within(self._open_any(), CONNECT_TIMEOUT)
        try:
            async for change in connection.feed(self.url, message):
                if change.get("error"):
                    raise errors.lost("the server lost part of the feed")
                yield change
        except RequestError as error:
            if error.retryable:
                self._move_to_end(connection.address)
            raise
        finally:
            self._drop(connection)

    async def close(self) -> None:
        """Close all connections at once."""
        if self._loop is asyncio.get_running_loop():
            if self._opening is not None:
                self._opening.cancel()
            for connection in tuple(self._connections):
                self._drop(connection)
            await asyncio.sleep(0)  # The transports report on the next turn that they have closed.
        self._reset()

    def abandon(self) -> None:
        """Forget all connections in a forked child: they are the parent's (rule 9)."""
        _leaked.extend((self._connections, self._shared, self._opening, self._loop))
        self._reset()

    def _on_this_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            for connection in self._connections:
                connection.close()
            self._reset()
            self._loop = loop

    async def _connected(self, deadline: Deadline) -> Connection:
        """Return the shared connection. Queries that come meanwhile wait for the same attempt."""
        self._on_this_loop()
        if self._shared is not None and self._shared.usable:
            return self._shared
        opening = self._opening
        if opening is None or opening.done():
            opening = asyncio.get_running_loop().create_task(
                self._share(), name="coord rethinkdb connecting"
            )
            # Every query may have given up by then. Asking for the exception keeps asyncio from
            # reporting it as never retrieved.
            opening.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._opening = opening
        _, late = await asyncio.wait({opening}, timeout=max(0.0, deadline.left()))
        if late:
            raise errors.unreachable(f"no connection to {self._names()} in time")
        if opening.cancelled():  # by `close`: this query was not cancelled
            raise errors.unreachable("the store was closed")
        return opening.result()

    async def _share(self) -> Connection:
        try:
            self._shared = await within(self._open_any(), CONNECT_TIMEOUT)
        except asyncio.TimeoutError:
            detail = f"no connection to {self._names()} in {CONNECT_TIMEOUT:g} s"
            raise errors.unreachable(detail) from None
        return self._shared

    async def _open_any(self) -> Connection:
        """Return a connection to the first server that accepts one.

        The servers that failed last are tried last.

        Raises:
            RequestError: No server accepts a connection; or one refuses for good, as with a wrong
                password.
        """
        return await first_connection(self._order, self._open, self._drop, _is_final)

    async def _open(self, address: Address) -> Connection:
        try:
            connection = await Connection.open(self.url, address)
        except RequestError:
            self._move_to_end(address)
            raise
        self._forget_closed()
        self._connections.add(connection)
        return connection

    def _discard(self, connection: Connection) -> None:
        """Use another connection for the next query: this one failed, or does not answer."""
        if self._shared is connection:
            self._shared = None
            self._move_to_end(connection.address)
        connection.retire()
        self._forget_closed()

    def _drop(self, connection: Connection) -> None:
        connection.close()
        self._connections.discard(connection)

    def _forget_closed(self) -> None:
        self._connections = {
            connection for connection in self._connections if not connection.closed
        }

    def _move_to_end(self, address: Address) -> None:
        if address in self._order:
            self._order.remove(address)
            self._order.append(address)

    def _names(self) -> str:
        return ", ".join(str(host) for host in self.url.hosts)


def _is_final(error: BaseException) -> bool:
    return not isinstance(error, RequestError) or error.refusal is not None
