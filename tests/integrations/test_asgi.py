"""`coord.integrations.asgi.Lead` under Starlette, FastAPI and a real uvicorn."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

import coord
from coord import AsyncCoordinator, BadArgument, CoordError, Coordinator, Term
from coord.core.lease import Lease
from coord.integrations.asgi import Lead
from coord.stores.memory.store import MemoryStore
from tests.support.processes import python_environment
from tests.support.running import free_port, running
from tests.support.waits import WITHIN, eventually, soon


@asynccontextmanager
async def started(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that has started."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://app1.example", timeout=WITHIN
        ) as http,
    ):
        yield http


def starlette(lead: Lead) -> Starlette:
    async def write(request: Request) -> Response:
        term = await lead.required(request)
        return PlainTextResponse(str(term.token))

    routes = [Route("/write", write), Mount("/below", routes=[Route("/{x:path}", write)])]
    return Starlette(routes=routes, lifespan=lead.lifespan)


def fastapi(lead: Lead) -> FastAPI:
    app = FastAPI(lifespan=lead.lifespan)
    required = Depends(lead.required)

    @app.get("/write")
    async def write(term: Term = required) -> int:
        return term.token

    return app


async def rival(store: MemoryStore, **info: Any) -> AsyncCoordinator:
    """Another process that leads the role."""
    other = AsyncCoordinator(store=store)
    await other.leadership("press", info=info).acquire(timeout=WITHIN)
    return other


@pytest.mark.parametrize("make", [starlette, fastapi])
def test_the_leader_serves_and_others_refuse(make: Any) -> None:
    async def main() -> None:
        store = MemoryStore()
        async with AsyncCoordinator(store=store) as c:
            lead = Lead("press", coordinator=c, retry_after=7)
            async with started(make(lead)) as http:
                await soon(lambda: lead.is_leader)
                answer = await http.get("/write")
                assert (answer.status_code, answer.text) == (200, "1")
                assert lead.held is not None
                other = AsyncCoordinator(store=store)
                waits = other.leadership("press", info={"url": "http://app2.example:8000"})
                await waits.start()
                await lead.leadership.step_down()
                assert await waits.wait(WITHIN)
                await soon(lambda: lead.leader and lead.leader.holder == waits.candidate)
                answer = await http.get("/write")
                assert answer.status_code == 503
                assert answer.headers["retry-after"] == "7"
                assert "another process leads 'press'" in answer.text
                assert "http://app2.example:8000" in answer.text
                await other.close()
            assert not lead.is_leader
            assert await c.leader("press") is None
            async with started(make(lead)) as http:  # it can start again
                await soon(lambda: lead.is_leader)
                assert (await http.get("/write")).status_code == 200

    asyncio.run(main())


def test_nobody_leads() -> None:
    async def main() -> None:
        async with AsyncCoordinator(store=MemoryStore()) as c:
            lead = Lead("press", coordinator=c, otherwise="redirect")
            async with started(starlette(lead)) as http:
                await soon(lambda: lead.is_leader)
                await lead.leadership.step_down(cooldown=1000)
                await soon(lambda: lead.leader is None)
                answer = await http.get("/write")
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                assert answer.text == "nobody leads 'press'"

    asyncio.run(main())


@pytest.mark.parametrize("make", [starlette, fastapi])
def test_a_redirect_keeps_path_and_query(make: Any) -> None:
    async def main() -> None:
        store = MemoryStore()
        other = await rival(store, url="http://app2.example:8000/base/")
        async with AsyncCoordinator(store=store) as c:
            lead = Lead("press", coordinator=c, otherwise="redirect")
            async with started(make(lead)) as http:
                await soon(lambda: lead.leader)
                answer = await http.get("/write?a=1&b=%C3%A4")
                assert answer.status_code == 307
                location = "http://app2.example:8000/base/write?a=1&b=%C3%A4"
                assert answer.headers["location"] == location
                if make is starlette:
                    answer = await http.get("/below/x%2Fy%20z")
                    expected = "http://app2.example:8000/base/below/x%2Fy%20z"
                    assert answer.headers["location"] == expected
                await other.close()

    asyncio.run(main())


def test_no_redirect_to_the_own_address_after_an_update() -> None:
    async def main() -> None:
        store = MemoryStore()
        async with AsyncCoordinator(store=store) as c:
            info = {"url": "http://old.example"}
            lead = Lead("press", coordinator=c, otherwise="redirect", info=info)
            async with started(starlette(lead)) as http:
                await soon(lambda: lead.is_leader)
                await lead.leadership.update({"url": "http://new.example"})
                await lead.leadership.step_down(cooldown=1000)
                other = await rival(store, url="http://new.example")
                assert (await http.get("/write")).status_code == 503  # perhaps no news so far
                await soon(lambda: lead.leader and lead.leader.token == 2)
                assert (await http.get("/write")).status_code == 503
                await other.close()

    asyncio.run(main())


def test_a_redirect_encodes_bytes_that_no_header_may_contain() -> None:
    async def main() -> None:
        store = MemoryStore()
        other = await rival(store, url="http://app2.example")
        async with AsyncCoordinator(store=store) as c:
            lead = Lead("press", coordinator=c, otherwise="redirect")
            async with started(starlette(lead)):
                await soon(lambda: lead.leader)
                query = "a=ä%20\r\n".encode()
                scope = {"type": "http", "path": "/x", "raw_path": b"/x", "query_string": query}
                with pytest.raises(HTTPException) as caught:
                    await lead.required(Request(scope))
                location = (caught.value.headers or {})["Location"]
                assert location == "http://app2.example/x?a=%C3%A4%20%0D%0A"
                await other.close()

    asyncio.run(main())


def test_a_redirect_on_a_store_whose_feed_carries_no_info() -> None:
    class Bare(MemoryStore):
        async def watch(self, roles: Any) -> AsyncIterator[Lease]:
            async for lease in super().watch(roles):
                yield replace(lease, info={})

    async def main() -> None:
        store = Bare()
        async with AsyncCoordinator(store=store) as c:
            lead = Lead("press", coordinator=c, otherwise="redirect")
            async with started(starlette(lead)) as http:
                await soon(lambda: lead.leader)
                other = AsyncCoordinator(store=store)
                waits = other.leadership("press", info={"url": "http://app2.example"})
                await waits.start()
                await lead.leadership.step_down(cooldown=1000)
                assert await waits.wait(WITHIN)
                await soon(lambda: lead.leader and "url" in lead.leader.info)
                answer = await http.get("/write")
                assert answer.headers["location"] == "http://app2.example/write"
                await other.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "http://",
        "http://a\r\nSet-Cookie: x=1",
        "http://a b",
        "http://ä.example",
        "http://a:99999",
        "http://app1.example",  # our own: the leader before us may have had the same address
        "http://a/?next=",
        "http://a/?",
        "http://a/#",
        "http://a\\@b",
        "http://user:password@a",
        7,
        None,
        "http://" + "a" * 2000,
    ],
)
def test_no_redirect_to_what_is_no_address_of_another(url: Any) -> None:
    async def main() -> None:
        store = MemoryStore()
        other = await rival(store, url=url)
        async with AsyncCoordinator(store=store) as c:
            info = {"url": "http://app1.example"}
            lead = Lead("press", coordinator=c, otherwise="redirect", info=info)
            async with started(starlette(lead)) as http:
                await soon(lambda: lead.leader)
                answer = await http.get("/write")
                assert answer.status_code == 503
                assert answer.text == "another process leads 'press'"
                await other.close()

    asyncio.run(main())


def test_periodic_jobs_run_on_the_leader_under_its_term(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "coord")

    async def main() -> None:
        store = MemoryStore()
        runs: list[tuple[str, int]] = []
        cancelled = []
        async with AsyncCoordinator(store=store) as c:
            other = await rival(store)
            lead = Lead("press", coordinator=c)

            @lead.every(0.01)
            async def often() -> None:
                runs.append(("often", coord.require_term().token))

            @lead.every(0.01, at_most=1000)
            async def fails() -> None:
                runs.append(("fails", coord.require_term().token))
                raise ValueError("of the job")

            @lead.every(0.01)
            async def cancels() -> None:
                runs.append(("cancels", coord.require_term().token))
                raise asyncio.CancelledError("of another task, which the job awaits")

            async def hangs() -> None:
                try:
                    await asyncio.sleep(1000)
                except asyncio.CancelledError:
                    cancelled.append(coord.require_term().token)
                    raise

            assert lead.every(1000, hangs) is hangs
            async with started(starlette(lead)):
                await soon(lambda: lead.leader)
                await asyncio.sleep(0.05)
                assert runs == []  # somebody else leads
                await other.close()
                await soon(lambda: runs.count(("often", 2)) >= 3)
                await soon(lambda: runs.count(("fails", 2)) >= 3)
                await soon(lambda: runs.count(("cancels", 2)) >= 3)
                await lead.leadership.step_down(cooldown=0.01)
                assert cancelled == [2]
                await soon(lambda: runs.count(("often", 3)) >= 2)
                runs_before = len(runs)
            assert cancelled == [2, 3]
            count = len(runs)
            await asyncio.sleep(0.05)
            assert len(runs) == count >= runs_before  # and none afterwards

    asyncio.run(main())
    failed = [record for record in caplog.records if "asgi.job_failed" in record.getMessage()]
    assert len(failed) >= 3
    assert "fails" in failed[0].getMessage()
    assert "token=2" in failed[0].getMessage()


def test_a_job_without_progress_loses_the_role() -> None:
    async def main() -> None:
        reasons: list[coord.LossReason] = []
        async with AsyncCoordinator(store=MemoryStore()) as c:
            lead = Lead("press", coordinator=c)
            lead.every(1000, lambda_job, at_most=0.05)
            lead.on_lost(lambda term, reason: reasons.append(reason))
            async with started(starlette(lead)):
                await soon(lambda: reasons)
        assert reasons[0] == coord.LossReason.NO_PROGRESS

    async def lambda_job() -> None:
        await asyncio.sleep(1000)

    asyncio.run(main())


def test_callbacks_and_another_lifespan() -> None:
    async def main() -> None:
        output: list[str] = []

        @asynccontextmanager
        async def database(app: object) -> AsyncIterator[dict[str, str]]:
            output.append("database opens")
            yield {"database": "open"}
            output.append("database closes")

        async with AsyncCoordinator(store=MemoryStore()) as c:
            lead, second = Lead("press", coordinator=c), Lead("print", coordinator=c)
            lead.on_elected(lambda term: output.append(f"elected {term.token}"))
            lead.on_lost(lambda term, reason: output.append(f"lost: {reason}"))

            async def state(request: Request) -> Response:
                return PlainTextResponse(request.state.database)

            app = Starlette(
                routes=[Route("/", state)],
                lifespan=second.lifespan_with(lead.lifespan_with(database)),
            )
            async with app.router.lifespan_context(app) as shared:
                assert shared == {"database": "open"}
                await soon(lambda: lead.is_leader and second.is_leader)
                await soon(lambda: "elected 1" in output)
        assert output == ["database opens", "elected 1", "lost: released", "database closes"]

    asyncio.run(main())


def test_an_application_starts_in_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(MemoryStore):
        async def open(self, timeout: float) -> None:
            raise coord.StoreUnavailable("no answer")

    class Refusing(MemoryStore):
        async def open(self, timeout: float) -> None:
            raise coord.NotSetUp("run coord init")

    async def main() -> None:
        async with started(starlette(Lead("press", coordinator=AsyncCoordinator(store=Silent())))):
            pass
        lead = Lead("press", coordinator=AsyncCoordinator(store=Refusing()))
        with pytest.raises(coord.NotSetUp):
            async with started(starlette(lead)):
                pass

    asyncio.run(main())


def test_it_opens_the_store_of_its_url_and_closes_it(tmp_path: Path) -> None:
    async def main() -> None:
        lead = Lead("press", url=f"sqlite://{tmp_path}/coord.db", ttl=5)
        for token in ("1", "2"):
            async with started(starlette(lead)) as http:
                await soon(lambda: lead.is_leader)
                assert (await http.get("/write")).text == token

    asyncio.run(main())
    with Coordinator(f"sqlite://{tmp_path}/coord.db") as c:
        assert [term.reason for term in c.history("press")] == ["released", "released"]


def test_it_must_be_started_once() -> None:
    async def main() -> None:
        async with AsyncCoordinator(store=MemoryStore()) as c:
            lead = Lead("press", coordinator=c)
            assert (lead.held, lead.leader, lead.is_leader) == (None, None, False)
            with pytest.raises(CoordError, match=r"FastAPI\(lifespan=lead.lifespan\)"):
                _ = lead.leadership
            async with started(starlette(lead)):
                with pytest.raises(CoordError, match="has started it already"):
                    async with started(starlette(lead)):
                        pass

    asyncio.run(main())


def test_two_starts_at_the_same_time_make_one_candidate() -> None:
    class Slow(MemoryStore):
        async def open(self, timeout: float) -> None:
            await asyncio.sleep(0.05)
            await super().open(timeout)

    async def start(lead: Lead, ended: asyncio.Event) -> int:
        async with started(starlette(lead)):
            await soon(lambda: lead.is_leader)
            await ended.wait()
            return lead.leadership.term.token

    async def main() -> None:
        lead = Lead("press", coordinator=AsyncCoordinator(store=Slow()))
        ended = asyncio.Event()
        starts = [asyncio.ensure_future(start(lead, ended)) for _ in range(2)]
        await soon(lambda: lead.is_leader)
        ended.set()
        first, second = await asyncio.gather(*starts, return_exceptions=True)
        assert first == 1
        assert isinstance(second, CoordError)
        assert "has started it already" in str(second)
        async with started(starlette(lead)):  # and it may be started again
            await soon(lambda: lead.is_leader)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ttl": -1}, "invalid ttl -1"),
        ({"info": {"x": object()}}, "invalid info"),
        ({"url": "mysql://x"}, "invalid url 'mysql://x'"),
        ({"coordinator": "x"}, "invalid coordinator 'x'"),
        ({"otherwise": "x"}, "invalid otherwise 'x'"),
        ({"retry_after": 0}, "invalid retry_after 0"),
        ({"retry_after": True}, "invalid retry_after True"),
        ({"priority": 2000}, "invalid priority 2000"),
    ],
)
def test_wrong_arguments_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadArgument, match=message):
        Lead("press", **options)


def test_wrong_jobs_are_refused_at_once() -> None:
    lead = Lead("press")
    with pytest.raises(BadArgument, match="invalid seconds 0"):
        lead.every(0)
    with pytest.raises(BadArgument, match=r"invalid job .*must be a coroutine function"):
        lead.every(1, print)  # type: ignore[type-var]
    with pytest.raises(BadArgument, match="invalid role ''"):
        Lead("")


def test_without_starlette_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['starlette.exceptions'] = None\nimport coord.integrations.asgi\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "run: pip install 'coord[web]'" in done.stderr


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("slow", signal.SIGTERM),
        ("stream", signal.SIGINT),
        pytest.param("slow", signal.SIGINT, marks=pytest.mark.long),
        pytest.param("stream", signal.SIGTERM, marks=pytest.mark.long),
    ],
)
def test_the_role_is_given_back_while_a_request_goes_on(
    path: str, number: signal.Signals, tmp_path: Path
) -> None:
    url, port = f"sqlite://{tmp_path}/coord.db", free_port()
    words = [sys.executable, "-m", "uvicorn", "tests.integrations.asgi_app:app"]
    with (
        running([*words, "--port", str(port)], url, **python_environment()) as server,
        Coordinator(url) as c,
    ):
        server.until(lambda it: bool(it.lines("Uvicorn running")))
        server.until(lambda it: bool(it.lines("tick")))
        address = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{address}/leads", timeout=WITHIN).text == "1"
        waits = c.leadership("press", ttl=20)
        waits.start()

        def ask() -> None:
            with httpx.stream("GET", f"{address}/{path}", timeout=None) as answer:
                for _ in answer.iter_text():
                    began.set()

        began = threading.Event()
        asking = threading.Thread(target=swallow, args=(ask,), daemon=True)
        asking.start()
        if path == "slow":
            server.until(lambda it: bool(it.lines("slow request")))
        else:
            assert began.wait(WITHIN)
        server.process.send_signal(number)
        # Its lease would last for 20 s, and the request goes on for longer.
        assert waits.wait(WITHIN)
        eventually(lambda: server.lines("lost token 1: released"))
        assert server.process.poll() is None
        assert asking.is_alive()
        released = c.history("press")[1]
        assert released.reason == "released"
        ticks = len(server.lines("tick"))
        assert server.said.index("lost token 1: released") > 0
        assert len(server.lines("tick")) == ticks


def swallow(ask: Any) -> None:
    """Call `ask`; the server is killed under it."""
    with suppress(httpx.HTTPError):
        ask()
