"""The work on a shard: a task or a thread that begins with its term, and ends before the shard goes
on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Protocol, Union

from coord.election.term import Term, run_async_under_term, run_under_term
from coord.errors import LeadershipLost
from coord.runtime import log
from coord.runtime.timers import finished

Shard = Union[int, str]
"""A shard as its user names it."""
Failed = Callable[[], None]
"""Called when the work has raised. From any thread."""


class Work(Protocol):
    """Starts the work on a shard."""

    def start(self, function: Callable[..., Any], shard: Shard, term: Term, failed: Failed) -> None:
        """Run `function(shard, term)` under the term, and return at once."""


class TaskWork:
    """Runs coroutine functions in tasks of the running loop. A task is cancelled when its term is
    lost."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, function: Callable[..., Any], shard: Shard, term: Term, failed: Failed) -> None:
        async def work() -> None:
            run = await finished(run_async_under_term(term, None, function, shard, term))
            err = asyncio.CancelledError() if run.cancelled() else run.exception()
            if err is not None and not isinstance(err, LeadershipLost):
                report(err, function, term)
                failed()

        task = asyncio.get_running_loop().create_task(work(), name=f"coord work {term.role}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class ThreadWork:
    """Runs plain functions in threads. They learn of a loss from `term.lost` or `term.check()`."""

    def start(self, function: Callable[..., Any], shard: Shard, term: Term, failed: Failed) -> None:
        def work() -> None:
            try:
                run_under_term(term, None, function, shard, term)
            except LeadershipLost:
                pass
            except BaseException as err:  # threads end without a word at SystemExit
                report(err, function, term)
                failed()

        threading.Thread(target=work, name=f"coord work {term.role}", daemon=True).start()


def report(err: BaseException, function: Callable[..., Any], term: Term) -> None:
    """Log that the work on a shard has raised."""
    name = getattr(function, "__qualname__", None) or repr(function)
    log.error("callback.failed", err, role=term.role, token=term.token, callback=name)
