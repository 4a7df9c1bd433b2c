"""`Heartbeat` and `AsyncHeartbeat`: the heartbeats of a service in the background."""

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
from coord.runtime.facade import PublicDir
from coord.runtime.retry import Backoff
from coord.runtime.timers import within

if TYPE_CHECKING:
    from coord.services.registry import AsyncServiceRegistry, ServiceRegistry

UNREGISTER_TIMEOUT = 3.0
"""Seconds that the end of a heartbeat waits for a store that does not answer. The record expires by
itself then."""


class HeartbeatState:
    """What a heartbeat sends and when, without waiting.

    Args:
        status: See `Heartbeat`.
        load: See `Heartbeat`.
        every: Seconds between heartbeats; None means a third of the ttl.
    """

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
            complete = {"load": 0, **status} if load is not None else status
            self.id = records.validate_status(complete).get("id", self.id)
        self.record: Record | None = None
        self._until = 0.0
        self.failing = False
        self._backoff = Backoff(0.25, 5.0)

    @property
    def healthy(self) -> bool:
        """Whether the last record that was stored has not expired."""
        return time.monotonic() < self._until

    def build_record(self, status: object, load: object) -> Record:
        """Return the record to send.

        Raises:
            BadArgument: `status` is not a dict.
        """
        if not isinstance(status, Mapping):
            raise BadArgument("status()", status, "must be a dict with at least role, ttl and load")
        record = dict(status)
        if load is not None:
            record["load"] = load
        if record.get("id") is None:
            record["id"] = self.id
        return record

    def on_stored(self, record: Record, sent_at: float) -> float:
        """Note a stored record, and return the seconds until the next heartbeat."""
        self.id, self.record, self._until = record["id"], record, sent_at + record["ttl"]
        if self.failing:
            log.info("heartbeat.recovered", id=self.id, role=record["role"])
        self.failing = False
        self._backoff.reset()
        return float(self.every or record["ttl"] / 3)

    def on_failed(self, err: Exception) -> float:
        """Note a failed heartbeat, and return the seconds until the next attempt.

        An outage is logged once.
        """
        if not self.failing:
            if isinstance(err, (StoreUnavailable, StoreRefused)):
                log.warning("heartbeat.failed", id=self.id, because=str(err))
            else:
                log.error("heartbeat.failed", err, id=self.id)
        self.failing = True
        usual = self.every or (self.record["ttl"] / 3 if self.record is not None else 5.0)
        return float(min(self._backoff.next(), usual))

    async def unregister(self, unregister: Callable[[str | int], Awaitable[None]]) -> None:
        """Unregister what may be registered, within `UNREGISTER_TIMEOUT` seconds."""
        self._until = 0.0
        if self.record is None and not self.failing:
            return
        try:
            await within(unregister(self.id), UNREGISTER_TIMEOUT)
        except (StoreUnavailable, StoreRefused, asyncio.TimeoutError) as err:
            log.warning(
                "heartbeat.not_unregistered", id=self.id, because=str(err) or "no answer in time"
            )


class _HasRecord(PublicDir):
    """What both kinds of heartbeat know of their record."""

    _state: HeartbeatState

    @property
    def id(self) -> str | int:
        """The id of the record."""
        return self._state.id

    @property
    def record(self) -> Record | None:
        """The record as it was stored last; None before the first time."""
        return self._state.record

    @property
    def healthy(self) -> bool:
        """Whether the last record has not expired, so that others see a healthy service. No I/O."""
        return self._state.healthy


class Heartbeat(_HasRecord, internal=("halt", "join", "unregister")):
    """Sends the heartbeats of a service from a thread of its own, and unregisters it at the end.

    Use it as a context manager, or call `start` and `stop`. A service that is still registered when
    the process ends is unregistered then. Heartbeats continue through an outage of the store, and
    register the service again if its record is gone.

    If `status` or `load` raises an exception, that heartbeat is not sent, and the exception is
    logged: a service that cannot report its state is not healthy.

    Args:
        registry: The registry.
        status: The dict for `ServiceRegistry.heartbeat`, or a function that returns it, which is
            called for each heartbeat. If it has no `id`, one is made and kept.
        load: A number, or a function that returns one and is called for each heartbeat. It replaces
            `load` in the status. None: the status has it.
        every: Seconds between heartbeats; None means a third of the ttl.

    Raises:
        BadArgument: An argument is invalid.
    """

    def __init__(
        self,
        registry: ServiceRegistry,
        status: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
        *,
        load: float | Callable[[], float] | None = None,
        every: float | None = None,
    ) -> None:
        self._registry = registry
        self._new_state = functools.partial(HeartbeatState, status, load, every)
        self._state = self._new_state()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._epoch = process.fork_generation

    def start(self) -> None:
        """Send one heartbeat now and the others in the background. If it runs, do nothing.

        If the store does not answer, the background tries again.

        Raises:
            BadArgument: The status is invalid.
            StoreRefused: The store refuses.
        """
        if self._thread is not None and self._epoch == process.fork_generation:
            return
        if self._epoch != process.fork_generation:
            # A forked process is another service, so an id that was made is not shared.
            self._epoch, self._state = process.fork_generation, self._new_state()
        host = self._registry.host
        self._stopping = threading.Event()
        try:
            pause = self._beat()
        except StoreUnavailable as err:
            pause = self._state.on_failed(err)
        self._thread = threading.Thread(
            target=self._run, args=(pause, self._stopping), name="coord heartbeat", daemon=True
        )
        host.on_close.add(self)
        process.close_at_exit(host)
        self._thread.start()

    def stop(self) -> None:
        """End the heartbeats, and unregister the service.

        If the store does not answer, that is logged, and the record expires by itself.
        """
        if self._thread is not None and self._epoch == process.fork_generation:
            self.halt()
            self.join()
            self._registry.portal.call(self.unregister)

    # `stop` has three steps, so that a coordinator that closes can do each for all heartbeats at
    # once.

    def halt(self) -> None:
        """Start no further heartbeat. Does not wait."""
        self._stopping.set()

    def join(self) -> None:
        """Wait for a heartbeat that is under way, for at most a second."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(1.0)

    async def unregister(self) -> None:
        """Unregister the service. Called on the loop of the coordinator."""
        self._thread = None
        self._registry.host.on_close.discard(self)
        await self._state.unregister(self._registry.inner.unregister)

    def __enter__(self) -> Heartbeat:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _beat(self) -> float:
        state = self._state
        status = state.status() if callable(state.status) else state.status
        record = state.build_record(status, state.load() if callable(state.load) else state.load)
        if self._stopping.is_set():  # the functions of the user may take long
            return 0.0
        sent_at = time.monotonic()
        return state.on_stored(self._registry.heartbeat(record), sent_at)

    def _run(self, pause: float, stopping: threading.Event) -> None:
        while not stopping.wait(pause):
            try:
                pause = self._beat()
            except Exception as err:  # whatever it is, the next heartbeat may succeed
                pause = self._state.on_failed(err)


class AsyncHeartbeat(_HasRecord):
    """A `Heartbeat` on the running event loop: `async with AsyncHeartbeat(registry, status): ...`.

    `status` and `load` may be coroutine functions. Ordinary functions run on the loop, so they must
    be quick.
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
        self._new_state = functools.partial(HeartbeatState, status, load, every)
        self._state = self._new_state()
        self._task: asyncio.Task[None] | None = None
        self._epoch = process.fork_generation

    async def start(self) -> None:
        """Send one heartbeat now and the others in the background; see `Heartbeat.start`."""
        if self._task is not None and self._epoch == process.fork_generation:
            return
        if self._epoch != process.fork_generation:
            # A forked process is another service, so an id that was made is not shared.
            self._epoch, self._state = process.fork_generation, self._new_state()
        try:
            pause = await self._beat()
        except StoreUnavailable as err:
            pause = self._state.on_failed(err)
        self._registry.session.on_close.add(self.stop)
        self._task = asyncio.get_running_loop().create_task(
            self._run(pause), name="coord heartbeat"
        )

    async def stop(self) -> None:
        """End the heartbeats, and unregister the service; see `Heartbeat.stop`."""
        task, self._task = self._task, None
        self._registry.session.on_close.discard(self.stop)
        if task is None or self._epoch != process.fork_generation:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self._state.unregister(self._registry.unregister)

    async def __aenter__(self) -> AsyncHeartbeat:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def _beat(self) -> float:
        state = self._state
        record = state.build_record(await _value(state.status), await _value(state.load))
        sent_at = time.monotonic()
        return state.on_stored(await self._registry.heartbeat(record), sent_at)

    async def _run(self, pause: float) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(pause)
                try:
                    pause = await self._beat()
                except Exception as err:  # whatever it is, the next heartbeat may succeed
                    pause = self._state.on_failed(err)


async def _value(source: Any) -> Any:
    value = source() if callable(source) else source
    return await value if inspect.isawaitable(value) else value
