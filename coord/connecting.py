"""`connect`. What a coordinator needs, asyncio first of all, is imported when it is called: it is most of the cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coord.coordinator import Coordinator


def connect(url: str | None = None, *, timeout: float = 5.0) -> Coordinator:
    """A coordinator whose store has been reached and found usable.

    Raises `BadArgument` for a bad URL, `StoreUnavailable` when nobody answers within `timeout` seconds, `NotSetUp`
    (which names the command that sets it up) and `AccessDenied`. `Coordinator(url)` does the same without checking.
    """
    from coord.coordinator import Coordinator

    coordinator = Coordinator(url, timeout=timeout)
    try:
        coordinator.check()
    except BaseException:
        coordinator.close()
        raise
    return coordinator
