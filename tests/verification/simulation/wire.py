"""The store that simulated claimants share, and the net between: every class of error, delay and
loss, drawn by a seed.

A request and its answer travel by true time, whatever the process that sent it does meanwhile: what
was given up may arrive much later."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from coord import AccessDenied, StoreUnavailable
from coord.core import swaps
from coord.core.history import PastTerm
from coord.core.kept import Kept
from coord.core.lease import Lease
from coord.core.operations import Claim, Failure, Operation, Release, Renew, Result
from coord.errors import StoreRefused
from coord.stores.memory.store import MemoryStore
from coord.testing.clocks import Machine, World
from coord.testing.history import History

T = TypeVar("T")
ROLE = "role"


@dataclass
class Weather:
    """How bad the net is: probabilities for one request, or one row on a feed, and delays in
    seconds."""

    not_done: float = 0.0
    permanent: float = 0.0
    lost: float = 0.0  # the request never arrives; the sender waits, or is told that nobody knows
    answer_lost: float = 0.0
    repeated: float = 0.0  # the request arrives once more, later; nobody gets its second answer
    reset: float = 0.0  # of those that are lost: told at once, instead of by a timeout
    delay: float = 0.003
    answer_delay: float = 0.003
    feed_lost: float = 0.0
    feed_repeated: float = 0.0
    feed_ahead: float = 0.0
    feed_dies: float = 0.0


class Server:
    """The rows, the clock that the store reads, which may step within `max_step`, and hands that
    edit rows."""

    def __init__(
        self, world: World, history: History, seed: int, max_clock_skew: float | None
    ) -> None:
        self.world, self.history, self.max_clock_skew = world, history, max_clock_skew
        self.random = random.Random(seed)
        self.weather = Weather()
        self.offset, self.rate = 0.0, 1.0
        self.memory = MemoryStore(now=lambda: 7_000 + world.time * self.rate + self.offset)
        self.feeds: list[Feed] = []
        self.tells_renewals = self.random.random() < 0.5  # that of Redis does not
        self.edits = 0
        self.epochs: dict[tuple[str, int], int] = {}  # at which edit a term was won
        self.past: list[Lease] = []
        self.under_way = 0  # requests that have not arrived yet

    @property
    def row(self) -> Lease:
        return self.memory._row(ROLE)

    def perform(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it now. A memory store never waits."""
        before = self.row
        try:
            work.send(None)
        except StopIteration as done:
            outcome: T = done.value
        else:
            raise AssertionError("the memory store waited")
        if (row := self.row).revision != before.revision:
            self.past.append(row)
            if row.holder is not None:
                self.epochs.setdefault((row.holder, row.token), self.edits)
            changed = before.revision[:2] != row.revision[:2] or before.info != row.info
            if self.tells_renewals or changed:
                self.tell(row)
        return outcome

    def repeat(self, work: Coroutine[Any, Any, object]) -> None:
        """Do once more what was done before. In the history, a hand has written the row."""
        before = self.row.revision
        self.perform(work)
        if (after := self.row.revision) != before:
            key = self.history.invoke("net", "put", ROLE, row=list(after))
            self.history.ok(key)

    def tell(self, row: Lease) -> None:
        for feed in tuple(self.feeds):
            feed.send(row)

    def edit(self, row: Lease | None) -> None:
        """Somebody deletes the row, or writes an old one, with other tools. Nothing promises
        exclusion for terms that were won before that."""
        self.edits += 1
        if row is None:
            self.memory._rows.pop(ROLE, None)
        else:
            self.memory._rows[ROLE] = (row, self.memory._now() + row.ttl)
        key = self.history.invoke(
            "operator", "put", ROLE, row=None if row is None else list(row.revision)
        )
        self.history.ok(key)
        self.tell(self.row)


class Feed:
    """One open feed of one process."""

    def __init__(self, server: Server, machine: Machine) -> None:
        self.server, self.machine = server, machine
        self.queue: asyncio.Queue[Lease | None] = asyncio.Queue()

    def send(self, row: Lease) -> None:
        weather, chance = self.server.weather, self.server.random.random
        if chance() < weather.feed_dies:
            self.die()
        elif chance() >= weather.feed_lost:
            for _ in range(1 + (chance() < weather.feed_repeated)):
                # Each at a time of its own: rows may overtake one another.
                self.server.world.after(chance() * 4 * weather.delay, lambda: self._arrive(row))

    def die(self) -> None:
        if self in self.server.feeds:
            self.server.feeds.remove(self)
            self._arrive(None)

    def _arrive(self, row: Lease | None) -> None:
        self.machine.do(lambda: self.queue.put_nowait(row))


class Wire:
    """A store as one process has it."""

    url = "wire://"

    def __init__(self, server: Server, machine: Machine) -> None:
        self.server, self.machine = server, machine
        self.max_clock_skew = server.max_clock_skew
        self.cut = False  # off from the store, while others reach it

    async def open(self, timeout: float) -> None:
        """Always open."""

    def begin(self, operation: Operation, timeout: float) -> Coroutine[Any, Any, Result] | None:
        """Every other process has a store that can send at once, as RethinkDB's can."""
        if not self.machine.name[-1:].isdigit() or int(self.machine.name[-1]) % 2:
            return None
        memory = self.server.memory
        if isinstance(operation, Claim):
            self._run_ahead(swaps.claim(self.server.row, operation, 0.0))
            return self._wait(self._send(lambda: memory.claim(operation, 0)), timeout)
        if not isinstance(operation, Release):
            return None
        self._run_ahead(swaps.release(self.server.row, operation, 0.0))
        return self._wait(self._send(lambda: memory.release(operation, 0)), timeout)

    async def claim(self, claim: Claim, timeout: float) -> Result:
        self._run_ahead(swaps.claim(self.server.row, claim, 0.0))
        return await self._request(lambda: self.server.memory.claim(claim, 0), timeout)

    async def renew(self, renewals: Sequence[Renew], timeout: float) -> Sequence[Result]:
        assert len(renewals) == 1
        return [await self._request(lambda: self._renewed(renewals), timeout)]

    async def _renewed(self, renewals: Sequence[Renew]) -> Result:
        return (await self.server.memory.renew(renewals, 0))[0]

    async def release(self, release: Release, timeout: float) -> Result:
        self._run_ahead(swaps.release(self.server.row, release, 0.0))
        return await self._request(lambda: self.server.memory.release(release, 0), timeout)

    async def read(self, roles: Collection[str] | None, timeout: float) -> list[Lease]:
        rows = await self._request(lambda: self.server.memory.read(roles, 0), timeout)
        if isinstance(rows, Failure):
            raise (AccessDenied if rows.permanent else StoreUnavailable)(rows.detail)
        return rows

    async def past(self, roles: Collection[str] | None, timeout: float) -> list[PastTerm]:
        return await self.server.memory.past(roles, timeout)

    async def kept(self, role: str, timeout: float) -> Kept:
        kept = await self._request(lambda: self.server.memory.kept(role, 0), timeout)
        if isinstance(kept, Failure):
            raise (AccessDenied if kept.permanent else StoreUnavailable)(kept.detail)
        return kept

    async def watch(self, roles: Collection[str]) -> AsyncIterator[Lease]:
        weather = self.server.weather
        await asyncio.sleep(weather.delay)
        if self.cut or self.server.random.random() < max(
            weather.not_done, weather.lost, weather.feed_dies
        ):
            raise StoreUnavailable("no feed")
        feed = Feed(self.server, self.machine)
        self.server.feeds.append(feed)
        try:
            if self.server.row.revision.token:
                feed.send(self.server.row)
            while (row := await feed.queue.get()) is not None:
                if not self.cut:
                    yield row
            raise StoreUnavailable("the feed died")
        finally:
            if feed in self.server.feeds:
                self.server.feeds.remove(feed)

    async def close(self) -> None:
        """Nothing to let go of."""

    def abandon(self) -> None:
        """The server is elsewhere: nothing of it is ours to forget."""

    def _run_ahead(self, row: Lease | None) -> None:
        """A feed may show what was sent and is not yet done, and perhaps never will be."""
        if row is not None and self.server.random.random() < self.server.weather.feed_ahead:
            self.server.tell(replace(row, remaining=row.ttl))

    async def _request(
        self, work: Callable[[], Coroutine[Any, Any, T]], timeout: float
    ) -> T | Failure:
        return await self._wait(self._send(work), timeout)

    def _send(self, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Future[T | Failure]:
        server, world, weather = self.server, self.server.world, self.server.weather
        chance = server.random.random
        answer: asyncio.Future[T | Failure] = self.machine.loop.create_future()

        def back(result: T | Failure) -> None:
            if not answer.done():
                answer.set_result(result)

        def send_back(result: T | Failure) -> None:
            world.after(
                weather.answer_delay * (0.5 + chance()),
                lambda: self.machine.do(lambda: back(result)),
            )

        def arrive() -> None:
            server.under_way -= 1
            result = server.perform(work())
            if weather.repeated and chance() < weather.repeated:
                world.after((weather.delay + 1.0) * 9 * chance(), lambda: server.repeat(work()))
            if chance() >= weather.answer_lost and not self.cut:
                send_back(result)

        if self.cut:
            pass
        elif chance() < weather.not_done:
            send_back(Failure(unknown=False, detail="not done"))
        elif chance() < weather.permanent:
            send_back(Failure(unknown=False, detail="refused", refusal=StoreRefused))
        elif chance() >= weather.lost:
            server.under_way += 1
            world.after(weather.delay * (0.5 + chance()), arrive)
        if chance() < (weather.lost + weather.answer_lost) * weather.reset:
            send_back(Failure(unknown=True, detail="connection reset"))
        return answer

    @staticmethod
    async def _wait(answer: asyncio.Future[T | Failure], timeout: float) -> T | Failure:
        try:
            return await asyncio.wait_for(answer, timeout)
        except asyncio.TimeoutError:
            return Failure(unknown=True, detail="no answer in time")
