"""Running a job under a term: the job finds the term, the leadership knows that it runs, a coroutine ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from coord.errors import LeadershipLost
from coord.term import Term, _current

T = TypeVar("T")


def run_under(term: Term, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a plain function with `coord.current_term()` set. Raises `LeadershipLost` when the term is over already.

    Until it returns, its process does not claim the role again.
    """
    term._enter()
    token = _current.set(term)
    try:
        return function(*args, **kwargs)
    finally:
        _current.reset(token)
        term._leave()


async def run_async_under(term: Term, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
    """Await a coroutine function likewise; it is cancelled when the term is lost, and `LeadershipLost` raised."""
    term._enter()
    token = _current.set(term)
    try:
        job = asyncio.ensure_future(function(*args, **kwargs))
    except BaseException:
        term._leave()
        raise
    finally:
        _current.reset(token)
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
        term._leave()


async def _until_lost(term: Term) -> None:
    await term.lost
