"""What all request handlers share, and how they read a request and answer it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from coord.api import display
from coord.api.overview import Overview, load_overview
from coord.core import validation
from coord.errors import BadArgument, CoordError, NotLeader, StoreRefused
from coord.web.live import Live
from coord.web.security import Authority
from coord.web.source import Source

STORE_IS_SILENT = "the store does not answer"
STORE_REFUSES = "the store refuses; coord doctor says why"


@dataclass(frozen=True)
class Site:
    """One application.

    Attributes:
        source: The store.
        live: The snapshots for open pages.
        authority: Who may read and write.
        title: The name of the installation.
        has_services: Whether services are shown.
    """

    source: Source
    live: Live
    authority: Authority
    title: str
    has_services: bool

    def message(self, error: CoordError, connection: HTTPConnection) -> str:
        """Return the text of an error, without names of machines if they are not for the reader."""
        if isinstance(error, (BadArgument, NotLeader)) or self.authority.may_see_store(connection):
            return display.one_line(str(error))
        return STORE_REFUSES if isinstance(error, StoreRefused) else STORE_IS_SILENT

    async def role_overview(self, role: str) -> Overview:
        """Return one role.

        Raises:
            HTTPException: 404, the store knows nothing of this role.
            CoordError: The store does not answer, or refuses.
        """
        overview = await self.source.ask(lambda c: load_overview(c, every=True, role=role))
        if not (overview.leases or overview.candidates or overview.terms):
            raise HTTPException(404, f"no candidate was ever seen for the role {role!r}")
        return overview


def role_of(request: Request) -> str:
    """Return the role in the path of a request.

    Raises:
        BadArgument: It is no valid role.
    """
    return validation.role(unquote(request.path_params["role"]))


def status_of(error: CoordError) -> int:
    """Return the HTTP status for an error."""
    if isinstance(error, BadArgument):
        return 400
    return 409 if isinstance(error, NotLeader) else 503


def to_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a response with JSON in ASCII."""
    return Response(display.to_json(value) + "\n", status, headers, "application/json")
