"""One application server: a candidate for the role "scheduler" that serves `coord.web` beside its own
page. `python -m tests.web.member URL PORT TTL`."""

from __future__ import annotations

import asyncio
import os
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from coord import AsyncCoordinator
from coord.web import create_app

HOST = "app.example"


async def who(request: Request) -> Response:
    """Answer with the process that serves."""
    return PlainTextResponse(str(os.getpid()))


async def main(url: str, port: int, ttl: float) -> None:
    async with AsyncCoordinator(url) as coordinator, coordinator.leadership("scheduler", ttl=ttl):
        web = create_app(coordinator, allowed_hosts=(HOST,))
        app = Starlette(routes=[Route("/who", who), Mount("/", web)])
        config = uvicorn.Config(
            app, host="127.0.0.1", port=port, log_level="info", access_log=False
        )
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
