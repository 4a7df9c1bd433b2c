"""Running a job under a term: the job finds the term, the leadership knows that it runs, a coroutine ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from coord.errors import LeadershipLost
from coord.progress import current_job
from coord.term import Term, _current

T = TypeVar("T")


def run_under(term: Term, at_most: float | None, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a plain function with `coord.current_term()` set. Raises `LeadershipLost` when the term is over already.

    at_most: seconds from now, or from the last `term.progress()` in it, after which the term is lost
        (`LossReason.NO_PROGRESS`); None: without end.
    Until it returns, its process does not claim the role again.
    """
    watched = term._enter(at_most)
    token, job_token = _current.set(term), current_job.set(watched)
    try:
        return function(*args, **kwargs)
    finally:
        _current.reset(token)
        current_job.reset(job_token)
        term._leave(watched)


async def run_async_under(
    term: Term, at_most: float | None, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any
) -> T:
    """Await a coroutine function likewise; it is cancelled when the term is lost, and `LeadershipLost` raised."""
    watched = term._enter(at_most)
    token, job_token = _current.set(term), current_job.set(watched)
    try:
        job = asyncio.ensure_future(function(*args, **kwargs))
    except BaseException:
        term._leave(watched)
        raise
    finally:
        _current.reset(token)
        current_job.reset(job_token)
    lost = asyncio.ensure_future(_until_lost(term))
    try:
        await asyncio.wait({job, lost}, return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            job.cancel()
            await asyncio.wait({job})
            if job.cancelled():
                raise LeadershipLost(term.role, term.token, term.reason)
        return job.result()
    finally:
        for task in (job, lost):
            task.cancel()
        await asyncio.gather(job, lost, return_exceptions=True)
        term._leave(watched)


async def _until_lost(term: Term) -> None:
    await term.lost
