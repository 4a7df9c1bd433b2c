"""FastAPI with several uvicorn workers: all of them serve, and one does the periodic job. When that
worker ends, another takes the job over.

Needs: pip install fastapi uvicorn
Run it: uvicorn --app-dir examples fastapi_workers:app --workers 3
        curl localhost:8000/ ; curl localhost:8000/healthz
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI, Response

import coord


async def report_forever() -> None:
    term = coord.require_term()
    while True:
        term.progress()  # raises LeadershipLost after a loss, and reports progress
        print(f"worker {os.getpid()} reports under token {term.token}", flush=True)
        await asyncio.sleep(0.3)


async def whenever_elected(lead: coord.AsyncLeadership) -> None:
    while True:
        with contextlib.suppress(coord.LeadershipLost):  # the job was cancelled: wait again
            await lead.run(report_forever)


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # For COORD_URL, or a SQLite file in the state directory.
    async with coord.AsyncCoordinator() as coordinator:
        app.state.lead = coordinator.leadership("report", ttl=3, at_most=30)
        job = asyncio.create_task(whenever_elected(app.state.lead))
        yield
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def index() -> dict[str, object]:
    return {"pid": os.getpid(), "leads": app.state.lead.is_leader}


@app.get("/healthz")
async def healthz(response: Response) -> dict[str, object]:
    health = coord.health()
    response.status_code = 200 if health.healthy else 503
    return health.as_dict()
