"""Whether the table of leases still keeps what it acknowledges.

The guarantees need a table with majority acks and hard durability. A user who may configure the
table can change that at any time, so the settings are read before the first claim, and every
`CHECK_INTERVAL` seconds after that, whether or not requests are sent.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

from coord.errors import AccessDenied, NotSetUp
from coord.runtime import log
from coord.runtime.retry import rng
from coord.runtime.timers import within
from coord.stores.failures import RequestError
from coord.stores.rethinkdb import driver, errors
from coord.stores.rethinkdb.errors import not_set_up
from coord.stores.rethinkdb.pool import Pool
from coord.stores.rethinkdb.url import REQUIRED_SETTINGS, RethinkURL

CHECK_INTERVAL = 20.0
"""Seconds between two checks of a table that is used, at most. Each interval is drawn at random, so
that processes that start together do not check at the same time forever."""
WEAK_CHECK_INTERVAL = 1.0
"""The fewest seconds between two checks of a table whose settings are weak."""
CHECK_TIMEOUT = 10.0
"""Seconds for one check that no request waits for."""

_leaked: list[object] = []
"""Keeps the parent's tasks alive in a forked child, where nothing may end them."""


def weak_settings(config: dict[str, Any]) -> str:
    """Return which settings of a table's `config()` are too weak, for people; "" if none is."""
    return ", ".join(
        f"{name} is {config.get(name)}"
        for name, value in REQUIRED_SETTINGS.items()
        if config.get(name) != value
    )


class TableSettings:
    """What is known of the settings of the table of leases of one store.

    A user who may not read the settings may use the table: then only `coord doctor`, run by an
    administrator, can tell.

    Args:
        pool: The connections of the store.
        url: Names the database and the table.
    """

    def __init__(self, pool: Pool, url: RethinkURL) -> None:
        self._pool = pool
        self._url = url
        self.forget()

    def forget(self) -> None:
        """Forget what is known, and stop checking."""
        self.acceptable = False
        self._refusal = ""
        self._checked_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def abandon(self) -> None:
        """Forget everything in a forked child: the task and its loop are the parent's (rule 9)."""
        _leaked.append((self._task, self._timer, self._loop))
        self.forget()

    def close(self) -> None:
        """Stop checking until the store is used again."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None and self._loop is asyncio.get_running_loop():
            self._task.cancel()
        self.forget()

    async def require(self, timeout: float, *, fresh: bool = False) -> None:
        """Return if the table may be used for leases.

        Args:
            timeout: Seconds that it may take.
            fresh: Whether to ask the server in any case.

        Raises:
            RequestError: The settings are weak (`NotSetUp`), or the server does not answer. Nothing
                was changed, whatever else the query was to do.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self.forget()
            self._loop = loop
        if self.acceptable and not fresh:
            return
        is_recent = loop.time() < self._checked_at + WEAK_CHECK_INTERVAL
        if self._refusal and is_recent and not fresh:
            raise self._known_refusal()
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._check(timeout), name="coord rethinkdb settings")
            # Every request may have given up by then. Asking for the exception keeps asyncio from
            # reporting it as never retrieved.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            await within(asyncio.shield(self._task), timeout)
        except asyncio.TimeoutError:
            detail = f"the settings of the table {self._url.table} could not be read in time"
            raise errors.unreachable(detail) from None
        if self._refusal:
            raise self._known_refusal()

    def _known_refusal(self) -> RequestError:
        return RequestError(self._refusal, unknown=False, refusal=NotSetUp)

    async def _check(self, timeout: float) -> None:
        """Read the settings, and note what they mean.

        Raises:
            RequestError: They could not be read, so nothing is known about them.
        """
        table = driver.reql().db(self._url.database).table(self._url.table)
        try:
            with errors.decoding():
                weak = weak_settings(await self._pool.query(table.config(), timeout))
        except RequestError as error:
            if error.refusal is not AccessDenied:
                raise RequestError(
                    error.detail, unknown=False, refusal=error.refusal, retryable=True
                ) from None
            weak = ""
        problem = f"the table {self._url.table} may lose what it has acknowledged ({weak})"
        was_acceptable, self.acceptable = self.acceptable, not weak
        self._refusal = not_set_up(problem, self._url) if weak else ""
        self._checked_at = asyncio.get_running_loop().time()
        self._check_later()
        if weak and was_acceptable:
            log.warning("store.weakened", url=self._url.redacted, because=weak)

    def _check_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # A store that was dropped without `close` is not kept alive by its timer.
        check = weakref.WeakMethod(self._check_now)
        loop = asyncio.get_running_loop()
        seconds = CHECK_INTERVAL * rng.uniform(0.7, 1.0)
        self._timer = loop.call_later(seconds, _call, check)

    def _check_now(self) -> None:
        if self._task is None or self._task.done():
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._check_again(), name="coord rethinkdb settings")

    async def _check_again(self) -> None:
        try:
            await self._check(CHECK_TIMEOUT)
        except RequestError:
            self._check_later()  # An outage says nothing about the settings.


def _call(method: weakref.WeakMethod[Any]) -> None:
    bound = method()
    if bound is not None:
        bound()
