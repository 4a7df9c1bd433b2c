"""Setting up and checking: fresh, half made, made twice, by many at once, and as somebody without
the rights."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from coord.core.lease import Lease
from coord.core.operations import Claim, Release, Renew
from coord.errors import AccessDenied, BadArgument, NotSetUp, StoreUnavailable
from coord.stores.rethinkdb import parse_url, setup
from coord.stores.rethinkdb.doctor import Finding, check
from coord.stores.rethinkdb.pool import Pool
from coord.stores.rethinkdb.setup import Report, duplicate_name, set_up
from tests.conftest import External
from tests.stores.rethinkdb.kit import answered, ask, db, failed, opened, r, run
from tests.support import requirements
from tests.support.databases import new_database
from tests.support.forked import at_once
from tests.support.refused_calls import check_refusals
from tests.support.rethinkdb_server import Server

TABLES = ("coord_leases", "coord_announcements", "services")
config = r.db("rethinkdb").table("table_config")


@pytest.fixture
def fresh_url(rethinkdb_server: Server | External) -> Iterator[str]:
    """A database that does not exist."""
    url = rethinkdb_server.url(new_database())
    yield url
    if db_name(url) in ask(url, r.db_list())[0]:
        ask(url, r.db_drop(db_name(url)))


def db_name(url: str) -> str:
    return url.rsplit("/", 1)[1]


def tables(url: str) -> dict[str, dict[str, object]]:
    """The tables by name; a name that is there twice fails."""
    (table,) = ask(url, config.filter({"db": db_name(url)}).coerce_to("array"))
    named = {row["name"]: row for row in table}
    assert len(named) == len(table), table
    return named


def make_ready(url: str) -> Report:
    report = run(lambda: set_up(url))
    made = tables(url)
    assert set(made) >= {"coord_announcements", "coord_leases", "services"}
    leases = made["coord_leases"]
    assert (leases["write_acks"], leases["durability"], made["services"]["indexes"]) == (
        "majority",
        "hard",
        ["role"],
    )
    assert ask(url, r.db_list().contains(f"{db_name(url)}__coord_setup")) == [False]

    async def usable() -> None:
        async with opened(url) as store:
            await store.open(10)

    run(usable)
    return report


def test_fresh_and_again(fresh_url: str) -> None:
    assert len(make_ready(fresh_url).done) == 5
    assert make_ready(fresh_url).done == []


IMPORTS = """
import asyncio
from contextlib import nullcontext
from coord.stores.rethinkdb.driver import reql
from coord.stores.rethinkdb.setup import _SetUp, set_up
reql()
"""


def eight_at_once(url: str, work: str = "asyncio.run(set_up(sys.argv[1]))") -> None:
    at_once(8, IMPORTS, work, url)


def test_eight_processes_on_a_fresh_database(fresh_url: str) -> None:
    eight_at_once(fresh_url)
    assert set(tables(fresh_url)) == {"coord_announcements", "coord_leases", "services"}
    assert make_ready(fresh_url).done == []


def test_eight_processes_that_want_another_table_of_services(fresh_url: str) -> None:
    eight_at_once(fresh_url, "asyncio.run(set_up(sys.argv[1], service_tables=['workers', 'jobs']))")
    made = tables(fresh_url)
    assert set(made) == {"coord_announcements", "coord_leases", "services", "workers", "jobs"}
    assert made["workers"]["indexes"] == made["jobs"]["indexes"] == ["role"]
    report = run(lambda: set_up(fresh_url, service_tables=["workers"]))
    assert report.done == []

    async def usable() -> None:
        async with opened(fresh_url) as store:
            record = {"id": "x", "role": "worker", "ttl": 60, "load": 1}
            assert await store.records("workers").register(record, "nonce", 5)
            with pytest.raises(NotSetUp, match="coord init --service-table others --url"):
                await store.records("others").register(record, "nonce", 5)

    run(usable)


@pytest.mark.parametrize("name", ["", "a.b", "x" * 101, 5, "coord_leases", "coord_announcements"])
def test_a_table_of_services_that_is_refused(name: Any) -> None:
    with pytest.raises(BadArgument, match="service_table"):
        run(lambda: set_up("rethinkdb://127.0.0.1:1", 1, service_tables=[name]))


def test_eight_processes_without_the_lock(fresh_url: str) -> None:
    """Servers that are cut off from each other would both grant it: merging alone has to do
    then."""
    unlocked = "_SetUp._lock = lambda self: nullcontext(); asyncio.run(set_up(sys.argv[1]))"
    eight_at_once(fresh_url, unlocked)
    assert set(tables(fresh_url)) == {"coord_announcements", "coord_leases", "services"}
    make_ready(fresh_url)


def make_duplicates(url: str, name: str, count: int, full: str | None = None) -> list[str]:
    """Tables of one name: so many empty ones and, if `full` is a role, one more with its record.
    The full one is first.

    They are created, and the full one renamed, all at once. If this fails, RethinkDB has repaired its
    table_create, and all that this file tests is no longer needed."""
    table, kept = db(url).table, ""
    if full:
        ask(
            url,
            db(url).table_create("full"),
            table("full").wait(),
            table("full").insert({"id": full, "token": 7}),
        )
        (kept,) = ask(url, table("full").config()["id"])

    named = config.filter({"db": db_name(url), "name": name})

    async def at_once() -> bool:
        pools = [Pool(parse_url(url)) for _ in range(count + 1)]
        await asyncio.gather(*(pool.run(r.expr(1), 10) for pool in pools))
        creations = [pool.run(db(url).table_create(name), 10) for pool in pools[1:]]
        # Renaming takes less time than creating: it comes last, while the others are under way.
        rename = config.get(kept).update({"name": name}) if full else r.expr({"errors": 0})
        results = await asyncio.gather(*creations, pools[0].run(rename, 10), return_exceptions=True)
        for pool in pools:
            await pool.close()
        # The server raises an error for a table that it does not create, but counts those that it
        # does not rename.
        return not any(
            isinstance(result, BaseException) or result.get("errors") for result in results
        )

    # On a busy machine one of them may come after the others, and is refused then.
    for _ in range(20):
        if run(at_once):
            break
        if full:
            ask(url, config.get(kept).update({"name": "full"}))
        ask(url, named.filter(r.row["id"].ne(kept)).delete())
    (ids,) = ask(url, named["id"].coerce_to("array"))
    assert len(ids) == count + bool(full)
    return sorted(ids, key=lambda item: (item != kept, item)) if full else sorted(ids)


@pytest.mark.parametrize("name", ["coord_leases", "services"])
def test_empty_duplicates(fresh_url: str, name: str) -> None:
    ask(fresh_url, r.db_create(db_name(fresh_url)))
    ids = make_duplicates(fresh_url, name, 3)
    if name == "coord_leases":
        with pytest.raises(NotSetUp, match=r"ambiguous.*coord init --url"):
            run(lambda: open_it(fresh_url))
    report = make_ready(fresh_url)
    assert tables(fresh_url)[name]["id"] == ids[0]
    assert len([line for line in report.done if "duplicate" in line]) == 2


async def open_it(url: str, timeout: float = 10) -> None:
    async with opened(url) as store:
        await store.open(timeout)


@pytest.mark.parametrize("attempt", range(3))  # whose id comes first is chance
def test_a_duplicate_with_records_stays(fresh_url: str, attempt: int) -> None:
    ask(fresh_url, r.db_create(db_name(fresh_url)))
    full, *_ = make_duplicates(fresh_url, "coord_leases", 2, full="role")
    make_ready(fresh_url)
    assert tables(fresh_url)["coord_leases"]["id"] == full
    assert ask(fresh_url, db(fresh_url).table("coord_leases").get("role")["token"]) == [7]


def test_two_duplicates_with_records_are_left_to_people(fresh_url: str) -> None:
    ask(fresh_url, r.db_create(db_name(fresh_url)))
    other = duplicate_name("coord_leases", "0123456789abcdef")
    table = db(fresh_url).table(other)
    ask(
        fresh_url,
        db(fresh_url).table_create(other),
        table.wait(),
        table.insert({"id": "other", "token": 9}),
    )
    (second,) = ask(fresh_url, table.config()["id"])
    right = duplicate_name("coord_leases", second)
    ask(fresh_url, config.get(second).update({"name": right}))
    full, *_ = make_duplicates(fresh_url, "coord_leases", 2, full="role")
    for _ in range(2):
        with pytest.raises(NotSetUp, match=right):
            run(lambda: set_up(fresh_url))
        kept = {first["id"]: name for name, first in tables(fresh_url).items()}
        assert kept == {full: kept[full], second: right}
        assert kept[full] in (
            "coord_leases",
            duplicate_name("coord_leases", full),
        )  # as its id was the first, or not
    ask(fresh_url, db(fresh_url).table_drop(right))
    make_ready(fresh_url)
    assert tables(fresh_url)["coord_leases"]["id"] == full


def test_a_merge_that_was_killed_half_way(fresh_url: str) -> None:
    make_ready(fresh_url)
    ask(fresh_url, db(fresh_url).table("coord_leases").insert({"id": "role", "token": 7}))
    leases = tables(fresh_url)["coord_leases"]["id"]
    assert isinstance(leases, str)
    ask(fresh_url, config.get(leases).update({"name": duplicate_name("coord_leases", leases)}))
    make_ready(fresh_url)
    assert tables(fresh_url)["coord_leases"]["id"] == leases


def test_a_table_that_is_created_while_a_duplicate_gets_its_name(
    fresh_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process, on a server that granted it the lock, too, finds no table of the name. The
    server only counts the rename that it refuses then."""
    make_ready(fresh_url)
    ask(fresh_url, db(fresh_url).table("coord_leases").insert({"id": "role", "token": 7}))
    leases = tables(fresh_url)["coord_leases"]["id"]
    assert isinstance(leases, str)
    ask(fresh_url, config.get(leases).update({"name": duplicate_name("coord_leases", leases)}))
    renaming = str(config.get(leases).update({"name": "coord_leases"}))
    query, refused = Pool.query, []

    async def late(pool: Pool, term: Any, timeout: float) -> Any:
        if refused or str(term) != renaming:
            return await query(pool, term, timeout)
        await query(pool, db(fresh_url).table_create("coord_leases"), timeout)
        refused.append(await query(pool, term, timeout))
        return refused[0]

    monkeypatch.setattr(Pool, "query", late)
    make_ready(fresh_url)
    assert refused[0]["errors"] == 1
    assert tables(fresh_url)["coord_leases"]["id"] == leases
    assert ask(fresh_url, db(fresh_url).table("coord_leases").get("role")["token"]) == [7]


def test_half_made(fresh_url: str) -> None:
    ask(fresh_url, r.db_create(db_name(fresh_url)))
    make_ready(fresh_url)
    ask(fresh_url, db(fresh_url).table_drop("coord_leases"))
    with pytest.raises(NotSetUp, match=r"does not exist: run `coord init --url rethinkdb://"):
        run(lambda: open_it(fresh_url))
    assert len(make_ready(fresh_url).done) == 1
    leases, services = db(fresh_url).table("coord_leases"), db(fresh_url).table("services")
    ask(fresh_url, leases.config().update({"durability": "soft", "write_acks": "single"}))
    with pytest.raises(NotSetUp, match=r"write_acks is single.*coord init --url"):
        run(lambda: open_it(fresh_url))
    assert [
        finding.what for finding in findings(fresh_url) if "write_acks is single" in finding.detail
    ] == ["table coord_leases"]
    assert len(make_ready(fresh_url).done) == 1
    ask(fresh_url, services.index_drop("role"), services.insert({"id": "kept"}))
    ask(fresh_url, services.config().update({"durability": "soft"}))
    assert [finding.advice for finding in findings(fresh_url) if "index" in finding.detail] == [
        f"run `coord init --url {fresh_url}`"
    ]
    assert len(make_ready(fresh_url).done) == 1
    assert ask(fresh_url, services.get("kept")["id"], services.config()["durability"]) == [
        "kept",
        "soft",
    ]
    ask(fresh_url, r.db_drop(db_name(fresh_url)))
    with pytest.raises(NotSetUp, match="Database"):
        run(lambda: open_it(fresh_url))


def test_a_table_that_doublethink_made(fresh_url: str) -> None:
    doublethink = requirements.doublethink()
    host = fresh_url.split("/")[2]
    ask(fresh_url, r.db_create(db_name(fresh_url)))
    registry = doublethink.ServiceRegistry(doublethink.Rethinker([host], db_name(fresh_url)))
    record = registry.heartbeat({"role": "old", "load": 1, "ttl": 60})
    before = tables(fresh_url)["services"]["id"]
    make_ready(fresh_url)
    assert tables(fresh_url)["services"]["id"] == before
    assert registry.available_service("old")["id"] == record["id"]


def test_the_lock_of_the_dead(fresh_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(fresh_url, r.db_create(f"{db_name(fresh_url)}__coord_setup"))
    with pytest.raises(StoreUnavailable, match="did not end"):
        run(lambda: set_up(fresh_url, 0.5))
    monkeypatch.setattr(setup, "STALE", 0.3)
    begun = time.monotonic()
    assert "removed the lock of a set-up that was killed" in make_ready(fresh_url).done
    assert time.monotonic() - begun > 0.3


def findings(url: str) -> list[Finding]:
    return run(lambda: check(url))


def test_doctor_on_a_healthy_database(rethinkdb_url: str) -> None:
    problems = findings(rethinkdb_url)
    # The server of the tests is alone, and its admin has no password.
    warnings = [row.what for row in problems if row.level != "ok"]
    assert set(warnings) <= {"accounts", "table coord_leases"}, problems
    checks = {"connection", "clocks", "servers", "table", "accounts"}
    assert {row.what.split()[0] for row in problems} == checks


def test_doctor_on_clocks_that_are_off(rethinkdb_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 31)
    (clocks,) = [finding for finding in findings(rethinkdb_url) if finding.what == "clocks"]
    assert clocks.level == "warn"
    assert "30.9" in clocks.detail or " 31." in clocks.detail
    (clocks,) = [
        finding
        for finding in findings(f"{rethinkdb_url}?max_clock_skew=70")
        if finding.what == "clocks"
    ]
    assert clocks.level == "ok"


def test_doctor_without_a_server_or_a_database(rethinkdb_server: Server | External) -> None:
    (alone,) = findings("rethinkdb://127.0.0.1:1/x")
    assert (alone.level, alone.what) == ("error", "connection to 127.0.0.1:1")
    missing = [
        finding
        for finding in findings(rethinkdb_server.url("coord_nowhere"))
        if finding.level == "error"
    ]
    assert [finding.what for finding in missing] == ["table coord_leases"]
    assert "coord init" in missing[0].advice


def test_doctor_warns_of_an_admin_without_a_password_and_of_one_replica(own_server: Server) -> None:
    run(lambda: set_up(own_server.url()))
    open_to_all = [finding for finding in findings(own_server.url()) if finding.level == "warn"]
    assert [item.what for item in open_to_all] == ["accounts", "table coord_leases"]
    assert "no password" in open_to_all[0].detail
    assert "one replica" in open_to_all[1].detail
    users = r.db("rethinkdb").table("users")
    second = {"id": "second", "password": "geheim"}
    ask(
        own_server.url(),
        users.insert(second),
        r.grant("second", {"read": True, "write": True, "config": True}),
        r.db("rethinkdb").grant("second", {"read": True, "write": True, "config": True}),
    )
    as_second = own_server.url(who="second:geheim@")
    assert "accounts" in [finding.what for finding in findings(as_second)]
    ask(own_server.url(), users.get("admin").update({"password": "geheim"}))
    for url in (own_server.url(who="admin:geheim@"), as_second):
        assert "accounts" not in [finding.what for finding in findings(url)]


def test_a_user_with_rights_on_the_tables_alone(rethinkdb_url: str) -> None:
    user, secret = "least", "geheim"
    ask(
        rethinkdb_url,
        r.db("rethinkdb")
        .table("users")
        .insert({"id": user, "password": secret}, conflict="replace"),
    )
    url = rethinkdb_url.replace("://", f"://{user}:{secret}@")
    with pytest.raises(AccessDenied, match=r"permission.*read and write") as caught:
        run(lambda: open_it(url))
    assert secret not in str(caught.value)

    async def denied() -> None:
        async with opened(url) as store:
            result = failed(await store.claim(Claim("role", "a", 1, 5.0), 5))
            assert (result.unknown, result.refusal) == (False, AccessDenied)
            with pytest.raises(AccessDenied):
                await store.read(None, 5)

    run(denied)
    run(lambda: check_refusals(url))
    ask(
        rethinkdb_url,
        *(db(rethinkdb_url).table(t).grant(user, {"read": True, "write": True}) for t in TABLES),
    )

    async def all_of_it() -> None:
        async with opened(url) as store:
            await store.open(10)
            assert answered(await store.claim(Claim("role", "a", 1, 5.0), 5)).applied
            assert answered((await store.renew([Renew("role", "a", 1, 2, 5.0)], 5))[0]).applied
            feed = store.watch(["role"])
            assert (await feed.__anext__()).holder == "a"
            await feed.aclose()  # type: ignore[attr-defined]
            assert answered(await store.release(Release("role", "a", 1, 3), 5)).applied
            assert [(row.role, row.token) for row in await store.read(None, 5)] == [("role", 1)]

    run(all_of_it)
    with pytest.raises(AccessDenied):
        run(lambda: set_up(url))
    problems = findings(url)
    assert {row.level for row in problems} == {"ok", "warn"}
    assert {row.what for row in problems if row.level == "warn"} == {
        "servers", "table coord_leases", *(f"settings of {table}" for table in TABLES)
    }  # fmt: skip
    assert secret not in repr(problems)
    with pytest.raises(AccessDenied, match="wrong user or password") as caught:
        run(lambda: open_it(url.replace(secret, "falsch")))
    assert "falsch" not in str(caught.value)
    (denied_host,) = findings(url.replace(secret, "falsch"))
    assert denied_host.level == "error"


def test_a_role_that_nobody_holds_is_blank(rethinkdb_url: str) -> None:
    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            assert answered(await store.release(Release("x", "a", 1, 1), 5)).lease == Lease("x")

    run(body)
