"""Repetition after failures: waits with jitter, requests with a deadline, feeds that reconnect."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, cast

from coord.errors import CoordError, StoreRefused, StoreUnavailable
from coord.runtime import log, process

T = TypeVar("T")

RETRY_FIRST, RETRY_MAX = 0.02, 1.0
"""Seconds that `retry_until` waits at most after the first failure, and after any."""
MIN_REMAINING = 0.001
"""Seconds that `retry_until` gives the last attempt at least."""
RESTART_FIRST, RESTART_MAX = 0.1, 5.0
"""Seconds that `restart_on_failure` waits at most after the first failure, and after any."""


class PrivateRandom(random.Random):
    """A generator of random numbers that a forked child seeds again.

    Two processes that were forked from one would otherwise wait for the same times.
    """

    def after_fork(self) -> None:
        """Take a new seed from the operating system."""
        self.seed()


rng = PrivateRandom()
"""The generator for all of coord, for what is no secret. The generator of the module `random`
belongs to the program, which may have seeded it to get the same numbers in each run."""
process.reset_after_fork(rng)


class Backoff:
    """Computes how long to wait after each failure in a row.

    The wait is random from the first failure on, so that a thousand candidates that lost their
    store at the same time do not return at the same time (AWS Architecture Blog, "Exponential
    Backoff And Jitter").

    Args:
        first: The longest wait after the first failure, in seconds. It doubles with each failure.
        most: The longest wait after any failure, in seconds.
    """

    __slots__ = ("_failures", "_first", "_most")

    def __init__(self, first: float, most: float) -> None:
        self._first, self._most = first, most
        self._failures = 0

    @property
    def failing(self) -> bool:
        """Whether the last request failed."""
        return self._failures > 0

    def reset(self) -> None:
        """Start again with the shortest wait: a request succeeded."""
        self._failures = 0

    def next(self) -> float:
        """Count a failure, and return how many seconds to wait."""
        self._failures += 1
        return full_jitter(self._failures, self._first, self._most)


def full_jitter(failures: int, first: float, most: float) -> float:
    """Return a random wait in seconds after `failures` failures in a row (1 or more).

    Args:
        failures: The number of failures in a row.
        first: The longest wait after one failure, in seconds. It doubles with each failure.
        most: The longest wait, in seconds.
    """
    # From the thousandth failure on, 2.0 ** failures would not be a float any more.
    longest = min(most, first * 2.0 ** min(failures - 1, 100))
    return rng.uniform(0, longest)


async def retry_until(ask: Callable[[float], Awaitable[T]], timeout: float) -> T:
    """Call `ask` until it does not raise `StoreUnavailable`, for at most `timeout` seconds.

    Use it for requests that may be repeated.

    Args:
        ask: Makes the request. It gets the remaining time in seconds, at least 0.001.
        timeout: Seconds from now after which no other attempt begins.

    Returns:
        What `ask` returned.

    Raises:
        StoreUnavailable: The last attempt raised it, and the next one would be too late.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout

    async def attempt() -> T:
        return await ask(max(deadline - loop.time(), MIN_REMAINING))

    try:
        return await attempt()
    except StoreUnavailable:
        delay = full_jitter(1, RETRY_FIRST, RETRY_MAX)
        if loop.time() + delay >= deadline:
            raise
    await asyncio.sleep(delay)
    # tenacity takes 40 ms to import. Requests that succeed do not wait for that, and need no file
    # descriptor for it.
    from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

    def wait(state: RetryCallState) -> float:
        # Not one of tenacity's: those draw from the random generator of the program.
        return full_jitter(state.attempt_number + 1, RETRY_FIRST, RETRY_MAX)

    def next_is_too_late(state: RetryCallState) -> bool:
        # tenacity's own `stop_before_delay` reads another clock than the loop, which tests replace.
        return loop.time() + state.upcoming_sleep >= deadline

    attempts = AsyncRetrying(
        sleep=asyncio.sleep,
        stop=next_is_too_late,
        wait=wait,
        retry=retry_if_exception_type(StoreUnavailable),
        reraise=True,
    )
    return await attempts(attempt)


async def restart_on_failure(work: Callable[[], Awaitable[None]], name: str) -> None:
    """Run `work` until it returns. If it raises, log that, wait a moment and run it again.

    It is for the tasks that a coordinator runs in the background, whose failure nobody would see.

    Args:
        work: Does the task. What it keeps must allow a second call.
        name: The name of the task in the log.
    """
    backoff = Backoff(RESTART_FIRST, RESTART_MAX)
    while True:
        try:
            return await work()
        except Exception as err:
            log.error("task.failed", err, task=name)
        await asyncio.sleep(backoff.next())


async def reconnecting(
    open_feed: Callable[[], AsyncIterator[T]],
    on_row: Callable[[T], None],
    backoff: Backoff,
    on_broken: Callable[[], None] = lambda: None,
    refused_pause: float = 0.0,
) -> None:
    """Read a feed until the calling task is cancelled, and open it again whenever it ends.

    An outage is logged as `feed.broken`, for debugging. Any other exception is a defect of the
    store or of `on_row`, and is logged as a warning, `feed.failed`.

    Args:
        open_feed: Opens the feed. The first rows of a feed are the present ones, so nothing that
            happens between two feeds is missed.
        on_row: Called with each row, on the event loop.
        backoff: Gives the waits between two attempts; each row resets it.
        on_broken: Called when the feed ended, before the wait.
        refused_pause: Seconds to wait at least after `StoreRefused`, which seldom changes soon.
    """
    generation = process.fork_generation
    while True:
        pause = 0.0
        error: Exception
        try:
            async with contextlib.aclosing(cast("AsyncGenerator[T, Any]", open_feed())) as feed:
                async for row in feed:
                    backoff.reset()
                    on_row(row)
            error = CoordError("the feed ended")
        except StoreRefused as refusal:
            error, pause = refusal, refused_pause
        except Exception as failure:
            error = failure
        if generation != process.fork_generation:
            break  # Python ends the copies of coroutines that a forked child has
        if isinstance(error, CoordError):
            log.debug("feed.broken", error=type(error).__name__)
        else:
            log.warning("feed.failed", error=type(error).__name__, detail=str(error))
        on_broken()
        await asyncio.sleep(max(pause, backoff.next()))
