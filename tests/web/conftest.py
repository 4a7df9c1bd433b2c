"""Applications on a store in memory, and clients that call them without a network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from coord import AsyncCoordinator, metrics
from coord.stores.memory.store import MemoryStore
from coord.web import create_app, live
from coord.web.app import WebApp
from tests.support.waits import WITHIN

HOME = ("127.0.0.1", 40_000)


@pytest.fixture(autouse=True)
def counting() -> Iterator[None]:
    """Each application counts in the default registry, until the end of its test."""
    yield
    metrics.disable()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are refreshed at once."""
    monkeypatch.setattr(live, "REFRESH_EVERY", 0.05)
    monkeypatch.setattr(live, "RETRY_EVERY", 0.05)


def client(
    app: Callable[..., Awaitable[None]],
    *,
    base: str = "http://127.0.0.1",
    peer: tuple[str, int] = HOME,
) -> httpx.AsyncClient:
    """A client whose requests come from `peer`."""
    transport = httpx.ASGITransport(app=app, client=peer)
    return httpx.AsyncClient(transport=transport, base_url=base, timeout=WITHIN)


@asynccontextmanager
async def serving(
    **options: Any,
) -> AsyncIterator[tuple[AsyncCoordinator, httpx.AsyncClient, WebApp]]:
    """A coordinator on a store in memory, and a client of its application."""
    store = options.pop("store", None) or MemoryStore()
    where = {name: options.pop(name) for name in ("base", "peer") if name in options}
    async with AsyncCoordinator(store=store, timeout=options.pop("timeout", 5.0)) as coordinator:
        app = create_app(coordinator, **options)
        async with client(app, **where) as http:
            yield coordinator, http, app


class Stream:
    """One open stream of events, read as a browser does."""

    def __init__(self, app: Any, path: str = "/events", query: str = "") -> None:
        self._app, self._incoming = app, asyncio.Queue[dict[str, Any]]()
        self._received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(b"host", b"127.0.0.1")],
            "client": HOME,
            "server": ("127.0.0.1", 80),
            "scheme": "http",
            "root_path": "",
        }
        self.task: asyncio.Task[None] | None = None
        self.text = ""

    async def __aenter__(self) -> Stream:
        self._incoming.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        self.task = asyncio.ensure_future(
            self._app(self._scope, self._incoming.get, self._received.put)
        )
        self.start = await self._message()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.leave()
        assert self.task is not None
        await asyncio.wait_for(self.task, WITHIN)

    def leave(self) -> None:
        """The browser closes the page."""
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def _message(self) -> dict[str, Any]:
        return await asyncio.wait_for(self._received.get(), WITHIN)

    async def view(self) -> dict[str, Any]:
        """The next view."""
        while True:
            message = await self._message()
            text = message["body"].decode()
            self.text += text
            if text.startswith("data: "):
                view: dict[str, Any] = json.loads(text.removeprefix("data: "))
                return view
            assert message.get("more_body"), "the stream has ended"

    async def until(self, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next view of which that is true."""

        async def read() -> dict[str, Any]:
            while not what(view := await self.view()):
                pass
            return view

        return await asyncio.wait_for(read(), WITHIN)

    async def ended(self) -> None:
        """Wait for the end of the stream."""

        async def read() -> None:
            while (await self._message()).get("more_body"):
                pass

        await asyncio.wait_for(read(), WITHIN)


def cells(view: dict[str, Any], table: str) -> list[list[str]]:
    """The texts of a table."""
    return [[cell["text"] for cell in row["cells"]] for row in view["tables"][table]]
