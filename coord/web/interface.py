"""The JSON interface: the roles as `coord status --json` prints them, and requests to leaders."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from coord.api import display
from coord.core.lease import Lease
from coord.errors import BadArgument
from coord.web.site import Site, role_of, to_json

MAX_BODY = 16_384
"""Bytes of a request that hands a role over."""
DEFAULT_REQUESTER = "web"


class Interface:
    """The handlers below `/api`.

    Args:
        site: The application.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Return the routes."""
        routes = [
            Route("/api/roles", self.roles),
            Route("/api/roles/{role}", self.role),
            Route("/api/roles/{role}/history", self.history),
            Route("/api/roles/{role}/candidates", self.candidates),
            Route("/api/roles/{role}/step-down", self.step_down, methods=["POST"]),
            Route("/api/roles/{role}/transfer", self.transfer, methods=["POST"]),
        ]
        if self._site.has_services:
            routes.append(Route("/api/services", self.services))
        return routes

    async def roles(self, request: Request) -> Response:
        """Answer with all roles, also those without a leader."""
        return to_json((await self._site.live.overview(most=None)).as_json())

    async def role(self, request: Request) -> Response:
        """Answer with one role."""
        role = role_of(request)
        entries = (await self._site.role_overview(role)).as_json()
        return to_json(entries[0]) if entries else to_json({"error": f"no row for {role!r}"}, 404)

    async def history(self, request: Request) -> Response:
        """Answer with the last terms of a role, the newest first."""
        role = role_of(request)
        terms = await self._site.source.ask(lambda c: c.history(role))
        return to_json([display.term_as_dict(term) for term in terms])

    async def candidates(self, request: Request) -> Response:
        """Answer with the candidates that wait for a role."""
        role = role_of(request)
        waiting = await self._site.source.ask(lambda c: c.candidates(role))
        return to_json([display.candidate_as_dict(candidate) for candidate in waiting])

    async def services(self, request: Request) -> Response:
        """Answer with the healthy services: all, or those of the role in the query."""
        role = request.query_params.get("role")
        return to_json(await self._site.source.ask(lambda c: c.services.healthy_services(role)))

    async def step_down(self, request: Request) -> Response:
        """Ask the leader of a role to step down. The body may hold `by`, `cooldown` and `token`:
        the term to end."""

        async def ask(role: str, body: dict[str, Any], by: str) -> Lease:
            cooldown, token = body.get("cooldown"), body.get("token")
            return await self._site.source.ask(
                lambda c: c.request_step_down(role, by=by, cooldown=cooldown, token=token)
            )

        return await self._order(request, ask, {"by", "cooldown", "token"})

    async def transfer(self, request: Request) -> Response:
        """Ask the leader of a role to hand it to the candidate `to`. The body may hold `by` and
        `token`: the term to end."""

        async def ask(role: str, body: dict[str, Any], by: str) -> Lease:
            to, token = body.get("to", ""), body.get("token")
            return await self._site.source.ask(
                lambda c: c.request_transfer(role, to, by=by, token=token)
            )

        return await self._order(request, ask, {"by", "to", "token"})

    async def _order(
        self,
        request: Request,
        ask: Callable[[str, dict[str, Any], str], Awaitable[Lease]],
        fields: set[str],
    ) -> Response:
        if not self._site.authority.has_token:
            reason = "this server only reads: start it with a token (coord web --token-file FILE)"
            return to_json({"error": reason}, 403)
        if not self._site.authority.token_is_right(request):
            reason = "this request needs the header Authorization: Bearer TOKEN"
            return to_json({"error": reason}, 401, {"WWW-Authenticate": "Bearer"})
        role, body = role_of(request), await _body(request, fields)
        lease = await ask(role, body, body.get("by", DEFAULT_REQUESTER))
        return to_json({"term": display.lease_as_dict(lease)}, 202)


async def _body(request: Request, fields: set[str]) -> dict[str, Any]:
    """Return the JSON object in the body of a request; empty if there is no body.

    Raises:
        BadArgument: The body is too long, no JSON object, or has other fields.
    """
    text = b""
    async for part in request.stream():
        text += part
        if len(text) > MAX_BODY:
            raise BadArgument("body", f"<{len(text)} bytes>", f"must be at most {MAX_BODY} bytes")
    allowed = f"must be a JSON object with no other fields than {', '.join(sorted(fields))}"
    try:
        body = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        raise BadArgument("body", text.decode(errors="replace"), allowed) from None
    if not isinstance(body, dict) or body.keys() - fields:
        raise BadArgument("body", body, allowed)
    return body
