"""An application with a slow request and an endless stream, for `uvicorn`, on the store in COORD_URL."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

from coord import LossReason, Term
from coord.integrations.asgi import Lead

lead = Lead("press", ttl=20, info={"name": f"app {os.getpid()}"})
app = FastAPI(lifespan=lead.lifespan)


@lead.on_lost
def report(term: Term, reason: LossReason) -> None:
    print(f"lost token {term.token}: {reason}", flush=True)


@lead.every(0.05)
async def tick() -> None:
    print("tick", flush=True)


@app.get("/leads")
async def leads(term: Annotated[Term, Depends(lead.required)]) -> int:
    return term.token


@app.get("/slow")
async def slow() -> str:
    print("slow request", flush=True)
    await asyncio.sleep(120)
    return "done"


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        while True:
            yield "line\n"
            await asyncio.sleep(0.05)

    return StreamingResponse(lines())
