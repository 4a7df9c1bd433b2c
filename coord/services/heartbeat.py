"""What a background heartbeat says and when, for both of its shells (`heartbeat.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from coord.core import records, validation
from coord.core.records import Record
from coord.core.validation import is_number
from coord.errors import BadArgument, StoreRefused, StoreUnavailable
from coord.runtime import log, process
from coord.runtime.retry import Backoff

if TYPE_CHECKING:
    from coord.services.registry import AsyncServiceRegistry, ServiceRegistry

UNREGISTER_TIMEOUT = 3.0
"""Seconds that the end of a heartbeat waits for a store that does not answer; then the record runs
out by itself."""


class HeartbeatState:
    """The part that needs no waiting. `every` is in seconds; the other two are what `Heartbeat` was
    given."""

    def __init__(self, status: object, load: object, every: float | None) -> None:
        if not isinstance(status, Mapping) and not callable(status):
            raise BadArgument(
                "status",
                status,
                "must be a dict with at least role, ttl and load, or a function that returns one",
            )
        if load is not None and not callable(load) and not is_number(load):
            allowed = "must be a finite number, or a function that returns one"
            raise BadArgument("load", load, allowed)
        self.status, self.load = status, load
        self.every = None if every is None else validation.number(every, "every", low=0, above=True)
        self.id: str | int = str(uuid.uuid4())
        if isinstance(status, Mapping):
            given = {"load": 0, **status} if load is not None else status
            self.id = records.validate_status(given).get("id", self.id)
        self.record: Record | None = None
        self._until = 0.0
        self.failing = False
        self._backoff = Backoff(0.25, 5.0)

    @property
    def healthy(self) -> bool:
        return time.monotonic() < self._until

    def complete(self, status: object, load: object) -> Record:
        """The record to send."""
        if not isinstance(status, Mapping):
            raise BadArgument("status()", status, "must be a dict with at least role, ttl and load")
        said = dict(status)
        if load is not None:
            said["load"] = load
        if said.get("id") is None:
            said["id"] = self.id
        return said

    def stored(self, record: Record, asked_at: float) -> float:
        """It was stored: seconds to the next."""
        self.id, self.record, self._until = record["id"], record, asked_at + record["ttl"]
        if self.failing:
            log.info("heartbeat.recovered", id=self.id, role=record["role"])
        self.failing = False
        self._backoff.reset()
        return float(self.every or record["ttl"] / 3)

    def failed(self, err: Exception) -> float:
        """It was not: seconds to the next attempt. One warning for each outage."""
        if not self.failing:
            if isinstance(err, (StoreUnavailable, StoreRefused)):
                log.warning("heartbeat.failed", id=self.id, because=str(err))
            else:
                log.error("heartbeat.failed", err, id=self.id)
        self.failing = True
        usual = self.every or (self.record["ttl"] / 3 if self.record is not None else 5.0)
        return float(min(self._backoff.next(), usual))

    async def unregister(self, unregister: Callable[[str | int], Awaitable[None]]) -> None:
        """Unregister what may be registered, within `FAREWELL` seconds."""
        self._until = 0.0
        if self.record is None and not self.failing:
            return
        try:
            await asyncio.wait_for(unregister(self.id), UNREGISTER_TIMEOUT)
        except (StoreUnavailable, StoreRefused, asyncio.TimeoutError) as err:
            log.warning(
                "heartbeat.not_unregistered", id=self.id, because=str(err) or "no answer in time"
            )


class _Known:
    """What both kinds of heartbeat know of their record."""

    _rhythm: HeartbeatState

    @property
    def id(self) -> str | int:
        """The id of the record."""
        return self._rhythm.id

    @property
    def record(self) -> Record | None:
        """The record as last stored; None before the first time."""
        return self._rhythm.record

    @property
    def healthy(self) -> bool:
        """Whether others see the service as healthy, as far as is known here: without I/O."""
        return self._rhythm.healthy


class Heartbeat(_Known):
    """Registers a service, heartbeats it every ttl / 3 from a thread of its own, and unregisters it
    at the end.

    Use it as a context manager, or by `start` and `stop`; what is still running when the process
    ends is unregistered then. An outage of the store is survived: it goes on trying, and registers
    anew where the record has gone.

    registry: a `ServiceRegistry`.
    status: the dict for `heartbeat`, or a function that returns it, called for each heartbeat.
    Without an `id` one is
        made and kept.
    load: a number, or a function that returns one, called for each heartbeat; instead of `load` in
    the status.
    every: seconds between heartbeats (ttl / 3).

    A function that raises costs that heartbeat, and is logged: a service that cannot say how it is,
    is not healthy."""

    def __init__(
        self,
        registry: ServiceRegistry,
        status: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
        *,
        load: float | Callable[[], float] | None = None,
        every: float | None = None,
    ) -> None:
        self._registry = registry
        self._new_rhythm = functools.partial(HeartbeatState, status, load, every)
        self._rhythm = self._new_rhythm()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._epoch = process.fork_generation

    def start(self) -> None:
        """Heartbeat once, then from the background. Does nothing when it runs already.

        Raises `BadArgument` for a bad status, and `StoreRefused`; a store that is not there is
        tried again later."""
        if self._thread is not None and self._epoch == process.fork_generation:
            return
        if (
            self._epoch != process.fork_generation
        ):  # another process, so another service: an id that was made is not shared
            self._epoch, self._rhythm = process.fork_generation, self._new_rhythm()
        host = self._registry.host
        self._stopping = threading.Event()
        try:
            pause = self._beat()
        except StoreUnavailable as err:
            pause = self._rhythm.failed(err)
        self._thread = threading.Thread(
            target=self._run, args=(pause, self._stopping), name="coord heartbeat", daemon=True
        )
        host.on_close.add(self)
        process.close_at_exit(host)
        self._thread.start()

    def stop(self) -> None:
        """No more heartbeats, and unregister. A store that does not answer is logged: the record
        runs out by itself."""
        if self._thread is not None and self._epoch == process.fork_generation:
            self.halt()
            self.join()
            self._registry.portal.call(self.unregister)

    # The three steps of `stop`, so that a coordinator that closes takes each for all heartbeats at
    # once.

    def halt(self) -> None:
        """Begin no more heartbeats. Does not wait."""
        self._stopping.set()

    def join(self) -> None:
        """Wait for one that is under way, a second at most."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1.0)

    async def unregister(self) -> None:
        """On the coordinator's loop: unregister."""
        self._thread = None
        self._registry.host.on_close.discard(self)
        await self._rhythm.unregister(self._registry.inner.unregister)

    def __enter__(self) -> Heartbeat:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _beat(self) -> float:
        rhythm = self._rhythm
        status = rhythm.status() if callable(rhythm.status) else rhythm.status
        said = rhythm.complete(status, rhythm.load() if callable(rhythm.load) else rhythm.load)
        if self._stopping.is_set():  # while the functions took their time
            return 0.0
        asked_at = time.monotonic()
        return rhythm.stored(self._registry.heartbeat(said), asked_at)

    def _run(self, pause: float, stopping: threading.Event) -> None:
        while not stopping.wait(pause):
            try:
                pause = self._beat()
            except Exception as err:  # whatever it is, the next heartbeat may succeed
                pause = self._rhythm.failed(err)


class AsyncHeartbeat(_Known):
    """The same on the running loop: `async with AsyncHeartbeat(registry, status): ...`.

    The functions may be async; plain ones run on the loop, so they must be quick.
    """

    def __init__(
        self,
        registry: AsyncServiceRegistry,
        status: Mapping[str, Any] | Callable[[], Any],
        *,
        load: float | Callable[[], Any] | None = None,
        every: float | None = None,
    ) -> None:
        self._registry = registry
        self._new_rhythm = functools.partial(HeartbeatState, status, load, every)
        self._rhythm = self._new_rhythm()
        self._task: asyncio.Task[None] | None = None
        self._epoch = process.fork_generation

    async def start(self) -> None:
        """Heartbeat once, then from the background; see `Heartbeat.start`."""
        if self._task is not None and self._epoch == process.fork_generation:
            return
        if (
            self._epoch != process.fork_generation
        ):  # another process, so another service: an id that was made is not shared
            self._epoch, self._rhythm = process.fork_generation, self._new_rhythm()
        try:
            pause = await self._beat()
        except StoreUnavailable as err:
            pause = self._rhythm.failed(err)
        self._registry.session.on_close.add(self.stop)
        self._task = asyncio.get_running_loop().create_task(
            self._run(pause), name="coord heartbeat"
        )

    async def stop(self) -> None:
        """No more heartbeats, and unregister; see `Heartbeat.stop`."""
        task, self._task = self._task, None
        self._registry.session.on_close.discard(self.stop)
        if task is None or self._epoch != process.fork_generation:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self._rhythm.unregister(self._registry.unregister)

    async def __aenter__(self) -> AsyncHeartbeat:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def _beat(self) -> float:
        rhythm = self._rhythm
        status = await _said(rhythm.status)
        said = rhythm.complete(status, await _said(rhythm.load))
        asked_at = time.monotonic()
        return rhythm.stored(await self._registry.heartbeat(said), asked_at)

    async def _run(self, pause: float) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(pause)
                try:
                    pause = await self._beat()
                except Exception as err:  # whatever it is, the next heartbeat may succeed
                    pause = self._rhythm.failed(err)


async def _said(what: Any) -> Any:
    value = what() if callable(what) else what
    return await value if inspect.isawaitable(value) else value
