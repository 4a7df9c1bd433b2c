"""Pages, streams and redirects on a real store of every kind."""

from __future__ import annotations

import asyncio

import pytest

from coord import AsyncCoordinator
from coord.integrations.asgi import Lead
from coord.web import create_app
from tests.integrations.test_asgi import starlette, started
from tests.support.store_urls import PARAMETERS, NewURL
from tests.support.waits import WITHIN, soon
from tests.web.conftest import Stream, cells, client
from tests.web.test_live import leaders
from tests.web.test_pages import led, waiting, words


@pytest.fixture(params=PARAMETERS)
def anywhere(request: pytest.FixtureRequest, new_url: NewURL) -> str:
    """An empty store of each kind."""
    return new_url(request.param)


def test_a_page_on_every_store(anywhere: str) -> None:
    async def main() -> None:
        async with AsyncCoordinator(anywhere) as c, AsyncCoordinator(anywhere) as other:
            app = create_app(c)
            first = await led(c, "a/b", info={"name": "one"})
            second = await waiting(other, "a/b", info={"name": "two", "zone": "z"})
            async with (
                client(app) as http,
                Stream(app) as roles,
                Stream(app, query="role=a/b") as role,
            ):
                await roles.until(lambda view: leaders(view) == {"a/b": "one"})
                await first.stop()
                await roles.until(lambda view: leaders(view) == {"a/b": "two"})
                await role.until(lambda view: len(view["tables"]["terms"]) == 2)
                current = await role.until(lambda view: cells(view, "terms")[1][6] == "released")
                assert current["facts"][6]["cell"]["text"] == "zone=z"
                assert second.is_leader
                page = words((await http.get("/roles/a%2Fb")).text)
                assert "Leader two" in page
                assert (await http.get("/readyz")).status_code == 200
                assert (await http.get("/services")).status_code == 200
                answer = await http.get("/api/services")
                kept = answer.json() == []  # etcd keeps no services
                assert kept or "service" in answer.json()["error"]

    asyncio.run(main())


def test_a_redirect_on_every_store(anywhere: str) -> None:
    async def main() -> None:
        async with AsyncCoordinator(anywhere) as c, AsyncCoordinator(anywhere) as other:
            lead = Lead("press", coordinator=c, otherwise="redirect", ttl=30)
            async with started(starlette(lead)) as http:
                await soon(lambda: lead.is_leader)
                waits = other.leadership("press", info={"url": "http://app2.example"})
                await waits.start()
                await lead.leadership.step_down(cooldown=1000)
                assert await waits.wait(WITHIN)
                await soon(lambda: lead.leader and "url" in lead.leader.info)
                answer = await http.get("/write")
                assert answer.headers["location"] == "http://app2.example/write"

    asyncio.run(main())
