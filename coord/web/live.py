"""What all open pages show: one watcher and one snapshot, however many browsers read."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from coord.api.coordinator import AsyncCoordinator
from coord.api.overview import Overview, load_overview
from coord.core.history import PastTerm
from coord.errors import BadArgument, CoordError, CoordinatorClosed
from coord.runtime.retry import restart_on_failure
from coord.runtime.shutdown import before_shutdown
from coord.runtime.timers import within
from coord.web.source import Source

REFRESH_EVERY = 2.0
"""Seconds between two snapshots while no leader changes: the times left and the candidates."""
COALESCE_DELAY = 0.1
"""Seconds between a change and its snapshot, because changes often come together."""
RETRY_EVERY = 1.0
"""Seconds until the watcher looks again after the store failed."""
REST = 5.0
"""A snapshot is followed by a pause of at least this many times the time that it took. It may run
on the event loop that renews leases, and with ten thousand roles it takes a second."""
HISTORIES_AT_A_TIME = 100
"""Roles in one query for histories, for the same reason."""
MAX_HISTORIES = 1000
"""Roles whose histories belong to a snapshot, in addition to those that open pages show."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """The roles at one moment.

    Attributes:
        overview: The roles as they were seen last; None before the first answer of the store.
        services: The healthy services; None if no open page shows them, or the store keeps none.
        error: Why the store did not answer this time; None if it answered.
        at: When this was, in seconds since 1970.
    """

    overview: Overview | None
    services: Sequence[Record] | None
    error: CoordError | None
    at: float


class Reader:
    """One open stream.

    Args:
        wants_services: Whether its page shows services.
        role: The role that its page shows; None means another page.
    """

    def __init__(self, wants_services: bool, role: str | None) -> None:
        self.wants_services, self.role = wants_services, role
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Let `wait` return."""
        self._news.set()

    async def wait(self, seconds: float) -> None:
        """Wait for the next snapshot, or the end of the stream, for at most `seconds`."""
        with contextlib.suppress(asyncio.TimeoutError):
            await within(self._news.wait(), seconds)
        self._news.clear()


class Live:
    """The newest snapshot, which is kept up to date while there are readers.

    It belongs to the event loop of its readers. At SIGTERM it ends all streams, because a server
    would wait for them.

    Args:
        source: The store.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._readers: set[Reader] = set()
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._loading: dict[int | None, asyncio.Task[Overview]] = {}
        self._remove_handler: Callable[[], None] = lambda: None
        self.newest: Snapshot | None = None
        self.closing = False

    @property
    def readers(self) -> int:
        """How many streams are open."""
        return len(self._readers)

    def join(self, wants_services: bool, role: str | None) -> Reader:
        """Add a reader. The first one starts the watcher."""
        reader = Reader(wants_services, role)
        self._readers.add(reader)
        if self._task is None:
            self.newest, self._changed = None, asyncio.Event()
            self._start()
        elif wants_services or role is not None:
            self._changed.set()
        return reader

    def leave(self, reader: Reader) -> None:
        """Remove a reader. After the last one the watcher ends."""
        self._readers.discard(reader)
        if not self._readers and self._task is not None:
            self._remove_handler()
            self._task.cancel()
            self._task = None

    def close(self) -> None:
        """End all streams, now and later. It may be called from a signal handler."""
        self.closing = True
        if self._task is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._task.get_loop().call_soon_threadsafe(self._wake_all)

    async def overview(self, *, most: int | None) -> Overview:
        """Return all roles, as the store answers now. Concurrent calls share one answer.

        Args:
            most: How many roles get their histories; None means all.

        Raises:
            CoordError: The store does not answer, or refuses.
        """
        loading, loop = self._loading.get(most), asyncio.get_running_loop()
        if loading is None or loading.done() or loading.get_loop() is not loop:
            work = self._source.ask(lambda c: load(c, None, most, ()))
            loading = loop.create_task(work, name="coord web overview")
            # Everybody who waits for it may have gone before it fails.
            loading.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._loading[most] = loading
        return await asyncio.shield(loading)

    def _start(self) -> None:
        work = restart_on_failure(self._run, "watch leaders for the web page")
        self._task = asyncio.get_running_loop().create_task(work, name="coord web")
        self._remove_handler = before_shutdown(self.close)

    def _wake_all(self) -> None:
        for reader in self._readers:
            reader.wake()

    async def _run(self) -> None:
        watching = asyncio.ensure_future(self._watch())
        try:
            histories: Sequence[PastTerm] | None = None  # histories change with leaders only
            loop = asyncio.get_running_loop()
            while True:
                self._changed.clear()
                began = loop.time()
                snapshot = await self._look(histories)
                rest = REST * (loop.time() - began)
                histories = None
                if snapshot.overview is not None and snapshot.error is None:
                    histories = snapshot.overview.terms
                self.newest = snapshot
                self._wake_all()
                with contextlib.suppress(asyncio.TimeoutError):
                    await within(self._changed.wait(), max(REFRESH_EVERY, rest))
                    histories = None
                    pause = RETRY_EVERY if snapshot.error else COALESCE_DELAY
                    await asyncio.sleep(max(pause, rest))
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            try:
                await self._source.watch(self._changed.set)
            except CoordinatorClosed:
                return
            except CoordError:
                await asyncio.sleep(RETRY_EVERY)
            else:  # the coordinator is closed
                return

    async def _look(self, histories: Sequence[PastTerm] | None) -> Snapshot:
        wants_services = any(reader.wants_services for reader in self._readers)
        before = self.newest
        try:
            shown = {reader.role for reader in self._readers if reader.role is not None}
            overview = await self._source.ask(lambda c: load(c, histories, MAX_HISTORIES, shown))
            services = await self._services_if_kept() if wants_services else None
        except CoordError as err:
            if before is None:
                return Snapshot(None, None, err, time.time())
            return Snapshot(before.overview, before.services, err, time.time())
        return Snapshot(overview, services, None, time.time())

    async def _services_if_kept(self) -> list[Record] | None:
        try:
            return await self.services()
        except BadArgument:
            return None

    async def services(self) -> list[Record]:
        """Return the healthy services, sorted by role and then by load.

        Raises:
            CoordError: The store does not answer, or refuses.
            BadArgument: The store keeps no services.
        """
        records = await self._source.ask(lambda c: c.services.healthy_services())
        return sorted(records, key=lambda record: str(record.get("role")))


async def load(
    coordinator: AsyncCoordinator,
    terms: Sequence[PastTerm] | None,
    most: int | None,
    also: Collection[str],
) -> Overview:
    """Load all roles, and histories in small parts.

    Args:
        coordinator: The coordinator to ask.
        terms: The terms of an earlier call; None means load them.
        most: How many roles get their histories; None means all.
        also: Roles that get them in any case.
    """
    overview = await load_overview(coordinator, every=True, terms=terms or ())
    if terms is not None:
        return overview
    names = [lease.role for lease in overview.leases]
    selection = [*dict.fromkeys([*names[:most], *also])]
    histories: list[PastTerm] = []
    for start in range(0, len(selection), HISTORIES_AT_A_TIME):
        part = selection[start : start + HISTORIES_AT_A_TIME]
        histories += await coordinator.session.retry(_past(coordinator, part))
    histories.sort(key=lambda term: (term.role, -term.token))
    return replace(overview, terms=histories)


def _past(
    coordinator: AsyncCoordinator, roles: list[str]
) -> Callable[[float], Awaitable[list[PastTerm]]]:
    return lambda timeout: coordinator.store.past(roles, timeout)
