"""The admin of a RethinkDB database, and the parts of a store that share its connections."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from coord.core.announcements import Announcement
from coord.errors import BadArgument, StoreRefused, StoreUnavailable
from coord.stores import protocol, rethinkdb
from coord.stores.rethinkdb import setup
from coord.stores.rethinkdb.admin import RethinkDBAdmin
from coord.stores.rethinkdb.pool import Pool
from coord.stores.rethinkdb.url import parse_url
from tests.stores.rethinkdb.kit import ask, db, opened, r, run
from tests.support.databases import new_database

NOBODY = "rethinkdb://me:geheim@127.0.0.1:1/db"


def test_the_package_opens_urls_without_importing_the_driver() -> None:
    code = (
        "import sys; from coord.stores import rethinkdb;"
        f"rethinkdb.open_url({NOBODY!r}); rethinkdb.admin({NOBODY!r}); rethinkdb.admin({NOBODY!r});"
        "assert not {'rethinkdb', 'tenacity'} & set(sys.modules);"
        "assert 'coord.stores.rethinkdb.setup' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_store_and_an_admin_keep_their_protocols() -> None:
    store = rethinkdb.open_url(NOBODY)
    assert isinstance(store, protocol.HasAnnouncements)
    assert isinstance(store, protocol.HasRecords)
    assert isinstance(store, protocol.Immediate)
    assert isinstance(store, protocol.Bulk)
    admin = rethinkdb.admin(NOBODY)
    assert isinstance(admin, RethinkDBAdmin)
    assert admin.exists()
    assert "geheim" not in repr(admin) + repr(store)


@pytest.mark.parametrize(
    "options",
    [{"path": "/x"}, {"replicas": 0}, {"replicas": True}, {"replicas": "3"}, {"guard": 1}],
    ids=str,
)
def test_options_that_setup_rejects(options: dict[str, object]) -> None:
    with pytest.raises(BadArgument, match=next(iter(options))):
        asyncio.run(rethinkdb.admin(NOBODY).setup(options, 5))


def test_no_admin_method_shows_the_password() -> None:
    admin = rethinkdb.admin(NOBODY)
    with pytest.raises(StoreUnavailable) as caught:
        asyncio.run(admin.setup({"path": None}, 0.3))
    assert "geheim" not in str(caught.value)
    assert "geheim" not in repr(asyncio.run(admin.check(0.3)))


def test_an_admin_sets_up_checks_and_raises_tokens(rethinkdb_url: str) -> None:
    url = f"{rethinkdb_url.rpartition('/')[0]}/{new_database()}"
    admin = rethinkdb.admin(url)
    try:
        assert any("coord_announcements" in line for line in run(lambda: admin.setup({}, 60)))
        assert run(lambda: admin.setup({"replicas": 1, "guard": None}, 60)) == []
        assert len(run(lambda: admin.setup({"guard": True}, 60))) == 1
        findings = run(lambda: admin.check(10))
        assert not [finding for finding in findings if finding.level == "error"], findings
        assert run(lambda: admin.raise_token_floor(40, ["a", "b"], 20)) == 2
        assert run(lambda: admin.raise_token_floor(41, ["a"], 20)) == 2
        rows = ask(url, db(url).table("coord_leases")["token"].coerce_to("array"))
        assert rows == [[41, 41]]
    finally:
        ask(url, r.db_drop(parse_url(url).database))


def test_announcements_are_stored_under_the_new_names(rethinkdb_url: str) -> None:
    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            urgent = Announcement("key", "role", "request", {}, 60.0, True)
            await store.announcements().post([urgent], 5)
            table = db(rethinkdb_url).table("coord_announcements")
            row = await store.pool.run(table.get("key"), 5)
            assert (row["urgent"], "loud" in row) == (True, False)
            (read,) = await store.announcements().read(["role"], 5)
            assert read.key == "key"
            feed = store.announcements().watch()
            assert (await anext(feed)).key == "key"
            await feed.aclose()  # type: ignore[attr-defined] # it is a generator

    run(body)


def test_a_pool_raises_coords_exceptions(rethinkdb_url: str) -> None:
    """Only `query` raises `RequestError`."""

    async def body() -> None:
        pool = Pool(parse_url(f"{rethinkdb_url}?table=nowhere"))
        try:
            missing = db(rethinkdb_url).table("nowhere")
            with pytest.raises(StoreRefused, match="coord init"):
                await pool.run(missing.count(), 5)
            with pytest.raises(StoreRefused, match="coord init"):
                await pool.read(missing.count(), 5)
            with pytest.raises(StoreUnavailable, match="feed broke off"):
                await anext(pool.feed(missing.changes()))
            with pytest.raises(StoreRefused, match="coord init"):
                await anext(pool.feed(missing.changes(), refusals=True))
            with pytest.raises(StoreUnavailable, match="did not answer within"):
                await pool.run(r.js("while(true){}", timeout=2), 0.2)
        finally:
            await pool.close()

    run(body)


def test_records_share_the_connections_of_their_store(rethinkdb_url: str) -> None:
    run(lambda: setup.set_up(rethinkdb_url))

    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            records = store.records("services")
            record = {"id": "x", "role": "worker", "ttl": 60, "load": 1}
            assert await records.register(record, "nonce", 5)
            assert [entry["id"] for entry in await records.healthy("worker", 5)] == ["x"]
            assert await records.remove("x", "nonce", 5)
            assert await records.register(record, "nonce", 5) is None
            assert await records.least_loaded("worker", 5) is None

    run(body)
