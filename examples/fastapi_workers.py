"""FastAPI with several uvicorn workers: all of them serve, and one does the periodic job and the
writes. When that worker ends, another takes over.

Needs: pip install 'coord[web]' fastapi
Run it: uvicorn --app-dir examples fastapi_workers:app --workers 3 --timeout-graceful-shutdown 5
        curl localhost:8000/ ; curl -X POST localhost:8000/write ; curl localhost:8000/healthz
"""

import os
from typing import Annotated

from fastapi import Depends, FastAPI, Response

import coord
from coord.integrations.asgi import Lead

# For COORD_URL, or a SQLite file in the state directory.
lead = Lead("report", ttl=3)
app = FastAPI(lifespan=lead.lifespan)


@lead.every(0.3, at_most=30)
async def report() -> None:
    token = coord.require_term().token
    print(f"worker {os.getpid()} reports under token {token}", flush=True)


@app.get("/")
async def index() -> dict[str, object]:
    return {"pid": os.getpid(), "leads": lead.is_leader}


@app.post("/write")  # 503 with Retry-After where another worker leads
async def write(term: Annotated[coord.Term, Depends(lead.required)]) -> dict[str, object]:
    term.check()  # before each step that matters; and send the token with the write
    return {"pid": os.getpid(), "token": term.token}


@app.get("/healthz")
async def healthz(response: Response) -> dict[str, object]:
    health = coord.health()
    response.status_code = 200 if health.healthy else 503
    return health.as_dict()
