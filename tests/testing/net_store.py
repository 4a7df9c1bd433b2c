"""A store whose leases are in a server over TCP, small and correct, and its server.

The server keeps a `MemoryStore` and serves pickled requests. Tests of the contract use both: the
wrong stores are variants of this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import threading
import time
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Union

from coord.core.history import PastTerm
from coord.core.kept import Kept
from coord.core.lease import Lease
from coord.core.operations import (
    Answer,
    Claim,
    Failure,
    Operation,
    Override,
    Release,
    Renew,
    Result,
    Retire,
)
from coord.errors import AccessDenied, StoreUnavailable
from coord.stores.memory import MemoryStore

Request = Union[Operation, Override]
LOCK_TIMEOUT = 4.0
"""Seconds after which the server takes a batch that waits for a row to be deadlocked."""


def pack(message: object) -> bytes:
    body = pickle.dumps(message)
    return len(body).to_bytes(4, "big") + body


async def receive(reader: asyncio.StreamReader) -> Any:
    size = int.from_bytes(await reader.readexactly(4), "big")
    return pickle.loads(await reader.readexactly(size))  # of these tests


class NetServer:
    """The server, on a thread of its own. `stop` ends it."""

    def __init__(self) -> None:
        self.port = 0
        self.denied = False
        self._early: float | None = None
        self.store = MemoryStore(now=lambda: self._early or time.monotonic())
        self._rows: dict[str, asyncio.Lock] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._writers: set[asyncio.StreamWriter] = set()
        self._call(self._start())

    def stop(self) -> None:
        self._call(self._stop())
        self._call(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def restart(self) -> None:
        self._call(self._stop())
        self._call(self._start())

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _start(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _end_tasks(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # a transport ends in the next turn of the loop

    def freeze(self) -> None:
        self._loop.call_soon_threadsafe(self._open.clear)

    def thaw(self) -> None:
        self._loop.call_soon_threadsafe(self._open.set)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                method, arguments = await receive(reader)
                await self._open.wait()
                if self.denied and method not in ("read", "past", "kept"):
                    writer.write(pack("denied"))
                elif method == "watch":
                    async with contextlib.aclosing(self.store.watch(arguments)) as feed:  # type: ignore[type-var]
                        async for lease in feed:
                            writer.write(pack(lease))
                            await writer.drain()
                else:
                    writer.write(pack(await getattr(self, f"_{method}")(arguments)))
                await writer.drain()
        except (OSError, EOFError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    @asynccontextmanager
    async def _locked(self, roles: Sequence[str]) -> AsyncIterator[bool]:
        """Lock rows one after the other, as a database does; False if they were deadlocked."""
        taken: list[asyncio.Lock] = []
        try:
            for role in roles:
                lock = self._rows.setdefault(role, asyncio.Lock())
                try:
                    await asyncio.wait_for(lock.acquire(), 30 if len(roles) == 1 else LOCK_TIMEOUT)
                except asyncio.TimeoutError:
                    yield False
                    return
                taken.append(lock)
                if len(roles) > 1:  # two batches that arrive together meet in the middle
                    await asyncio.sleep(0.001)
            yield True
        finally:
            for lock in taken:
                lock.release()

    async def _swap(self, arguments: tuple[Sequence[Request], bool]) -> list[Result]:
        operations, clock_first = arguments
        began = time.monotonic()
        async with self._locked([operation.role for operation in operations]) as locked:
            if not locked:
                return [Failure(False, "deadlock")] * len(operations)
            self._early = began if clock_first else None
            try:
                return [await self._apply(operation) for operation in operations]
            finally:
                self._early = None

    async def _apply(self, operation: Request) -> Result:
        if isinstance(operation, Claim):
            return await self.store.claim(operation, 1)
        if isinstance(operation, Release):
            return await self.store.release(operation, 1)
        if isinstance(operation, Override):
            return await self.store.override(operation, 1)
        assert isinstance(operation, Renew)
        return (await self.store.renew([operation], 1))[0]

    async def _retire(self, requests: Sequence[Retire]) -> Sequence[bool]:
        return await self.store.retire(requests, 1)

    async def _read(self, roles: Collection[str] | None) -> list[Lease]:
        return await self.store.read(roles, 1)

    async def _past(self, roles: Collection[str] | None) -> list[PastTerm]:
        return await self.store.past(roles, 1)

    async def _kept(self, role: str) -> Kept:
        return await self.store.kept(role, 1)

    async def _hello(self, _: object) -> None:
        return None

    async def _hold(self, role: str) -> None:
        await self._rows.setdefault(role, asyncio.Lock()).acquire()

    async def _free(self, role: str) -> None:
        self._rows[role].release()


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NetStore:
    """The store. A connection that lost an answer is never used again."""

    max_clock_skew: float | None = 0.0
    clock_first = False

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._idle: list[Connection] = []
        self._inherited: list[object] = []

    @property
    def url(self) -> str:
        return "net://{}:{}".format(*self._address)

    async def open(self, timeout: float) -> None:
        await self._ask("hello", None, timeout)

    async def claim(self, claim: Claim, timeout: float) -> Result:
        return (await self._swap([claim], timeout))[0]

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        return await self._swap(renewals, timeout)

    async def release(self, release: Release, timeout: float) -> Result:
        return (await self._swap([release], timeout))[0]

    async def override(self, override: Override, timeout: float) -> Result:
        return (await self._swap([override], timeout))[0]

    async def retire(self, requests: Sequence[Retire], timeout: float) -> Sequence[bool]:
        return list(await self._ask("retire", list(requests), timeout))

    async def swap_all(
        self, operations: Sequence[Claim | Release], timeout: float
    ) -> Sequence[Result]:
        return await self._swap(operations, timeout)

    def begin(self, operation: Operation, timeout: float) -> Coroutine[Any, Any, Result] | None:
        if not self._idle:
            return None
        connection = self._idle.pop()
        connection[1].write(pack(("swap", ([operation], self.clock_first))))

        async def answer() -> Result:
            return (await self._results(1, self._answer(connection), timeout, sent=True))[0]

        return answer()

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        names = None if roles is None else list(roles)
        return await self._ask("read", names, timeout)  # type: ignore[no-any-return]

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        names = None if roles is None else list(roles)
        return await self._ask("past", names, timeout)  # type: ignore[no-any-return]

    async def kept(self, role: str, timeout: float) -> Kept:
        return await self._ask("kept", role, timeout)  # type: ignore[no-any-return]

    async def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(*self._address), 5)
        except (OSError, asyncio.TimeoutError):
            raise StoreUnavailable("cannot connect") from None
        try:
            writer.write(pack(("watch", None if roles is None else list(roles))))
            while True:
                yield await self._next_row(reader)
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)

    async def _next_row(self, reader: asyncio.StreamReader) -> Lease:
        try:
            return await receive(reader)  # type: ignore[no-any-return]
        except (OSError, EOFError):
            raise StoreUnavailable("the connection of the feed is lost") from None

    async def close(self) -> None:
        while self._idle:
            _, writer = self._idle.pop()
            writer.transport.abort()
        await asyncio.sleep(0.01)  # a transport ends in the next turn of the loop

    def abandon(self) -> None:
        self._inherited.append(self._idle)
        self._idle = []

    def batch_order(self, operations: Sequence[Request]) -> list[int]:
        """Return the order in which rows are locked: that of the roles, the same for everybody."""
        return sorted(range(len(operations)), key=lambda index: operations[index].role)

    async def _swap(self, operations: Sequence[Request], timeout: float) -> list[Result]:
        order = self.batch_order(operations)
        work = self._exchange(
            ("swap", ([operations[index] for index in order], self.clock_first)), sent := []
        )
        results = await self._results(len(operations), work, timeout, sent=sent)
        back = dict(zip(order, results, strict=True))
        return [back[index] for index in range(len(operations))]

    async def _results(
        self, count: int, work: Coroutine[Any, Any, Any], timeout: float, *, sent: object
    ) -> list[Result]:
        try:
            return await asyncio.wait_for(work, timeout)  # type: ignore[no-any-return]
        except (OSError, EOFError, asyncio.TimeoutError):
            failure = Failure(unknown=bool(sent), detail=f"{self.url}: no answer")
        except AccessDenied as err:
            failure = Failure.of_refusal(err)
        return [failure] * count

    async def _ask(self, method: str, arguments: object, timeout: float) -> Any:
        try:
            return await asyncio.wait_for(self._exchange((method, arguments), []), timeout)
        except (OSError, EOFError, asyncio.TimeoutError):
            raise StoreUnavailable(f"{self.url}: no answer") from None

    async def _exchange(self, request: object, sent: list[object]) -> Any:
        """Send a request and return its answer. `sent` is filled once it may have arrived."""
        connection = (
            self._idle.pop() if self._idle else await asyncio.open_connection(*self._address)
        )
        sent.append(request)
        connection[1].write(pack(request))
        return await self._answer(connection)

    async def _answer(self, connection: Connection) -> Any:
        reader, writer = connection
        try:
            await writer.drain()
            answer = await receive(reader)
        except BaseException:
            writer.transport.abort()
            raise
        self._idle.append(connection)
        if answer == "denied":
            raise AccessDenied(f"{self.url}: this user may not write")
        return answer


def applied(result: Result) -> bool:
    return isinstance(result, Answer) and result.applied
