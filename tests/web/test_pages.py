"""The pages show roles, candidates, terms and services, and foreign text only as text."""

from __future__ import annotations

import asyncio
import html
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from coord import AsyncCoordinator, Coordinator
from coord.api.overview import Overview
from coord.core.lease import Lease
from coord.stores.memory.store import MemoryStore
from coord.web import create_app
from coord.web.security import CONTENT_SECURITY_POLICY
from coord.web.views import MAX_ROWS, roles_view, time_cell
from tests.support.waits import WITHIN
from tests.web.conftest import client, serving

EVIL = "</script><img src=x onerror=alert(1)>"


async def led(c: AsyncCoordinator, role: str, **options: Any) -> Any:
    lead = c.leadership(role, **options)
    await lead.acquire()
    return lead


async def waiting(c: AsyncCoordinator, role: str, **options: Any) -> Any:
    lead = c.leadership(role, **options)
    await lead.start()

    for _ in range(int(WITHIN / 0.01)):
        if await c.candidates(role):
            break
        await asyncio.sleep(0.01)
    return lead


def attributes(page: str) -> set[str]:
    """The names of all attributes in a page."""
    names: set[str] = set()

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            names.update(name for name, _ in attrs)

    Parser().feed(page)
    return names


def words(page: str) -> str:
    """What a page shows."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_the_first_page_shows_every_role() -> None:
    async def main() -> None:
        async with serving(title="plant 7") as (c, http, _):
            empty = words((await http.get("/")).text)
            assert "0 roles, 0 with a leader" in empty
            assert "No role has had a candidate." in empty
            first = await led(c, "press", info={"name": "one", "host": "a", "pid": 7}, ttl=60)
            await waiting(c, "press")
            ended = await led(c, "print")
            await ended.stop()
            page = words((await http.get("/")).text)
            assert "plant 7" in page
            assert "2 roles, 1 with a leader" in page
            assert re.search(
                rf"press one \(pid 7 on a\) {first.term.token} \d+-\d+-\d+ [\d:]+ UTC "
                r"\d+\.\d s of 60 s 1 ",
                page,
            )
            assert re.search(r"print nobody 1 0 released [\d.]+ s ago", page)

    asyncio.run(main())


def test_the_page_of_a_role_shows_candidates_terms_and_a_time_line() -> None:
    async def main() -> None:
        async with serving() as (c, http, _):
            first = await led(c, "press", info={"name": "one"})
            await first.stop()
            await led(c, "press", info={"name": "two", "host": "b", "pid": 8, "zone": "z"})
            await waiting(c, "press", info={"name": "three", "host": "d", "pid": 9}, priority=0)
            response = await http.get("/roles/press")
            page = words(response.text)
            assert "Leader two (pid 8 on b) Token 2" in page
            assert "Info zone=z" in page
            assert re.search(r"2 two pid 8 on b \S+ \S+ UTC [\d.]+ s leads", page)
            assert re.search(r"1 one pid \d+ on \S+ .* released", page)
            assert "three pid 9 on d 0" in page
            assert response.text.count("<rect ") == 2
            assert re.search("<title>token 2: two, [^<]+</title>", response.text)

    asyncio.run(main())


def test_a_role_with_slashes_and_one_that_is_unknown() -> None:
    async def main() -> None:
        async with serving() as (c, http, _):
            for role in ("a/b c?%2F#x", "straße", "a/leader"):
                await led(c, role)
                start = (await http.get("/")).text
                links = [html.unescape(link) for link in re.findall('href="(roles/[^"]+)"', start)]
                pages = [await http.get(f"/{link}") for link in links]
                assert any(f"<h1>{html.escape(role)}</h1>" in page.text for page in pages), links
                encoded = links[[role in html.unescape(page.text) for page in pages].index(True)]
                assert (await http.get(f"/{encoded}/leader")).status_code == 200
                assert (await http.get(f"/api/{encoded}")).json()["role"] == role
            page = await http.get("/roles/nobody%2Fknows", headers={"Accept": "text/html"})
            assert page.status_code == 404
            assert "no candidate was ever seen for the role 'nobody/knows'" in words(page.text)
            assert (await http.get("/roles/x" + "y" * 200)).status_code == 400

    asyncio.run(main())


def test_foreign_text_is_only_ever_text() -> None:
    async def main() -> None:
        async with serving() as (c, http, _):
            hidden = "\u202egnp"  # a right-to-left override
            await led(c, EVIL, info={"name": EVIL, "host": EVIL, "pid": 1, EVIL: f"{EVIL}{hidden}"})
            await waiting(c, EVIL, info={"name": EVIL, "x": [EVIL]})
            await c.services.heartbeat(
                {"id": EVIL, "role": EVIL, "ttl": 60, "load": 0, "about": EVIL}
            )
            link = re.search('href="(roles/[^"]+)"', (await http.get("/")).text)
            assert link is not None
            for path in ("/", f"/{link[1]}", "/services"):
                response = await http.get(path)
                text = response.text
                assert EVIL in html.unescape(text), path
                assert "<img" not in text
                assert text.count("<script") == text.count("</script>") == 1
                assert "\u202e" not in text
                assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
                # The policy would drop them: nothing of ours uses them either.
                assert not [name for name in attributes(text) if name.startswith(("on", "style"))]

    asyncio.run(main())


def test_services() -> None:
    async def main() -> None:
        async with serving() as (c, http, _):
            await c.services.heartbeat(
                {"id": "w1", "role": "web", "ttl": 60, "load": 0.5, "host": "a", "zone": "b"}
            )
            page = words((await http.get("/services")).text)
            assert "1 healthy service" in page
            assert re.search(r"w1 web 0\.5 a 60 \d+-\d+-\d+ [\d:]+ UTC .*zone=b", page)
            services = (await http.get("/api/services")).json()
            assert [record["id"] for record in services] == ["w1"]
            assert (await http.get("/api/services?role=other")).json() == []
        async with serving(services=False) as (c, http, _):
            assert (await http.get("/services")).status_code == 404
            assert (await http.get("/api/services")).status_code == 404
            assert "services" not in (await http.get("/")).text

    asyncio.run(main())


def test_below_another_application_all_links_lead_below_it() -> None:
    async def main() -> None:
        async with serving() as (c, _, app):
            await led(c, "a/b")
            async with client(Starlette(routes=[Mount("/ops/coord", app)])) as http:
                start = await http.get("/ops/coord/")
                assert 'href="roles/a%2Fb"' in start.text
                for path in ("roles/a%2Fb", "static/coord.css", "static/coord.js", "services"):
                    assert (await http.get(f"/ops/coord/{path}")).status_code == 200, path
                for link in re.findall('(?:href|src)="([^"#]+)"', start.text):
                    assert not link.startswith(("/", "http")), link
                accept = {"Accept": "text/html"}
                lost = await http.get("/ops/coord/roles/x", headers=accept)
                assert (lost.status_code, "../static/coord.css" in lost.text) == (404, True)

    asyncio.run(main())


def test_a_threaded_coordinator_is_asked_on_its_own_loop() -> None:
    async def main(c: Coordinator) -> None:
        async with client(create_app(c)) as http:
            assert [role["role"] for role in (await http.get("/api/roles")).json()] == ["press"]
            assert "press" in (await http.get("/")).text

    with Coordinator(store=MemoryStore()) as c:
        lead = c.leadership("press")
        assert lead.acquire(timeout=30)
        asyncio.run(main(c))
        lead.stop()


def test_a_closed_coordinator_and_none() -> None:
    async def main() -> None:
        async with serving() as (c, http, _):
            await c.close()
            assert (await http.get("/")).status_code == 503
            assert (await http.get("/readyz")).status_code == 503

    asyncio.run(main())
    with pytest.raises(ValueError, match="invalid coordinator 'sqlite'"):
        create_app("sqlite")  # type: ignore[arg-type]


def test_a_page_has_an_end() -> None:
    leases = [Lease(f"r{number:05}") for number in range(MAX_ROWS + 5)]
    view = roles_view(Overview(leases, []), "")
    assert len(view["tables"]["roles"]) == MAX_ROWS
    assert view["texts"]["summary"] == "1005 roles, 0 with a leader; the first 1000 are shown"


@pytest.mark.parametrize("at", [None, 0, 1e300, float("inf"), float("nan"), -1e18])
def test_times_that_are_none(at: float | None) -> None:
    assert time_cell(at) == {"text": ""}


def test_concurrent_readers_share_one_answer_of_the_store() -> None:
    class Counting(MemoryStore):
        reads = 0

        async def past(self, roles: Any, timeout: float) -> Any:
            self.reads += 1
            await asyncio.sleep(0.02)
            return await super().past(roles, timeout)

    async def main() -> None:
        store = Counting()
        async with serving(store=store) as (c, http, _):
            await led(c, "press")
            answers = await asyncio.gather(*(http.get("/api/roles") for _ in range(20)))
            assert {len(answer.json()) for answer in answers} == {1}
            assert store.reads == 1

    asyncio.run(main())


def test_a_role_that_an_operator_paused() -> None:
    async def main() -> None:
        async with serving() as (c, http, _):
            lead = await led(c, "press")
            await c.pause("press", by="eva")
            await lead.stop()
            for path in ("/", "/roles/press"):
                assert "nobody (paused by eva)" in words((await http.get(path)).text)
            assert (await http.get("/api/roles/press")).json()["paused"] is True

    asyncio.run(main())
