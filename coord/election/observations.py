"""What the candidates of this machine have observed, kept for the candidates that come after them.

An observation is a fact about a clock of this machine, not about one candidate: since a time on the
awake clock, the lease of a role has been at one revision. Revisions never repeat. So a process that
receives the same revision again knows that nobody has written in between, and may count the ttl
from that time (rule 4). Without this, a caller that does not wait never watches for a whole ttl.

A session keeps the observations of candidates that have ended. When it is closed, it stores those
whose claim was refused in a private file, for processes that follow (`coord run --no-wait` in a
cron job). The file is a hint: without it, a new process starts to watch by itself.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from coord.core.lease import Observation, Revision
from coord.core.validation import is_number
from coord.runtime import clock, log, state_file
from coord.runtime.threads import start_thread_soon
from coord.runtime.timers import within

T = TypeVar("T")

MAX_ROLES = 1000
"""Observations that a session keeps, and that the file holds. The oldest go first."""
MAX_AGE = 86_400.0
"""Seconds after which an observation in the file is not used. It limits what a store that was
restored from a backup can bring back."""
MAX_BYTES = 4 * 2**20
"""Size in bytes of a file that is not read, because coord did not write it."""
FILE = "observations.json"
FILE_TIMEOUT = 2.0
"""Seconds to wait for the file. A home directory on a network may never answer, and on a busy
machine a thread may need long to begin."""


class Observations:
    """The observations of one session.

    Args:
        url: URL of the store without secrets.
        on_machine_clock: Returns whether the times are those of the machine's own clock, and not
            those of a test.
    """

    def __init__(self, url: str, on_machine_clock: Callable[[], bool]) -> None:
        self._kept: dict[str, Observation] = {}
        self._unsaved: set[str] = set()
        # A store in memory ends with the process.
        self._in_memory = url.partition(":")[0] == "memory"
        self._on_machine_clock = on_machine_clock
        self._url = url
        self._loading: asyncio.Future[None] | None = None

    def get(self, role: str) -> Observation | None:
        """Return the observation of the last candidate for `role`; None if there is none."""
        return self._kept.get(role)

    def keep(self, role: str, observation: Observation | None) -> None:
        """Keep what a candidate for `role` had observed when it ended.

        Args:
            role: The role.
            observation: None forgets the earlier one: the role is vacant.
        """
        before = self._kept.pop(role, None)
        self._unsaved.discard(role)
        if observation is None:
            return
        self._kept[role] = _earlier(observation, before)
        self._unsaved.add(role)
        if len(self._kept) > MAX_ROLES:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            self._unsaved.discard(oldest)

    @functools.cached_property
    def _store(self) -> str:
        """The name of the store in the file: a digest of its URL."""
        return hashlib.sha256(self._url.encode()).hexdigest()[:32]

    @property
    def _has_file(self) -> bool:
        return not self._in_memory and self._on_machine_clock()

    @property
    def loaded(self) -> bool:
        """Whether there is nothing more to read from the file."""
        return not self._has_file or (self._loading is not None and self._loading.done())

    async def load(self) -> None:
        """Read the file, once for the session. Called when a claim was refused; never raises."""
        if self.loaded:
            return
        if self._loading is None:
            self._loading = asyncio.ensure_future(self._load())
        await asyncio.shield(self._loading)

    async def _load(self) -> None:
        nothing: dict[str, Observation] = {}
        stored = await _in_thread(functools.partial(_read, self._store), nothing)
        for role, observation in stored.items():
            self._kept[role] = _earlier(observation, self._kept.get(role))

    async def save(self) -> None:
        """Write what was kept and is not in the file yet. Never raises."""
        unsaved = {role: self._kept[role] for role in self._unsaved}
        self._unsaved = set()
        if unsaved and self._has_file:
            await _in_thread(functools.partial(_write, self._store, unsaved), None)


def _earlier(observation: Observation, other: Observation | None) -> Observation:
    if other is None or other.revision != observation.revision:
        return observation
    return other if other.since < observation.since else observation


async def _in_thread(work: Callable[[], T], otherwise: T) -> T:
    """Return the result of `work`, or `otherwise` if it fails or takes too long."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(value: T) -> None:
        if not future.done():
            future.set_result(value)

    def run() -> None:
        try:
            value = work()
        except Exception as err:  # whatever is wrong with the file, the election goes on
            log.debug("observations.file_unusable", error=type(err).__name__)
            value = otherwise
        if not loop.is_closed():
            loop.call_soon_threadsafe(finish, value)

    start_thread_soon(run, "coord observations")
    try:
        return await within(future, FILE_TIMEOUT)
    except asyncio.TimeoutError:
        log.debug("observations.file_unusable", error="TimeoutError")
        return otherwise


def _path() -> str:
    return os.path.join(state_file.state_directory(), FILE)


def _rows() -> list[dict[str, Any]]:
    """Return the rows of the file that have the right form, whoever wrote them."""
    content = state_file.read_private(_path(), MAX_BYTES)
    try:
        rows = json.loads(content or b"[]")
    except (ValueError, RecursionError):
        return []
    return [row for row in rows if _valid(row)] if isinstance(rows, list) else []


def _valid(row: object) -> bool:
    return (
        isinstance(row, dict)
        and all(isinstance(row.get(name), str) for name in ("store", "role", "holder", "clock"))
        and all(is_number(row.get(name)) for name in ("token", "beat", "since", "written"))
    )


def _read(store: str) -> dict[str, Observation]:
    """Return the observations of this store that were made on this very clock."""
    kernel, now = clock.kernel_clock(), clock.system_now().awake
    observations = {}
    for row in _rows():
        since = row["since"] + kernel.awake_offset
        if (
            kernel.boot_id
            and row["clock"] == kernel.boot_id
            and row["store"] == store
            and now - MAX_AGE <= since <= now
        ):
            revision = Revision(row["holder"], row["token"], row["beat"])
            observations[row["role"]] = Observation(revision, since)
    return observations


def _write(store: str, observations: dict[str, Observation]) -> None:
    """Add observations to the file, in place of older ones for the same roles."""
    kernel, wall = clock.kernel_clock(), time.time()
    if not kernel.boot_id:
        return
    earlier = _read(store)
    rows = [
        row
        for row in _rows()
        if abs(wall - row["written"]) < MAX_AGE
        and not (
            row["store"] == store and row["role"] in observations and row["clock"] == kernel.boot_id
        )
    ]
    for role, observation in observations.items():
        holder, token, beat = observation.revision
        since = _earlier(observation, earlier.get(role)).since - kernel.awake_offset
        rows.append(
            {
                "store": store,
                "role": role,
                "holder": holder,
                "token": token,
                "beat": beat,
                "clock": kernel.boot_id,
                "since": since,
                "written": wall,
            }
        )
    rows.sort(key=lambda row: -row["written"])
    content = json.dumps(rows[:MAX_ROLES], separators=(",", ":"))
    state_file.write_private(_path(), content.encode())
