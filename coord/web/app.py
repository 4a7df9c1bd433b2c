"""The ASGI application: routes, errors, and the checks in front of them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from coord import metrics
from coord.api.coordinator import AsyncCoordinator
from coord.api.sync_coordinator import Coordinator
from coord.core import validation
from coord.errors import CoordError, StoreUnavailable
from coord.web.interface import Interface
from coord.web.live import Live
from coord.web.pages import Pages
from coord.web.probes import Probes
from coord.web.security import Authority, Guard
from coord.web.site import Site, status_of, to_json
from coord.web.source import Source

REFRESH_AFTER = 5
"""Seconds until a browser asks again for a page that could not be shown."""
MAX_TITLE = 200
"""Bytes of the name of an installation."""


class WebApp:
    """An ASGI application with a page, a JSON interface and probes. `create_app` makes one.

    Args:
        coordinator: See `create_app`, as for the other arguments.
        token: See `create_app`.
        allowed_hosts: See `create_app`.
        title: See `create_app`.
        services: See `create_app`.

    Raises:
        BadArgument: An argument is invalid.
    """

    def __init__(
        self,
        coordinator: Coordinator | AsyncCoordinator,
        *,
        token: str | None,
        allowed_hosts: Sequence[str],
        title: str,
        services: bool,
    ) -> None:
        source = Source(coordinator)
        self._live = Live(source)
        authority = Authority(token, allowed_hosts)
        validation.name(title, "title", MAX_TITLE, f"must be a string of 1 to {MAX_TITLE} bytes")
        self._site = Site(source, self._live, authority, title, services)
        self._pages = Pages(self._site)
        if metrics.registry() is None:
            with contextlib.suppress(CoordError):  # the Prometheus client is not installed
                metrics.enable()
        routes = [
            *Probes(self._site).routes(),
            *self._pages.routes(),
            *Interface(self._site).routes(),
        ]
        handlers = {CoordError: self._coord_error, HTTPException: self._http_error}
        inner = Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type] # Starlette types handlers of Exception only
        self._app: ASGIApp = Guard(inner, authority)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    @property
    def open_streams(self) -> int:
        """How many browsers and programs follow the changes now."""
        return self._live.readers

    def close(self) -> None:
        """End all open streams, now and later. It may be called from a signal handler.

        The application does this by itself at SIGTERM and SIGINT, if the server handles these
        signals in the main thread.
        """
        self._live.close()

    async def _coord_error(self, request: Request, error: CoordError) -> Response:
        headers = {"Retry-After": "1"} if isinstance(error, StoreUnavailable) else {}
        text = self._site.message(error, request)
        return self._failure(request, status_of(error), text, headers)

    async def _http_error(self, request: Request, error: HTTPException) -> Response:
        return self._failure(request, error.status_code, error.detail, dict(error.headers or {}))

    def _failure(
        self, request: Request, status: int, text: str, headers: dict[str, str]
    ) -> Response:
        root = request.scope.get("root_path", "")
        path = request.scope["path"].removeprefix(root)
        if path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
            return to_json({"error": text}, status, headers)
        base = "../" * (path.count("/") - 1)
        response = self._pages.page(request, "error.html", base, status, text=text, events="")
        response.headers.update(headers)
        if status == 503:  # the page is shown when the store answers
            response.headers["Refresh"] = str(REFRESH_AFTER)
        return response
