"""Open pages follow the changes; one watcher serves them all, and no page keeps a server from
ending."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any

import pytest

import coord
from coord import Coordinator
from coord.core.lease import Lease
from coord.stores.memory.store import MemoryStore
from coord.web import create_app, live
from tests.support.waits import soon
from tests.web.conftest import Stream, cells, client, serving
from tests.web.test_pages import led, waiting


class Counting(MemoryStore):
    """A store that knows how many watch it, and can stop answering."""

    watched = 0
    down = False

    async def watch(self, roles: Collection[str] | None) -> AsyncIterator[Lease]:
        self.watched += roles is None
        try:
            async for lease in super().watch(roles):
                yield lease
        finally:
            self.watched -= roles is None

    async def read(self, roles: Any, timeout: float) -> Any:
        if self.down:
            await asyncio.sleep(0.01)
            raise coord.StoreUnavailable("no answer from db.internal")
        return await super().read(roles, timeout)


def leaders(view: dict[str, Any]) -> dict[str, str]:
    return {row[0]: row[1].partition(" ")[0] for row in cells(view, "roles")}


def test_a_page_hears_of_each_change() -> None:
    async def main() -> None:
        async with serving() as (c, _, app), Stream(app) as stream:
            headers = dict(stream.start["headers"])
            assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
            assert headers[b"x-accel-buffering"] == b"no"
            assert cells(await stream.view(), "roles") == []
            lead = await led(c, "press", info={"name": "one"})
            view = await stream.until(lambda view: leaders(view) == {"press": "one"})
            assert view["error"] == ""
            assert view["texts"]["summary"] == "1 role, 1 with a leader"
            await waiting(c, "press", info={"name": "two"})
            await stream.until(lambda view: cells(view, "roles")[0][5] == "1")
            await lead.stop()
            await stream.until(lambda view: leaders(view) == {"press": "two"})
            await stream.until(lambda view: cells(view, "roles")[0][6].startswith("released"))
            assert stream.text.startswith("retry: 2000\n\n")

    asyncio.run(main())


def test_a_role_and_the_services_have_streams_of_their_own() -> None:
    async def main() -> None:
        async with serving() as (c, _, app):
            await led(c, "a/b", info={"name": "one"})
            async with (
                Stream(app, query="role=a%2Fb") as role,
                Stream(app, query="services=1") as s,
            ):
                view = await role.view()
                assert view["facts"][0]["cell"]["text"].startswith("one")
                assert len(view["bars"]["bars"]) == 1
                await c.services.heartbeat({"id": "w1", "role": "web", "ttl": 60, "load": 1})
                page = await s.until(lambda view: bool(view["tables"]["services"]))
                assert cells(page, "services")[0][0] == "w1"
                await waiting(c, "a/b", info={"name": "two"})
                await role.until(lambda view: bool(view["tables"]["candidates"]))

    asyncio.run(main())


def test_one_watcher_serves_all_readers_and_ends_with_the_last() -> None:
    async def main() -> None:
        store = Counting()
        async with serving(store=store) as (_, _http, app):
            async with Stream(app) as first, Stream(app) as second, Stream(app) as third:
                for stream in (first, second, third):
                    await stream.view()
                await soon(lambda: store.watched == 1)
                assert app.open_streams == 3
            assert app.open_streams == 0
            await soon(lambda: store.watched == 0)
            async with Stream(app) as again:
                await again.view()
                await soon(lambda: store.watched == 1)

    asyncio.run(main())


def test_an_outage_is_shown_and_survived() -> None:
    async def main() -> None:
        store = Counting()
        async with serving(store=store) as (c, _, app):
            c.session.timeout = 0.05
            await led(c, "press", info={"name": "one"})
            async with Stream(app) as stream:
                await stream.view()
                store.down = True
                view = await stream.until(lambda view: bool(view["error"]))
                assert "db.internal" in view["error"]  # a reader on this machine
                assert leaders(view) == {"press": "one"}  # what was seen last
                store.down = False
                await stream.until(lambda view: not view["error"])

    asyncio.run(main())


def test_a_stream_that_begins_in_an_outage() -> None:
    async def main() -> None:
        store = Counting()
        async with serving(store=store, allowed_hosts=("127.0.0.1", "x.example")) as (c, _, app):
            c.session.timeout = 0.05
            store.down = True
            async with Stream(app) as stream:
                assert await stream.view() == {"error": "the store does not answer"}
                store.down = False
                await stream.until(lambda view: not view["error"])

    asyncio.run(main())


def test_close_ends_all_streams_now_and_later() -> None:
    async def main() -> None:
        async with serving() as (_, http, app):
            async with Stream(app) as first, Stream(app, query="role=x") as second:
                await first.view()
                app.close()
                await first.ended()
                await second.ended()
            async with Stream(app) as late:
                await late.ended()
            assert (await http.get("/events")).status_code == 200
            assert (await http.get("/")).status_code == 200

    asyncio.run(main())


def test_a_stream_of_a_threaded_coordinator() -> None:
    async def main(c: Coordinator) -> None:
        async with Stream(create_app(c)) as stream:
            await stream.view()
            lead = c.leadership("press", info={"name": "one"})
            assert await asyncio.to_thread(lead.acquire, timeout=30)
            await stream.until(lambda view: leaders(view) == {"press": "one"})

    with Coordinator(store=MemoryStore()) as c:
        asyncio.run(main(c))


def test_a_wrong_role_and_a_request_for_the_headers_only() -> None:
    async def main() -> None:
        async with serving() as (_, http, app), client(app) as other:
            assert (await http.head("/events")).headers["content-type"].startswith("text/event")
            assert (await http.post("/events")).status_code == 405
            assert (await other.get("/events", params={"role": "x" * 200})).status_code == 400

    asyncio.run(main())


def test_histories_are_loaded_in_parts_and_for_what_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests: list[list[str]] = []

    class CountingStore(MemoryStore):
        async def past(self, roles: Any, timeout: float) -> Any:
            requests.append(list(roles))
            return await super().past(roles, timeout)

    async def main() -> None:
        async with serving(store=CountingStore()) as (c, http, app):
            for role in "abcdef":
                await led(c, role)
            monkeypatch.setattr(live, "HISTORIES_AT_A_TIME", 2)
            monkeypatch.setattr(live, "MAX_HISTORIES", 3)
            assert len((await http.get("/api/roles")).json()) == 6
            assert requests == [["a", "b"], ["c", "d"], ["e", "f"]]
            requests.clear()
            async with Stream(app, query="role=f") as stream:
                assert len((await stream.view())["tables"]["terms"]) == 1
                assert requests[:2] == [["a", "b"], ["c", "f"]]
                # Then no leader changes, and no history is loaded.
                await stream.until(lambda _: not requests or requests.clear())

    asyncio.run(main())


def test_a_slow_store_gets_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(MemoryStore):
        reads = 0

        async def read(self, roles: Any, timeout: float) -> Any:
            self.reads += roles is None
            await asyncio.sleep(0.05)
            return await super().read(roles, timeout)

    async def main() -> None:
        store = Slow()
        monkeypatch.setattr(live, "REFRESH_EVERY", 0.0)
        monkeypatch.setattr(live, "REST", 1000.0)
        async with serving(store=store) as (_, _http, app), Stream(app) as stream:
            await stream.view()
            count = store.reads
            await asyncio.sleep(0.3)
            assert store.reads <= count + 1  # the watcher may begin just now

    asyncio.run(main())
