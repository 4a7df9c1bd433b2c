"""The connections of one store: a few that all requests share, and one for each feed.

A connection serves one request at a time. When a request is given up, its connection is closed at
once and no cancel request is sent: PostgreSQL would answer a claim that waits for a standby with
success, although the standby never got it. What was given up may still be applied (rule 8).

A pooler such as PgBouncer may run each transaction on another connection to the server. Then a
statement that was prepared before is missing there, or is another one. So every request through a
pooler is a transaction of its own that prepares its statement itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

from coord.errors import AccessDenied, StoreRefused
from coord.runtime.timers import LightSemaphore, within
from coord.stores.connecting import first_connection
from coord.stores.failures import RequestError
from coord.stores.postgresql import errors
from coord.stores.postgresql.url import PostgreSQLURL
from coord.stores.server_url import Address

MAX_CONNECTIONS = 4
"""Connections that the requests of one store share."""
CONNECT_TIMEOUT = 10.0
"""Seconds after which an attempt to connect is given up."""
ATTEMPT_LIFETIME = 1.0
"""Seconds for which a request may go on with an attempt to connect that another one has left. An
older one may wait for a server that has died meanwhile."""
STATEMENT_TIMEOUT = 60
"""Seconds after which the server ends a statement that waits, for instance for a lock."""
BEGIN = (
    "BEGIN ISOLATION LEVEL READ COMMITTED; "
    f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT * 1000}"
)
"""How a transaction through a pooler begins, which passes no settings of a connection on."""
CLOSE_TIMEOUT = 0.5
"""Seconds that `close` gives a connection to say good-bye."""

_leaked: list[object] = []
"""Keeps the parent's connections alive in a forked child. Closing them there would end them for the
parent."""


@lru_cache(maxsize=1)
def driver() -> Any:
    """Return the module asyncpg.

    Raises:
        StoreRefused: It is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import asyncpg
        except ImportError as err:
            raise StoreRefused(
                f"asyncpg cannot be imported ({type(err).__name__}: {err}); "
                f"install it with: pip install 'coord[postgresql]'"
            ) from None
    return asyncpg


class _QuietFuture(asyncio.Future[Any]):
    """A future of asyncpg, which may be left behind when its connection is given up.

    Nobody needs to look at its exception then, and asyncpg may still set its result. asyncio would
    report both, also if the loop has ended before a callback could look at the exception.
    """

    def set_result(self, result: Any) -> None:
        if not self.cancelled():
            super().set_result(result)

    def set_exception(self, exception: type | BaseException) -> None:
        if not self.cancelled():
            super().set_exception(exception)
            self.exception()


class _DriverLoop:
    """The running loop as asyncpg sees it, with futures that leave nothing to report."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def create_future(self) -> asyncio.Future[Any]:
        return _QuietFuture(loop=self._loop)


def retrieve(future: asyncio.Future[Any]) -> None:
    """Take the exception of a future that nobody awaits any longer."""
    if not future.cancelled():
        future.exception()


class Connection:
    """One open connection, of the loop that it was opened on.

    Attributes:
        raw: The connection of asyncpg.
        pooled: Whether a pooler is between it and the server.
        warned: Whether the server has sent a warning since this was last set to False.
    """

    def __init__(self, raw: Any, *, pooled: bool = False) -> None:
        self.raw, self.pooled = raw, pooled
        self.warned = False
        raw.add_log_listener(self._on_message)
        self._end = asyncio.get_running_loop().create_future()
        self._keeper = asyncio.get_running_loop().create_task(
            self._keep(), name="coord postgresql connection"
        )

    @property
    def usable(self) -> bool:
        """Whether it takes a request."""
        return not self.raw.is_closed()

    async def fetch(self, url: PostgreSQLURL, sql: str, args: Sequence[Any], timeout: float) -> Any:
        """Return the rows that one statement answers with.

        Raises:
            RequestError: There is no answer.
        """
        self.warned = False
        # A task of its own: if this coroutine were cancelled, asyncpg would send a cancel request.
        answer = asyncio.ensure_future(self._fetch(sql, args))
        try:
            done, _ = await asyncio.wait({answer}, timeout=timeout)
        except BaseException:
            self._give_up(answer)
            raise
        if not done:
            self._give_up(answer)
            raise errors.lost(f"{url.redacted} did not answer within {timeout:g} s")
        try:
            rows = answer.result()
        except Exception as err:
            raise from_exception(err, url) from None
        if self.warned:
            # For instance: "committed locally, but might not have been replicated".
            raise errors.lost(f"{url.redacted} answered with a warning")
        return rows

    async def _fetch(self, sql: str, args: Sequence[Any]) -> Any:
        if not self.pooled:
            return await self.raw.fetch(sql, *args)
        await self.raw.execute(BEGIN)
        try:
            rows = await self.raw.fetch(sql, *args)
        except Exception:
            with contextlib.suppress(Exception):  # The first error counts.
                await self.raw.execute("ROLLBACK")
            raise
        await self.raw.execute("COMMIT")
        return rows

    def _give_up(self, answer: asyncio.Future[Any]) -> None:
        self.terminate()
        answer.add_done_callback(retrieve)

    async def close(self) -> None:
        """Close it politely, or at once if the server does not react."""
        try:
            await within(self.raw.close(), CLOSE_TIMEOUT)
        except Exception:
            self.terminate()
        self._stop()

    def terminate(self) -> None:
        """Close it at once."""
        with contextlib.suppress(Exception):  # Its loop may have been closed.
            self.raw.terminate()
        self._stop()

    def _stop(self) -> None:
        with contextlib.suppress(RuntimeError):
            if not self._end.done():
                self._end.set_result(None)

    async def _keep(self) -> None:
        """A loop that ends cancels its tasks. That closes a connection that everybody has
        forgotten."""
        try:
            await self._end
        finally:
            if not self._end.done() or self._end.cancelled():
                self.terminate()

    def _on_message(self, _connection: Any, message: Any) -> None:
        severity = str(getattr(message, "severity_en", None) or getattr(message, "severity", ""))
        self.warned = self.warned or severity.upper() == "WARNING"


def from_exception(err: BaseException, url: PostgreSQLURL) -> RequestError:
    """Return the error for an exception of the driver, after a request was sent."""
    asyncpg = driver()
    code = getattr(err, "sqlstate", None)
    if isinstance(err, asyncpg.PostgresError) and isinstance(code, str) and code != "08003":
        return errors.from_code(code, url)
    if isinstance(err, (ValueError, TypeError, OverflowError)) and not isinstance(err, OSError):
        # asyncpg.DataError and InterfaceError are ValueErrors or no PostgresErrors.
        return RequestError(
            f"{url.redacted} cannot take these values", unknown=False, refusal=StoreRefused
        )
    return errors.lost(f"the connection to {url.redacted} broke off ({type(err).__name__})")


class Pool:
    """The connections of one store.

    A pool works on the event loop that it is called from. When it is called from another loop, it
    drops the connections of the first.
    """

    def __init__(self, url: PostgreSQLURL) -> None:
        self.url = url
        self._order: list[Address | None] = list(url.hosts) or [None]
        self._poolers: set[Address | None] = set()
        self._reset()

    @property
    def pooled(self) -> bool:
        """Whether one of the servers turned out to be a pooler."""
        return bool(self._poolers)

    def _reset(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._opening: set[asyncio.Task[Connection]] = set()
        self._left: dict[asyncio.Task[Connection], float] = {}
        self._turns = LightSemaphore(MAX_CONNECTIONS)

    async def run(self, sql: str, args: Sequence[Any], timeout: float) -> Any:
        """Return the rows that one statement answers with. It is sent at most once.

        Args:
            sql: The statement.
            args: Its parameters.
            timeout: Seconds for a connection and for the answer together.

        Raises:
            RequestError: There is no answer.
            StoreRefused: asyncpg is not installed.
        """
        # The first request imports it, which takes seconds on a busy machine. No server is late
        # because of that.
        driver()
        self._on_this_loop()
        loop, turns = asyncio.get_running_loop(), self._turns
        deadline = loop.time() + timeout
        turn = turns.acquire()
        try:
            if turn is not None:
                try:
                    await within(turn, max(deadline - loop.time(), 0.001))
                except asyncio.TimeoutError:
                    raise errors.unreachable(
                        f"no connection to {self.url.redacted} was free in time"
                    ) from None
            connection = await self._connected(max(deadline - loop.time(), 0.001))
            return await self._answer(connection, sql, args, max(deadline - loop.time(), 0.001))
        finally:
            turns.release(turn)

    async def _answer(
        self, connection: Connection, sql: str, args: Sequence[Any], timeout: float
    ) -> Any:
        keep = False
        try:
            rows = await connection.fetch(self.url, sql, args, timeout)
            keep = True
        except RequestError as error:
            keep = not isinstance(error, errors.ConnectionLost)
            raise
        finally:
            if keep and connection.usable and connection in self._all:
                self._idle.append(connection)
            else:
                self.drop(connection)
        return rows

    async def _connected(self, timeout: float) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            self.drop(connection)
        attempt, began = self._attempt()
        late = {attempt}
        try:
            _, late = await asyncio.wait({attempt}, timeout=timeout)
        finally:
            if late:  # or this caller was cancelled
                self._left[attempt] = began
                if attempt.done():
                    self._opened(attempt)
        if late:
            raise errors.unreachable(f"no connection to {self.url.redacted} in time")
        if attempt.cancelled():  # by `close`: this caller was not cancelled
            raise errors.unreachable("the store was closed")
        return attempt.result()

    def _attempt(self) -> tuple[asyncio.Task[Connection], float]:
        """Return a task that opens a connection, and when it began.

        A request that gives up leaves its attempt to later ones. If it ended the attempt, requests
        with short timeouts would never get a connection to a server that is busy.
        """
        loop = asyncio.get_running_loop()
        while self._left:
            attempt, began = self._left.popitem()
            if attempt.done() or loop.time() < began + ATTEMPT_LIFETIME:
                return attempt, began
            attempt.cancel()
        attempt = loop.create_task(self.open(CONNECT_TIMEOUT), name="coord postgresql connecting")
        attempt.add_done_callback(self._opened)
        self._opening.add(attempt)
        return attempt, loop.time()

    def _opened(self, attempt: asyncio.Task[Connection]) -> None:
        # Asking for the exception keeps asyncio from reporting it as never retrieved.
        failed = attempt.cancelled() or attempt.exception() is not None
        self._opening.discard(attempt)
        if self._left.pop(attempt, None) is not None and not failed:
            self._idle.append(attempt.result())

    async def open(self, timeout: float) -> Connection:
        """Open one more connection, to the server that takes writes.

        Raises:
            RequestError: No server can be used.
            StoreRefused: asyncpg is not installed.
        """
        driver()  # as in `run`
        self._on_this_loop()
        try:
            connection = await within(self._open_any(), min(timeout, CONNECT_TIMEOUT))
        except asyncio.TimeoutError:
            detail = f"no connection to {self.url.redacted} in time"
            raise errors.unreachable(detail) from None
        self._all.add(connection)
        return connection

    async def _open_any(self) -> Connection:
        return await first_connection(self._order, self._open, Connection.terminate, _is_final)

    async def _open(self, address: Address | None) -> Connection:
        shown = str(address) if address else self.url.redacted
        try:
            if address not in self._poolers:
                with contextlib.suppress(driver().ProtocolViolationError):  # PgBouncer's refusal
                    raw = await self._dial(address, pooled=False)
                    if not await _is_pooled(raw):
                        return Connection(raw)
                    raw.terminate()
                self._poolers.add(address)
            return Connection(await self._dial(address, pooled=True), pooled=True)
        except asyncio.CancelledError:
            raise
        except Exception as err:
            self._poolers.discard(address)
            self._move_to_end(address)
            raise _from_connecting(err, self.url, shown) from None

    async def _dial(self, address: Address | None, *, pooled: bool) -> Any:
        url = self.url
        options = {"sslmode": url.sslmode, "sslrootcert": url.sslrootcert}
        chosen = {name: value for name, value in options.items() if value is not None}
        settings = {"application_name": "coord"}
        if not pooled:
            settings |= {
                "default_transaction_isolation": "read committed",
                "statement_timeout": f"{STATEMENT_TIMEOUT}s",
            }
        return await driver().connect(
            loop=_DriverLoop(asyncio.get_running_loop()),
            dsn=f"postgresql://?{urlencode(chosen)}" if chosen else None,
            host=address.host if address else None,
            port=address.port if address else None,
            user=url.user,
            password=url.password,
            database=url.database,
            timeout=CONNECT_TIMEOUT,
            target_session_attrs="any" if pooled else "read-write",
            statement_cache_size=0 if pooled else 100,
            server_settings=settings,
        )

    def _move_to_end(self, address: Address | None) -> None:
        if len(self._order) > 1 and address in self._order:
            self._order.remove(address)
            self._order.append(address)

    def drop(self, connection: Connection) -> None:
        """Close a connection that is not used again."""
        self._all.discard(connection)
        connection.terminate()

    async def close(self) -> None:
        """Close all connections."""
        if self._loop is asyncio.get_running_loop():
            for attempt in tuple(self._opening):
                attempt.cancel()
            busy = self._all.difference(self._idle)
            for connection in busy:
                connection.terminate()
            await asyncio.gather(*(connection.close() for connection in self._idle))
            for attempt in tuple(self._opening):  # of requests that came meanwhile
                attempt.cancel()
            for connection in self._all:
                connection.terminate()
        self._reset()

    def abandon(self) -> None:
        """Forget all connections in a forked child: they are the parent's (rule 9)."""
        _leaked.append((self._all, self._idle, self._opening, self._loop, self._turns))
        self._reset()

    def _on_this_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            for connection in self._all:
                connection.terminate()
            self._reset()
            self._loop = loop


async def _is_pooled(raw: Any) -> bool:
    """Return whether a pooler is between this connection and the server.

    The server names its process when a connection begins. A pooler invents that number.
    """
    query = f"SELECT 1 / (pg_backend_pid() = {raw.get_server_pid():d})::int"
    # A task of its own: if this coroutine were cancelled, asyncpg would send a cancel request.
    asking = asyncio.ensure_future(raw.execute(query))
    try:
        await asyncio.wait({asking})
        await asking
    except driver().DivisionByZeroError:
        return True
    except BaseException:
        raw.terminate()
        asking.add_done_callback(retrieve)
        raise
    return False


def _is_final(error: BaseException) -> bool:
    return not isinstance(error, RequestError) or error.refusal is not None


def _from_connecting(err: BaseException, url: PostgreSQLURL, shown: str) -> RequestError:
    asyncpg = driver()
    code = getattr(err, "sqlstate", None)
    if isinstance(err, asyncpg.PostgresError) and isinstance(code, str):
        if code in ("28000", "28P01"):
            detail = f"{shown} refuses the user: wrong user or password, or not allowed from here"
            return RequestError(detail, unknown=False, refusal=AccessDenied)
        error = errors.from_code(code, url)
        return errors.ConnectionLost(error.detail, unknown=False, refusal=error.refusal)
    if "SessionAttribute" in type(err).__name__ or "TargetServer" in type(err).__name__:
        return errors.unreachable(f"{shown} is a standby and cannot write")
    detail = err.strerror if isinstance(err, OSError) and err.strerror else type(err).__name__
    return errors.unreachable(f"cannot connect to {shown}: {detail}")
