"""The table of announcements in RethinkDB: where it is missing or forbidden, with rows that people
wrote by hand, and beside that of another table of leases."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from coord import AccessDenied, AsyncCoordinator, NotSetUp
from coord.core.announcements import Announcement
from coord.core.operations import Claim
from coord.stores.rethinkdb.doctor import check
from coord.stores.rethinkdb.setup import set_up
from tests.stores.rethinkdb.kit import answered, ask, db, opened, r, run

URGENT = Announcement("k", "r", "request", {}, 60.0, True)


def test_a_database_without_the_table(rethinkdb_url: str) -> None:
    """Each request says what to do, the leases work, and `coord init` creates the table."""
    ask(rethinkdb_url, db(rethinkdb_url).table_drop("coord_announcements"))

    async def without() -> None:
        async with opened(rethinkdb_url) as store:
            announcements = store.announcements()
            for request in (
                announcements.post([URGENT], 10),
                announcements.read(None, 10),
                announcements.withdraw(["k"], 10),
                announcements.purge(10),
                anext(announcements.watch()),
            ):
                with pytest.raises(
                    NotSetUp, match=r"coord_announcements.*coord init --url '?rethinkdb://"
                ):
                    await request
            await store.open(10)
            assert answered(await store.claim(Claim("r", "a", 1, 5.0), 5)).applied

    run(without)
    findings = run(lambda: check(rethinkdb_url))
    (missing,) = (item for item in findings if item.what == "table coord_announcements")
    assert (missing.level, "coord init" in missing.advice) == ("warn", True)
    report = run(lambda: set_up(rethinkdb_url))
    assert len(report.done) == 1
    assert "coord_announcements" in report.done[0]

    async def with_it() -> None:
        async with opened(rethinkdb_url) as store:
            await store.announcements().post([URGENT], 10)
            rows = await store.announcements().read(["r"], 10)
            assert [row.key for row in rows] == ["k"]

    run(with_it)


@pytest.mark.parametrize("lacks", ["the table", "the right"])
def test_leaderships_without_announcements(
    rethinkdb_url: str, lacks: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They lead and take over, and say once why nobody sees the waiting candidates."""
    url = rethinkdb_url
    if lacks == "the table":
        ask(url, db(url).table_drop("coord_announcements"))
    else:
        users = r.db("rethinkdb").table("users")
        rights = {"read": True, "write": True}
        ask(
            url,
            users.insert({"id": "leases", "password": "geheim"}, conflict="replace"),
            db(url).table("coord_leases").grant("leases", rights),
        )
        url = url.replace("://", "://leases:geheim@")

    def events() -> list[str]:
        texts = [record.getMessage() for record in caplog.records]
        return [text for text in texts if text.startswith("announcements.")]

    async def body() -> None:
        async with AsyncCoordinator(url) as first, AsyncCoordinator(url) as second:
            leader = first.leadership("r", ttl=5)
            follower = second.leadership("r", ttl=5, priority=1)
            assert await leader.acquire(timeout=10)
            await follower.start()
            for _ in range(1000):
                if events():
                    break
                await asyncio.sleep(0.02)
            with pytest.raises(NotSetUp if lacks == "the table" else AccessDenied):
                await second.candidates("r")
            await leader.stop()
            assert await follower.wait(10)
            await follower.stop()

    with caplog.at_level(logging.WARNING, "coord"):
        run(body)
    (event,) = events()
    assert event.startswith("announcements.not_stored ")
    assert ("coord init" if lacks == "the table" else "permission") in event
    assert "geheim" not in event


ROWS: list[dict[str, Any]] = [
    {"id": 7, "role": "r", "urgent": True},
    {"id": "no time", "role": "r", "urgent": True, "ttl": 60, "posted_at": "now"},
    {"id": "no ttl", "role": "r", "urgent": True, "ttl": "60"},
    {"id": ["a", "key"], "role": ["r"], "urgent": 1, "ttl": -1},
]


def test_rows_written_by_hand(rethinkdb_url: str) -> None:
    """They are not read, do not end the feed, and are purged, as they never become valid."""
    ask(rethinkdb_url, db(rethinkdb_url).table("coord_announcements").insert(ROWS))

    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            announcements = store.announcements()
            await announcements.post([URGENT], 10)
            for roles in (None, ["r"]):
                assert [row.key for row in await announcements.read(roles, 10)] == ["k"]
            feed = announcements.watch()
            assert (await asyncio.wait_for(anext(feed), 10)).key == "k"
            await feed.aclose()  # type: ignore[attr-defined] # it is a generator
            assert await announcements.purge(10) == len(ROWS)
            assert [row.key for row in await announcements.read(None, 10)] == ["k"]

    run(body)


def test_another_table_of_leases_has_announcements_of_its_own(rethinkdb_url: str) -> None:
    other = f"{rethinkdb_url}?table=other"
    run(lambda: set_up(other))

    async def body() -> None:
        async with opened(rethinkdb_url) as here, opened(other) as there:
            await there.announcements().post([URGENT], 10)
            assert await here.announcements().read(None, 10) == []
            assert [row.key for row in await there.announcements().read(None, 10)] == ["k"]

    run(body)
