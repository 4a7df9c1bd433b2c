"""The JSON interface, the probes, and who may do what."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import coord
from coord import AsyncCoordinator, BadArgument, Coordinator, metrics
from coord.stores.memory.store import MemoryStore
from coord.web import create_app, probes
from coord.web.security import FORWARDED, HEADERS
from tests.support.waits import WITHIN
from tests.web.conftest import client, serving
from tests.web.test_pages import led, waiting


@pytest.fixture
def token() -> str:
    return "0123456789abcdef-secret"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_json_has_the_shape_of_coord_status() -> None:
    async def main() -> None:
        async with serving() as (c, http, _):
            first = await led(c, "press", info={"name": "one"})
            two = await waiting(c, "press", priority=0, info={"name": "two"})
            old = await led(c, "print")
            await old.stop()
            press, other = (await http.get("/api/roles")).json()
            names = "role holder token ttl remaining renewed_at since info led paused revoked waiting last_loss"
            assert list(press) == names.split()
            assert (press["holder"], press["led"], press["waiting"]) == (first.candidate, True, 1)
            assert (other["role"], other["led"], other["holder"]) == ("print", False, None)
            assert other["last_loss"]["reason"] == "released"
            single = (await http.get("/api/roles/press")).json()
            assert single.keys() == press.keys()
            assert single["token"] == press["token"]
            (term,) = (await http.get("/api/roles/press/history")).json()
            assert (term["token"], term["until"]) == (press["token"], None)
            (candidate,) = (await http.get("/api/roles/press/candidates")).json()
            assert candidate == {
                "role": "press",
                "id": two.candidate,
                "priority": 0,
                "since": candidate["since"],
                "info": {**candidate["info"], "name": "two"},
            }
            assert (await http.get("/api/roles/nobody")).status_code == 404

    asyncio.run(main())


METHODS = ("GET", "HEAD", "OPTIONS")


def test_probes_answer_for_any_candidate_of_the_process() -> None:
    async def main() -> None:
        store = MemoryStore()
        async with serving(store=store) as (c, http, _):

            async def statuses(role: str) -> set[tuple[int, int]]:
                pairs = set()
                for method in METHODS:
                    leader = await http.request(method, f"/roles/{role}/leader")
                    standby = await http.request(method, f"/roles/{role}/standby")
                    pairs.add((leader.status_code, standby.status_code))
                return pairs

            assert await statuses("press") == {(404, 404)}
            assert "coord web only shows roles" in (await http.get("/roles/press/leader")).text
            first = await led(c, "press")
            second = await waiting(c, "press")
            # The one that was made first may lead, or the other: on another coordinator, too.
            assert await statuses("press") == {(200, 503)}
            await first.stop()
            assert await second.wait(WITHIN)
            assert await statuses("press") == {(200, 503)}
            async with AsyncCoordinator(store=store) as elsewhere:
                third = elsewhere.leadership("press")
                await third.start()
                await second.stop()
                assert await third.wait(WITHIN)
                assert await statuses("press") == {(200, 503)}
            fourth = await led(c, "press")
            rival = c.leadership("press")
            await rival.start()
            await fourth.step_down(cooldown=100)
            assert await rival.wait(WITHIN)
            assert await statuses("press") == {(200, 503)}
            assert await statuses("print") == {(404, 404)}

    asyncio.run(main())


def test_a_process_that_waits_says_so() -> None:
    async def main() -> None:
        store = MemoryStore()
        leader = Coordinator(store=store)  # of another process: its health is not asked
        async with serving(store=store) as (c, http, _):
            lease = leader.leadership("press")
            assert await asyncio.to_thread(lease.acquire, timeout=WITHIN)
            await waiting(c, "press")
            others = coord.health(leader)
            with pytest.MonkeyPatch.context() as patch:
                report = coord.health(c)
                patch.setattr("coord.api.health.health", lambda: report)
                assert (await http.get("/roles/press/leader")).status_code == 503
                assert (await http.get("/roles/press/standby")).status_code == 200
            assert others.leads
            await asyncio.to_thread(leader.close)

    asyncio.run(main())


def test_health_and_readiness() -> None:
    class Moody(MemoryStore):
        mood: str = "well"

        async def read(self, roles: Any, timeout: float) -> Any:
            if self.mood == "slow":
                await asyncio.sleep(1000)
            if self.mood == "refuses":
                raise coord.NotSetUp("no table at db.internal: run coord init")
            return await super().read(roles, timeout)

        async def open(self, timeout: float) -> None:
            raise coord.AccessDenied("this user may not write")

    async def main(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(probes, "READY_TIMEOUT", 0.05)
        store = Moody()
        c = AsyncCoordinator(store=store)
        async with client(create_app(c)) as http:
            await led(c, "press")
            deadline = time.monotonic() + 30
            while True:  # the health of the process, which other tests share, on a busy machine
                answer = await http.get("/healthz")
                assert answer.status_code == 200
                if answer.json()["status"] == "ok" or time.monotonic() > deadline:
                    break
                gc.collect()
                await asyncio.sleep(0.1)
            assert answer.json()["status"] == "ok"
            answer = await http.get("/readyz")  # it needs no right to write
            assert (answer.status_code, answer.json()) == (200, {"ready": True})
            for mood, because in (
                ("slow", "no answer of the store within 0.05 s"),
                ("refuses", "no table at db.internal: run coord init"),
            ):
                store.mood = mood
                answer = await http.get("/readyz")
                assert answer.status_code == 503
                assert answer.json() == {"ready": False, "because": because}
            assert (await http.get("/healthz")).status_code == 200
            async with client(create_app(c), peer=("192.0.2.7", 1)) as far:
                hidden = (await far.get("/readyz")).json()
                assert hidden["because"] == "the store refuses; coord doctor says why"
        await c.close()

    with pytest.MonkeyPatch.context() as patch:
        asyncio.run(main(patch))


def test_the_store_is_named_on_loopback_or_with_the_token_only(token: str) -> None:
    class Silent(MemoryStore):
        url = "memory://db.internal"

        async def read(self, roles: Any, timeout: float) -> Any:
            raise coord.StoreUnavailable("no answer from db.internal")

    async def main() -> None:
        far = ("192.0.2.7", 1)
        sites = ("coord.example", "127.0.0.1")
        async with serving(store=Silent(), timeout=0.05) as (_, http, app):
            accept = {"Accept": "text/html"}
            page = await http.get("/", headers=accept)
            assert page.status_code == 503
            assert page.text.count("db.internal") == 2  # the URL, and the error
            assert (page.headers["retry-after"], page.headers["refresh"]) == ("1", "5")
            for name in FORWARDED:
                hidden = await http.get("/", headers={**accept, name: "for=192.0.2.7"})
                assert "internal" not in hidden.text, name
            async with client(app, peer=far) as remote:
                assert "internal" not in (await remote.get("/", headers=accept)).text
        async with serving(store=Silent(), timeout=0.05, token=token, allowed_hosts=sites) as (
            _,
            http,
            _app,
        ):
            assert "internal" not in (await http.get("/", headers=accept)).text
            answer = await http.get("/api/roles")
            assert answer.json() == {"error": "the store does not answer"}
            answer = await http.get("/api/roles", headers=bearer(token))
            assert answer.json() == {"error": "no answer from db.internal"}

    asyncio.run(main())


ORDERS = ("/api/roles/press/step-down", "/api/roles/press/transfer")


def test_without_a_token_nobody_can_change_anything(token: str) -> None:
    async def main() -> None:
        async with serving() as (c, http, _):
            lead = await led(c, "press")
            for path in ORDERS:
                answer = await http.post(path, headers=bearer(token))
                assert answer.status_code == 403
                assert "start it with a token" in answer.json()["error"]
                assert (await http.get(path)).status_code == 405
            assert lead.is_leader
        async with serving(token=token) as (c, http, _):
            lead = await led(c, "press")
            wrong = ("", token[:-1], token + "x", token.upper(), "ä" * 20)
            for path in ORDERS:
                for header in wrong:
                    headers = {"Authorization": f"Bearer {header}".encode()}
                    answer = await http.post(path, headers=headers)  # type: ignore[arg-type]
                    assert answer.status_code == 401, header
                    assert answer.headers["www-authenticate"] == "Bearer"
                for more in ({"params": {"token": token}}, {"cookies": {"token": token}}):
                    request = http.build_request("POST", path, **more)  # type: ignore[arg-type]
                    assert (await http.send(request)).status_code == 401
            assert lead.is_leader
            assert await c.history("press")
            assert (await c.history("press"))[0].until is None

    asyncio.run(main())


def test_a_request_with_the_token_hands_the_role_over(token: str) -> None:
    async def main() -> None:
        async with serving(token=token) as (c, http, _):
            first = await led(c, "press", info={"name": "one"})
            second = await waiting(c, "press", info={"name": "two"})
            path, headers = "/api/roles/press/transfer", bearer(token)
            for body in ({"to": "three"}, {"to": 3}, {"who": "two"}, [1], {}):
                answer = await http.post(path, headers=headers, json=body)
                assert answer.status_code == 400, body
            assert (await http.post(path, headers=headers, content="{")).status_code == 400
            long = await http.post(path, headers=headers, content=" " * 20_000)
            assert (long.status_code, "at most 16384" in long.json()["error"]) == (400, True)
            for order in ORDERS:
                answer = await http.post(order, headers=headers, json={"to": "two", "token": 7})
                assert answer.status_code == (400 if order.endswith("step-down") else 409)
            answer = await http.post(ORDERS[0], headers=headers, json={"token": 7})
            assert answer.status_code == 409
            assert "its present term has token 1, not 7" in answer.json()["error"]
            for wrong in (-1, "1", True, 1.0):
                answer = await http.post(ORDERS[0], headers=headers, json={"token": wrong})
                assert answer.status_code == 400
                assert "invalid token" in answer.json()["error"]
            answer = await http.post(path, headers=headers, json={"to": "two", "by": "me"})
            assert answer.status_code == 202
            assert answer.json()["term"]["token"] == 1
            assert await second.wait(WITHIN)
            assert (await c.history("press"))[1].by == "me"
            path = "/api/roles/press/step-down"
            answer = await http.post(path, headers=headers, json={"cooldown": 100})
            assert answer.status_code == 202
            assert await first.wait(WITHIN)
            ended = (await c.history("press"))[1]
            assert (ended.reason, ended.by) == ("stepped_down", "web")
            await first.stop()
            await second.stop()
            answer = await http.post(path, headers=headers)
            assert (answer.status_code, "nobody leads it" in answer.json()["error"]) == (409, True)

    asyncio.run(main())


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example", "[::2]", "[::1"],
)
def test_another_host_name_is_refused(host: str) -> None:
    async def main() -> None:
        async with serving() as (_, http, _app):
            for path in ("/", "/api/roles", "/healthz", "/events", "/roles/x/leader", "/nothing"):
                answer = await http.get(path, headers={"Host": host})
                assert answer.status_code == 400, path
                assert "--allow-host" in answer.text
                assert answer.headers["x-frame-options"] == "DENY"

    asyncio.run(main())


def test_allowed_host_names() -> None:
    async def main() -> None:
        for host in ("localhost:8008", "LOCALHOST", "127.0.0.1", "localhost."):
            async with serving() as (_, http, _app):
                assert (await http.get("/healthz", headers={"Host": host})).status_code == 200
        names = ("coord.example", "::1")
        for host in ("coord.example", "coord.example:443", "[::1]:8008"):
            async with serving(allowed_hosts=names) as (_, http, _app):
                assert (await http.get("/healthz", headers={"Host": host})).status_code == 200
                answer = await http.get("/healthz", headers={"Host": "localhost"})
                assert answer.status_code == 400
        async with serving(allowed_hosts=("*",)) as (_, http, _app):
            assert (await http.get("/healthz", headers={"Host": "any"})).status_code == 200

    asyncio.run(main())


def test_every_response_has_the_headers_and_none_allows_other_origins() -> None:
    async def main() -> None:
        async with serving() as (_, http, _app):
            for method, path in [("GET", "/"), ("GET", "/nothing"), ("OPTIONS", "/api/roles")]:
                answer = await http.request(method, path, headers={"Origin": "http://evil.example"})
                for name, value in HEADERS.items():
                    assert answer.headers[name] == value
                assert not [name for name in answer.headers if name.startswith("access-control")]
                assert answer.headers["cache-control"] == "no-store"
            answer = await http.get("/static/coord.js")
            assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
            assert (await http.get("/static/..%2F__init__.py")).status_code == 404
            assert (await http.get("/favicon.ico")).headers["content-type"] == "image/svg+xml"

    asyncio.run(main())


@pytest.mark.parametrize(
    "wrong", ["short", "with a blank in it", "ümlaut" * 4, 16 * "\n", b"x" * 20]
)
def test_a_weak_token_is_refused_and_not_shown(wrong: Any) -> None:
    with pytest.raises(BadArgument, match="invalid token") as caught:
        create_app(AsyncCoordinator(store=MemoryStore()), token=wrong)
    assert str(wrong) not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", ["localhost", (), ("a:80",), ("http://a",), ("a b",), ("",), (1,)]
)
def test_wrong_host_names_are_refused(wrong: Any) -> None:
    with pytest.raises(BadArgument, match="invalid allowed_hosts"):
        create_app(AsyncCoordinator(store=MemoryStore()), allowed_hosts=wrong)


def test_metrics_are_those_of_the_process() -> None:
    async def main() -> None:
        async with serving() as (c, http, _):
            await led(c, "press")
            answer = await http.get("/metrics")
            assert answer.headers["content-type"].startswith("text/plain")
            assert 'coord_is_leader{role="press"} 1.0' in answer.text
        registry = CollectorRegistry()
        metrics.enable(registry)
        async with serving() as (c, http, _):
            await led(c, "print")
            assert metrics.registry() is registry
            text = (await http.get("/metrics")).text
            assert 'coord_is_leader{role="print"} 1.0' in text
            assert "python_info" not in text

    asyncio.run(main())


def test_no_secret_is_in_a_repr(token: str) -> None:
    app = create_app(AsyncCoordinator(store=MemoryStore()), token=token)
    assert token not in repr(app) + repr(vars(app)) + json.dumps(vars(app), default=repr)
