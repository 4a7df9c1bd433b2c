"""What the calls of a coordinator raise for a user whom the store denies access."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from coord import AsyncCoordinator
from coord.errors import CoordError

SERVICE = {"role": "r", "ttl": 5.0, "load": 0}


def _calls(c: AsyncCoordinator, records: bool) -> dict[str, Callable[[], Awaitable[Any]]]:
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "acquire": lambda: c.leadership("r", ttl=5).acquire(timeout=10),
        "first_outcome": lambda: c.leadership("r", ttl=5).first_outcome(timeout=10),
        "slots": lambda: c.slots("r", 2, ttl=5).start(),
        "share": lambda: c.share("g", 2, ttl=5).start(),
        "unique_service": lambda: c.unique_service("r", {"ttl": 5}),
        "look up": lambda: c.unique_service("r"),
        "once": lambda: c.once("job", 1, int),
        "leader": lambda: c.leader("r"),
        "leaders": c.leaders,
        "history": lambda: c.history("r"),
        "candidates": lambda: c.candidates("r"),
        "notes": lambda: c.notes("r"),
        "pause": lambda: c.pause("r"),
        "resume": lambda: c.resume("r"),
        "evict": lambda: c.evict("r"),
        "retire": lambda: c.retire(unused=1),
    }
    if records:
        calls |= {
            "heartbeat": lambda: c.services.heartbeat(SERVICE),
            "healthy_service": lambda: c.services.healthy_service("r"),
            "publishing": lambda: c.services.unique_service("r", {"ttl": 5}),
        }
    return calls


async def kinds_of_refusals(url: str, records: bool) -> dict[str, str]:
    """Return the name of the exception that each call raises, by the name of the call."""
    kinds = {}
    async with _Closing(url) as c:
        for name, call in _calls(c, records).items():
            try:
                kinds[name] = f"no error, but {await call()!r}"
            except CoordError as err:
                kinds[name] = type(err).__name__
    return kinds


async def check_refusals(url: str, *, records: bool = True) -> None:
    """Check that every call raises `AccessDenied`; `records` says whether it keeps services."""
    kinds = await kinds_of_refusals(url, records)
    assert set(kinds.values()) == {"AccessDenied"}, kinds


class _Closing:
    """A coordinator for the duration of a block, which does not check the store before it."""

    def __init__(self, url: str) -> None:
        self._coordinator = AsyncCoordinator(url)

    async def __aenter__(self) -> AsyncCoordinator:
        return self._coordinator

    async def __aexit__(self, *_: object) -> None:
        await self._coordinator.close()
