"""The web application of the files in docs/deploy: uvicorn app:app --timeout-graceful-shutdown 5

Each process is a candidate for the role "scheduler". The leader runs the periodic job and answers
/write. Every process answers the probes of coord.web and shows its page.
"""

from __future__ import annotations

import os
import socket
from typing import Annotated

from fastapi import Depends, FastAPI

import coord
from coord.integrations.asgi import Lead

coordinator = coord.AsyncCoordinator()  # COORD_URL
# If the leader crashes, another process takes over after at most the ttl, in seconds.
lead = Lead(
    "scheduler",
    coordinator=coordinator,
    ttl=10,
    info={"name": os.environ.get("POD_NAME") or socket.gethostname()},
)
app = FastAPI(lifespan=lead.lifespan)


@lead.every(60)
async def job() -> None:
    print("the job runs under token", coord.require_term().token, flush=True)


@app.post("/write")
async def write(term: Annotated[coord.Term, Depends(lead.required)]) -> dict[str, int]:
    term.check()  # before each step that must not happen twice
    return {"token": term.token}


# /healthz, /readyz, /metrics, /roles/scheduler/leader, and the page. The probes of Kubernetes and
# Compose ask for localhost, and the proxies for app.example.
hosts = ("localhost", "127.0.0.1", "app.example")
app.mount("/", coord.web.create_app(coordinator, allowed_hosts=hosts))
