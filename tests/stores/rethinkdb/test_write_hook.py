"""The guard: the server itself refuses deletes and falling tokens, and everything that coord asks
for still passes."""

from __future__ import annotations

import asyncio

import pytest

import coord
from coord.core.operations import Claim, Release, Renew
from coord.errors import NotSetUp
from coord.stores.protocol import Store
from coord.stores.rethinkdb import RethinkDBStore, parse_url, setup
from coord.stores.rethinkdb.doctor import check
from coord.stores.rethinkdb.setup import set_up
from coord.testing import StoreContract
from tests.stores.rethinkdb.kit import answered, ask, db, opened, r, run


@pytest.fixture(scope="module")
def guarded_module_url(rethinkdb_module_url: str) -> str:
    run(lambda: set_up(rethinkdb_module_url, guard=True))
    return rethinkdb_module_url


class TestGuardedContract(StoreContract):
    @pytest.fixture(autouse=True)
    def _url(self, guarded_module_url: str) -> None:
        self.store_url = guarded_module_url

    def make_store(self) -> Store:
        return RethinkDBStore(parse_url(self.store_url))


def hook(url: str) -> str | None:
    return setup.hook_of(ask(url, db(url).table("coord_leases").config())[0])


def said_by_doctor(url: str) -> list[tuple[str, str]]:
    problems = run(lambda: check(url))
    return [
        (row.level, row.detail) for row in problems if "guard" in row.detail or "hook" in row.detail
    ]


def test_only_when_asked_reported_and_taken_away(rethinkdb_url: str) -> None:
    assert run(lambda: set_up(rethinkdb_url)).done == []
    assert hook(rethinkdb_url) is None
    assert [
        (level, "has no write hook" in detail) for level, detail in said_by_doctor(rethinkdb_url)
    ] == [("ok", True)]
    (line,) = run(lambda: set_up(rethinkdb_url, guard=True)).done
    assert "installed the write hook on coord_leases" in line
    for again in (True, None):  # and a later init that says nothing leaves it
        assert run(lambda again=again: set_up(rethinkdb_url, guard=again)).done == []  # type: ignore[misc]
        assert hook(rethinkdb_url) == "guard"
    assert [
        (level, "has the write hook" in detail) for level, detail in said_by_doctor(rethinkdb_url)
    ] == [("ok", True)]
    (line,) = run(lambda: set_up(rethinkdb_url, guard=False)).done
    assert "removed the write hook" in line
    assert hook(rethinkdb_url) is None
    assert run(lambda: set_up(rethinkdb_url, guard=False)).done == []


def test_somebody_elses_hook_is_left_alone(rethinkdb_url: str) -> None:
    table = db(rethinkdb_url).table("coord_leases")
    ask(rethinkdb_url, table.set_write_hook(lambda _context, _old, new: new))
    for guard in (True, False):
        with pytest.raises(NotSetUp, match="write hook that is not coord's"):
            run(lambda guard=guard: set_up(rethinkdb_url, guard=guard))  # type: ignore[misc]
    assert run(lambda: set_up(rethinkdb_url)).done == []
    assert hook(rethinkdb_url) == "other"
    assert [level for level, _ in said_by_doctor(rethinkdb_url)] == ["warn"]


def test_deletes_and_falling_tokens_are_refused(rethinkdb_url: str) -> None:
    table = db(rethinkdb_url).table("coord_leases")
    row = table.get("r")
    ask(
        rethinkdb_url,
        table.insert([{"id": "r", "token": 7, "holder": "a"}, {"id": "odd", "token": "x"}]),
    )
    assert ask(rethinkdb_url, table.get("odd").delete()["deleted"]) == [1]  # before
    run(lambda: set_up(rethinkdb_url, guard=True))
    for slip in (
        row.delete(),
        table.delete(),
        row.replace(None),
        row.update({"token": 6}),
        row.update({"token": 6.999}),
        row.update({"token": None}),
        row.update({"token": "8"}),
        row.replace({"id": "r", "holder": "b"}),
        table.insert({"id": "r", "token": 1}, conflict="replace"),
        table.insert({"id": "r", "token": 1}, conflict="update"),
    ):
        (report,) = ask(rethinkdb_url, slip)
        assert (report["errors"], report["deleted"], report["replaced"]) == (1, 0, 0)
        assert report["first_error"].removeprefix("Error in write hook: ") in (
            setup.ROWS_STAY,
            setup.NEVER_FALLS,
        )
    assert ask(rethinkdb_url, row) == [{"id": "r", "token": 7, "holder": "a"}]
    for allowed in (
        row.update({"token": 7}),
        row.update({"token": r.row["token"] + 1_000_000, "holder": None}),
    ):
        assert ask(rethinkdb_url, allowed["errors"]) == [0]  # what a restore is to do
    # A row that somebody wrote before the guard was installed can be corrected.
    ask(rethinkdb_url, table.insert({"id": "odd", "token": "x"}))
    assert ask(rethinkdb_url, table.get("odd").update({"token": 3})["errors"]) == [0]


def test_a_user_with_rights_on_the_tables_alone_leads_all_the_same(rethinkdb_url: str) -> None:
    run(lambda: set_up(rethinkdb_url, guard=True))
    ask(
        rethinkdb_url,
        r.db("rethinkdb")
        .table("users")
        .insert({"id": "few", "password": "geheim"}, conflict="replace"),
    )
    tables = ("coord_leases", "coord_announcements", "services")
    ask(
        rethinkdb_url,
        *(db(rethinkdb_url).table(t).grant("few", {"read": True, "write": True}) for t in tables),
    )
    url = rethinkdb_url.replace("://", "://few:geheim@")

    async def swaps() -> None:
        async with opened(url) as store:
            await store.open(10)
            many = [f"r{n}" for n in range(50)]
            claimed = await asyncio.gather(
                *(store.claim(Claim(role, "a", 1, 5.0), 10) for role in many)
            )
            assert all(answered(item).applied for item in claimed)
            for beat in (2, 3):
                renewed = await store.renew([Renew(role, "a", 1, beat, 5.0) for role in many], 10)
                assert all(answered(item).applied for item in renewed)
            assert answered(await store.release(Release("r0", "a", 1, 4), 10)).applied
            taken = answered(await store.claim(Claim("r0", "b", 1, 5.0), 10))
            assert (taken.applied, taken.lease.token) == (True, 2)

    run(swaps)
    with coord.connect(url) as c:
        with c.leadership("job", ttl=2) as lead:
            assert lead.wait(10)
            lead.step_down(cooldown=0)
            assert lead.wait(10)
            assert lead.term.token == 2
        assert c.leader("job") is None
    assert ask(url, db(url).table("coord_leases").get("job").delete()["errors"]) == [1]
