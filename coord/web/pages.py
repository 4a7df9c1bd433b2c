"""The pages and the stream that keeps them up to date."""

from __future__ import annotations

import asyncio
import functools
from importlib import resources
from typing import Any

import jinja2
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from coord.api import display
from coord.core import validation
from coord.errors import BadArgument
from coord.web import views
from coord.web.live import Reader, Snapshot
from coord.web.security import encode
from coord.web.site import Site, role_of

KEEPALIVE = 15.0
"""Seconds until a comment shows a quiet reader, and proxies, that the stream is alive."""
RECONNECT_AFTER = 2000
"""Milliseconds until a browser connects again."""
STATIC = {
    "coord.css": "text/css",
    "coord.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


class Pages:
    """The handlers of the pages.

    Args:
        site: The application.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._templates = jinja2.Environment(
            loader=jinja2.FunctionLoader(functools.partial(_read, "templates")),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        routes: list[BaseRoute] = [
            Route("/", self.roles),
            Route("/roles/{role}", self.role),
            Route("/static/{name}", self.static),
            Route("/favicon.ico", self.icon),
            Route("/events", EventStream(self._site), methods=["GET"]),
        ]
        if self._site.has_services:
            routes.append(Route("/services", self.services))
        return routes

    async def roles(self, request: Request) -> Response:
        """Show all roles."""
        overview = await self._site.live.overview(most=views.MAX_ROWS)
        columns = views.ROLE_COLUMNS
        view = views.roles_view(overview, "")
        return self.page(request, "roles.html", "", view=view, columns=columns, events="events")

    async def role(self, request: Request) -> Response:
        """Show one role."""
        role = role_of(request)
        overview = await self._site.role_overview(role)
        return self.page(
            request,
            "role.html",
            "../",
            view=views.role_view(overview, role),
            role=display.sanitize(role),
            candidate_columns=views.CANDIDATE_COLUMNS,
            term_columns=views.TERM_COLUMNS,
            events=f"../events?role={encode(role)}",
        )

    async def services(self, request: Request) -> Response:
        """Show the healthy services."""
        try:
            view = views.services_view(await self._site.live.services())
        except BadArgument as err:
            view = {"tables": {"services": []}, "texts": {"summary": display.one_line(str(err))}}
        columns = views.SERVICE_COLUMNS
        return self.page(
            request, "services.html", "", view=view, columns=columns, events="events?services=1"
        )

    def page(
        self, request: Request, template: str, base: str, status: int = 200, **values: Any
    ) -> Response:
        """Return a page.

        Args:
            request: The request.
            template: The name of the template.
            base: The relative URL of the start page.
            status: The HTTP status.
            **values: The values of the template.
        """
        shows_store = self._site.authority.may_see_store(request)
        text = self._templates.get_template(template).render(
            title=display.sanitize(self._site.title),
            base=base,
            store=display.sanitize(self._site.source.url) if shows_store else "",
            has_services=self._site.has_services,
            **values,
        )
        return HTMLResponse(text, status)

    async def static(self, request: Request) -> Response:
        """Answer with a style sheet, script or picture of this package."""
        name = request.path_params["name"]
        if name not in STATIC:
            raise HTTPException(404, f"no such file: {name}")
        headers = {"Cache-Control": "no-cache"}
        return Response(_read("static", name), 200, headers, STATIC[name])

    async def icon(self, request: Request) -> Response:
        """Answer with the icon where browsers look for it."""
        return Response(_read("static", "icon.svg"), 200, None, STATIC["icon.svg"])


@functools.cache
def _read(directory: str, name: str) -> str:
    return (resources.files("coord.web") / directory / name).read_text(encoding="utf-8")


class EventStream:
    """The stream `/events`: what the page shows, at each change and every few seconds.

    Args:
        site: The application.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        role = request.query_params.get("role")
        if role is not None:
            validation.role(role)
        wants_services = self._site.has_services and "services" in request.query_params
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if request.method != "HEAD":
            await self._send_all(request, receive, send, role, wants_services)
        await send({"type": "http.response.body", "body": b""})

    async def _send_all(
        self, request: Request, receive: Receive, send: Send, role: str | None, services: bool
    ) -> None:
        live = self._site.live
        if live.closing:
            return
        reader = live.join(services, role)
        disconnect = asyncio.ensure_future(_until_gone(receive, reader))
        sent: Snapshot | None = None
        text = f"retry: {RECONNECT_AFTER}\n\n"
        try:
            while not live.closing and not disconnect.done():
                if text:
                    body = text.encode()
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                await reader.wait(KEEPALIVE)
                newest = live.newest
                if newest is None or newest is sent:
                    text = ": still here\n\n"
                else:
                    text, sent = self._event(newest, request, role, services), newest
        finally:
            disconnect.cancel()
            live.leave(reader)

    def _event(self, snapshot: Snapshot, request: Request, role: str | None, services: bool) -> str:
        view: views.View = {}
        if snapshot.overview is not None:
            if services:
                view = views.services_view(snapshot.services or ())
            elif role is not None:
                view = views.role_view(snapshot.overview, role)
            else:
                view = views.roles_view(snapshot.overview, "")
        error = snapshot.error
        view["error"] = "" if error is None else self._site.message(error, request)
        return f"data: {display.to_json(view)}\n\n"


async def _until_gone(receive: Receive, reader: Reader) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    reader.wake()
