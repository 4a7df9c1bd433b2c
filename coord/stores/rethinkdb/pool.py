"""One shared connection to whichever server of the URL answers; when it fails it is thrown away and
made anew."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

from tenacity import AsyncRetrying, retry_if_exception, wait_random_exponential

from coord.runtime.timers import within
from coord.stores.rethinkdb import driver, errors
from coord.stores.rethinkdb.connection import Connection
from coord.stores.rethinkdb.errors import QueryError
from coord.stores.rethinkdb.url import Address, RethinkURL

CONNECT_TIMEOUT = 10.0
"""Seconds after which an attempt to connect is given up, whether anybody still waits for it or
not."""
STAGGER = 0.3
"""Seconds that one server is tried alone before the next is tried beside it: the first to let us in
is used."""

_left_behind: list[object] = []
"""In a forked child: what belongs to the parent. Kept, since even to collect it could touch the
parent's sockets."""


class Pool:
    """The connections of one store. Works on the loop that it is called from; connections of
    another are dropped.

    `in_order`: try the servers as the URL lists them, rather than from a random one on.
    """

    def __init__(self, url: RethinkURL, *, in_order: bool = False) -> None:
        self.url = url
        self._order = list(url.hosts) if in_order else random.sample(url.hosts, len(url.hosts))
        self._begin()

    def _begin(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._shared: Connection | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._wires: set[Connection] = set()

    async def run(self, term: Any, timeout: float, **options: Any) -> Any:
        """The answer to one query, sent at most once; `timeout` seconds with connecting and all.
        Raises `Trouble`.

        `term` is the driver's, or a query that is ready to be sent.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        message = term if isinstance(term, bytes) else driver.start(term, options)
        wire = await self._connected(until)
        return await self._answer(
            wire, wire.ask(self.url, message, max(until - loop.time(), 0.001)), timeout
        )

    def begin(self, message: bytes, timeout: float) -> Coroutine[Any, Any, Any] | None:
        """Send a query in this very turn of the loop. What is returned must be awaited, as `run`
        is; None: there is no connection yet, and nothing was sent."""
        wire = self._shared
        if wire is None or not wire.usable or self._loop is not asyncio.get_running_loop():
            return None
        return self._answer(wire, wire.begin(self.url, message, timeout), timeout)

    async def _answer(
        self, wire: Connection, asked: Coroutine[Any, Any, Any], timeout: float
    ) -> Any:
        try:
            return await asked
        except asyncio.TimeoutError:
            self._discard(wire)
            raise errors.lost(f"{wire.address} did not answer within {timeout:g} s") from None
        except asyncio.CancelledError:
            self._discard(wire)
            raise
        except QueryError as trouble:
            if trouble.elsewhere:
                self._discard(wire)
            raise

    async def read(self, term: Any, timeout: float, **options: Any) -> Any:
        """Like `run`, for what changes nothing: tried again until it is answered or `timeout` is
        over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout

        async def attempt() -> Any:
            return await self.run(term, max(until - loop.time(), 0.001), **options)

        def again(err: BaseException) -> bool:
            return isinstance(err, QueryError) and err.elsewhere and loop.time() + 0.05 < until

        async def pause(seconds: float) -> None:
            await asyncio.sleep(min(seconds, max(until - loop.time(), 0)))

        wait = wait_random_exponential(multiplier=0.02, max=0.5)
        return await AsyncRetrying(
            wait=wait, retry=retry_if_exception(again), sleep=pause, reraise=True
        )(attempt)

    async def feed(self, term: Any) -> AsyncGenerator[Any, None]:
        """A changefeed on a connection of its own. Raises `Trouble` when it breaks off."""
        self._on_this_loop()
        message = driver.start(term, {})
        wire = await within(self._open_any(), CONNECT_TIMEOUT)
        try:
            async for item in wire.feed(self.url, message):
                yield item
        except QueryError as trouble:
            if trouble.elsewhere:
                self._last(wire.address)
            raise
        finally:
            self._drop(wire)

    async def close(self) -> None:
        """Close all connections, at once."""
        if self._loop is asyncio.get_running_loop():
            if self._opening is not None:
                self._opening.cancel()
            for wire in tuple(self._wires):
                self._drop(wire)
            await asyncio.sleep(0)  # lets the transports say that they have closed
        self._begin()

    def abandon(self) -> None:
        """In a forked child: the connections stay the parent's, untouched."""
        _left_behind.extend((self._wires, self._shared, self._opening, self._loop))
        self._begin()

    # -- connecting
    # ----------------------------------------------------------------------------------------------

    def _on_this_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            for wire in self._wires:
                wire.close()
            self._begin()
            self._loop = loop

    async def _connected(self, until: float) -> Connection:
        self._on_this_loop()
        if self._shared is not None and self._shared.usable:
            return self._shared
        if self._opening is None or self._opening.done():
            self._opening = asyncio.get_running_loop().create_task(
                self._share(), name="coord rethinkdb connecting"
            )
            self._opening.add_done_callback(
                lambda task: task.cancelled() or task.exception()
            )  # nobody may be left
        left = max(until - asyncio.get_running_loop().time(), 0.001)
        try:
            return await within(asyncio.shield(self._opening), left)
        except asyncio.TimeoutError:
            raise errors.unreachable(f"no connection to {self._names()} in time") from None

    async def _share(self) -> Connection:
        try:
            self._shared = await within(self._open_any(), CONNECT_TIMEOUT)
        except asyncio.TimeoutError:
            raise errors.unreachable(
                f"no connection to {self._names()} in {CONNECT_TIMEOUT:g} s"
            ) from None
        return self._shared

    async def _open_any(self) -> Connection:
        """Whichever server lets us in first, the ones that failed last tried last. Raises the last
        one's `Trouble`."""
        waiting, attempts, trouble = (
            list(self._order),
            set[asyncio.Task[Connection]](),
            errors.unreachable("no server"),
        )
        try:
            while waiting or attempts:
                if waiting:
                    attempts.add(asyncio.ensure_future(self._open(waiting.pop(0))))
                done, attempts = await asyncio.wait(
                    attempts,
                    timeout=STAGGER if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                opened = [task.result() for task in done if task.exception() is None]
                for wire in opened[1:]:
                    self._drop(wire)
                if opened:
                    return opened[0]
                for task in done:
                    err = task.exception()
                    if not isinstance(err, QueryError):
                        assert err is not None
                        raise err
                    if err.refused is not None:
                        raise err
                    trouble = err
            raise trouble
        finally:
            for task in attempts:
                task.cancel()
                task.add_done_callback(self._unwanted)

    async def _open(self, address: Address) -> Connection:
        try:
            wire = await Connection.open(self.url, address)
        except QueryError:
            self._last(address)
            raise
        self._wires = {wire, *(one for one in self._wires if not one.closed)}
        return wire

    def _unwanted(self, task: asyncio.Task[Connection]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._drop(task.result())

    def _discard(self, wire: Connection) -> None:
        """It failed, or keeps silent: the next query takes another one, to another server if there
        is one."""
        if self._shared is wire:
            self._shared = None
            self._last(wire.address)
        wire.retire()
        self._wires = {one for one in self._wires if not one.closed}

    def _drop(self, wire: Connection) -> None:
        wire.close()
        self._wires.discard(wire)

    def _last(self, address: Address) -> None:
        if address in self._order:
            self._order.remove(address)
            self._order.append(address)

    def _names(self) -> str:
        return ", ".join(str(host) for host in self.url.hosts)
