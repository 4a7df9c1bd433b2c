"""Connecting to the first of several servers that accepts a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

Address = TypeVar("Address")
Connection = TypeVar("Connection")

STAGGER = 0.3
"""Seconds for which one server is tried alone before the next is tried as well."""


async def first_connection(
    addresses: Sequence[Address],
    connect: Callable[[Address], Coroutine[Any, Any, Connection]],
    drop: Callable[[Connection], None],
    is_final: Callable[[BaseException], bool],
) -> Connection:
    """Return a connection to the first server that accepts one.

    Args:
        addresses: The servers, at least one, in the order in which they are tried.
        connect: Connects to one of them.
        drop: Closes a connection that was opened after another one had been chosen.
        is_final: Whether the exception of `connect` ends the attempt, as a wrong password does.
            After any other, the other servers are tried.

    Raises:
        BaseException: What `connect` raised: the first final exception, or that of the last server.
    """
    untried = list(addresses)
    attempts: set[asyncio.Task[Connection]] = set()
    last_error: BaseException | None = None
    try:
        while untried or attempts:
            if untried:
                attempts.add(asyncio.ensure_future(connect(untried.pop(0))))
            done, attempts = await asyncio.wait(
                attempts,
                timeout=STAGGER if untried else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            opened = [task.result() for task in done if task.exception() is None]
            for connection in opened[1:]:
                drop(connection)
            if opened:
                return opened[0]
            for error in (task.exception() for task in done):
                if error is not None and is_final(error):
                    raise error
                last_error = error or last_error
        assert last_error is not None, "there are no servers"
        raise last_error
    finally:

        def drop_result(task: asyncio.Task[Connection]) -> None:
            if not task.cancelled() and task.exception() is None:
                drop(task.result())

        for task in attempts:
            task.cancel()
            task.add_done_callback(drop_result)
