"""Probes for load balancers and orchestrators, and the metrics.

A probe for a role reads memory and the clock only. It asks every candidate of this process, on
whatever coordinator it runs.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from coord import metrics
from coord.api import health
from coord.api.coordinator import AsyncCoordinator
from coord.errors import CoordError, StoreUnavailable
from coord.runtime.timers import within
from coord.web.site import STORE_IS_SILENT, Site, role_of, to_json

METHODS = ["GET", "HEAD", "OPTIONS"]
"""What load balancers send: HAProxy sends OPTIONS unless it is told otherwise."""
READY_TIMEOUT = 2.0
"""Seconds for which `/readyz` waits for the store."""


class Probes:
    """The handlers of the probes.

    Args:
        site: The application.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/roles/{role}/leader", self.leader, methods=METHODS),
            Route("/roles/{role}/standby", self.standby, methods=METHODS),
            Route("/healthz", self.healthz, methods=METHODS),
            Route("/readyz", self.readyz, methods=METHODS),
            Route("/metrics", self.metrics),
        ]

    async def leader(self, request: Request) -> Response:
        """200 if a candidate of this process leads the role, 503 if none does, 404 without one."""
        role = role_of(request)
        leads = _leads(role)
        if leads is None:
            return _no_candidate(role)
        if leads:
            return PlainTextResponse(f"this process leads {role!r}\n")
        return PlainTextResponse(f"this process does not lead {role!r}\n", 503)

    async def standby(self, request: Request) -> Response:
        """200 if this process has a candidate for the role and does not lead, 503 if it leads."""
        role = role_of(request)
        leads = _leads(role)
        if leads is None:
            return _no_candidate(role)
        if leads:
            return PlainTextResponse(f"this process leads {role!r}\n", 503)
        return PlainTextResponse(f"this process waits for {role!r}\n")

    async def healthz(self, request: Request) -> Response:
        """200 unless something in this process makes no progress."""
        report = health.health()
        answer = report.as_dict()
        if report.store_trouble and not self._site.authority.may_see_store(request):
            answer["store_trouble"] = STORE_IS_SILENT
        return to_json(answer, 200 if report.healthy else 503)

    async def readyz(self, request: Request) -> Response:
        """200 if the store answers."""
        try:
            await self._site.source.ask(_read)
        except CoordError as err:
            return to_json({"ready": False, "because": self._site.message(err, request)}, 503)
        return to_json({"ready": True})

    async def metrics(self, request: Request) -> Response:
        """The metrics of this process in Prometheus' text format."""
        try:
            import prometheus_client
        except ImportError:
            text = "the Prometheus client is missing: pip install 'coord[prometheus]'\n"
            return PlainTextResponse(text, 501)
        registry = metrics.registry() or prometheus_client.REGISTRY
        text_format = prometheus_client.CONTENT_TYPE_LATEST
        return Response(prometheus_client.generate_latest(registry), media_type=text_format)


async def _read(coordinator: AsyncCoordinator) -> None:
    """Read from the store. `check` would need the right to write, which a page does not need."""
    try:
        await within(coordinator.session.read(["coord"]), READY_TIMEOUT)
    except asyncio.TimeoutError:
        raise StoreUnavailable(f"no answer of the store within {READY_TIMEOUT:g} s") from None


def _leads(role: str) -> bool | None:
    """Return whether any candidate of this process leads; None if there is no candidate."""
    leads = [report.leads for report in health.health().roles if report.role == role]
    return any(leads) if leads else None


def _no_candidate(role: str) -> Response:
    return PlainTextResponse(
        f"this process has no candidate for {role!r}: coord web only shows roles; "
        "mount coord.web.create_app in the process of the candidate\n",
        404,
    )
