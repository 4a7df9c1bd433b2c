"""What an older coord made has no board: a SQLite file gets it, a RethinkDB database is used without it until then."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from pathlib import Path

import pytest

import coord
from coord import urls
from coord.errors import AccessDenied, NotSetUp
from coord.notice import Notice
from coord.operations import Claim
from coord.stores.rethinkdb.checkup import check
from coord.stores.rethinkdb.setup import set_up
from coord.stores.sqlite import schema
from tests.stores.rethinkdb_kit import answered, ask, db, opened, r, run

NOTICE = Notice("k", "r", "request", {}, 60.0, True)


def test_a_file_of_an_older_coord(tmp_path: Path) -> None:
    path = tmp_path / "coord.db"
    with sqlite3.connect(path) as old:
        old.execute("PRAGMA journal_mode=WAL")
        for statement in schema.TABLE:
            old.execute(statement)
        old.execute(
            "INSERT INTO coord_leases (role, token, beat, ttl, renewed_at, runs_out, boot_id, info) "
            "VALUES ('r', 7, 1, 30.0, 0.0, 0.0, 'boot', '{}')"
        )
        old.execute(f"PRAGMA user_version={schema.VERSION}")
    old.close()

    async def main() -> None:
        store = urls.make_store(f"sqlite://{path}")
        board = urls.make_board(store)
        await board.post([NOTICE], 10)
        assert [one.key for one in await board.read(["r"], 10)] == ["k"]
        assert [one.token for one in await store.read(["r"], 10)] == [7]
        await store.close()

    asyncio.run(main())
    with sqlite3.connect(path) as new:
        assert schema.version(new) == schema.VERSION  # the board is in no version: an older coord can go on
    new.close()


@pytest.mark.rethinkdb
def test_a_database_of_an_older_coord(rethinkdb_url: str) -> None:
    ask(rethinkdb_url, db(rethinkdb_url).table_drop("coord_board"))

    async def without() -> None:
        async with opened(rethinkdb_url) as store:
            board = urls.make_board(store)
            for asked in (board.post([NOTICE], 10), board.read(None, 10), board.withdraw(["k"], 10), board.purge(10)):
                with pytest.raises(NotSetUp, match=r"coord_board.*coord init --url 'rethinkdb://"):
                    await asked
            with pytest.raises(NotSetUp, match="coord init"):
                await board.watch().__anext__()
            await store.open(10)
            assert answered(await store.claim(Claim("r", "a", 1, 5.0), 5)).applied

    run(without)
    missing = [one for one in run(lambda: check(rethinkdb_url)) if one.what == "table coord_board"]
    assert [(one.level, "coord init" in one.advice) for one in missing] == [("warn", True)]
    report = run(lambda: set_up(rethinkdb_url))
    assert len(report.done) == 1
    assert "coord_board" in report.done[0]

    async def with_it() -> None:
        async with opened(rethinkdb_url) as store:
            board = urls.make_board(store)
            await board.post([NOTICE], 10)
            assert [one.key for one in await board.read(["r"], 10)] == ["k"]

    run(with_it)


@pytest.mark.rethinkdb
@pytest.mark.parametrize("lacks", ["the table", "the right"])
def test_leaderships_without_a_board(rethinkdb_url: str, lacks: str, caplog: pytest.LogCaptureFixture) -> None:
    url = rethinkdb_url
    if lacks == "the table":
        ask(url, db(url).table_drop("coord_board"))
    else:
        ask(url, r.db("rethinkdb").table("users").insert({"id": "old", "password": "geheim"}, conflict="replace"))
        ask(url, db(url).table("coord_leases").grant("old", {"read": True, "write": True}))
        url = url.replace("://", "://old:geheim@")
    with caplog.at_level(logging.WARNING, "coord"), coord.connect(url) as first, coord.connect(url) as second:
        leads, waits = first.leadership("r", ttl=5), second.leadership("r", ttl=5, priority=1)
        assert leads.acquire(timeout=10)
        waits.start()
        time.sleep(1.0)  # in which it is posted, in vain
        with pytest.raises(NotSetUp if lacks == "the table" else AccessDenied):
            second.candidates("r")
        leads.stop()
        assert waits.wait(10)
        waits.stop()
    said = [text for record in caplog.records if (text := record.getMessage()).startswith("board.")]
    assert [one.split()[0] for one in said] == ["board.not_posted"]
    assert ("coord init" if lacks == "the table" else "permission") in said[0]
    assert "geheim" not in said[0]


@pytest.mark.rethinkdb
def test_rows_that_somebody_wrote_by_hand(rethinkdb_url: str) -> None:
    table = db(rethinkdb_url).table("coord_board")
    ask(
        rethinkdb_url,
        table.insert(
            [
                {"id": 7, "role": "r", "loud": True},
                {"id": "no time", "role": "r", "loud": True, "ttl": 60, "posted_at": "now"},
                {"id": "no ttl", "role": "r", "loud": True, "ttl": "60"},
                {"id": ["a", "key"], "role": ["r"], "loud": 1, "ttl": -1},
            ]
        ),
    )

    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            board = urls.make_board(store)
            await board.post([NOTICE], 10)
            assert [one.key for one in await board.read(None, 10)] == ["k"]
            assert [one.key for one in await board.read(["r"], 10)] == ["k"]
            feed = board.watch()
            assert (await asyncio.wait_for(feed.__anext__(), 10)).key == "k"
            await feed.aclose()  # type: ignore[attr-defined]
            assert await board.purge(10) == 4  # what is no notice never will be one
            assert [one.key for one in await board.read(None, 10)] == ["k"]

    run(body)


@pytest.mark.rethinkdb
def test_another_table_of_leases_has_another_board(rethinkdb_url: str) -> None:
    other = f"{rethinkdb_url}?table=other"
    run(lambda: set_up(other))

    async def body() -> None:
        async with opened(rethinkdb_url) as here, opened(other) as there:
            await urls.make_board(there).post([NOTICE], 10)
            assert await urls.make_board(here).read(None, 10) == []
            assert len(await urls.make_board(there).read(None, 10)) == 1

    run(body)
