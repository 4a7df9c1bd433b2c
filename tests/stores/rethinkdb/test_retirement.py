"""Rows of RethinkDB shrink to their tokens, and tokens never fall."""

from __future__ import annotations

import json
import math

from coord.core.lease import PAUSED, Lease, Revision
from coord.core.operations import Answer, Claim, Override, Release, Retire
from coord.stores.rethinkdb import RethinkDBStore
from coord.stores.rethinkdb.setup import raise_token_floor, set_up
from tests.stores.rethinkdb.kit import answered, ask, db, opened, r, run


async def led(store: RethinkDBStore, role: str, floor: int = 0, terms: int = 1) -> Revision:
    """Return the revision of the row after so many terms."""
    for _ in range(terms):
        claimed = answered(await store.claim(Claim(role, "a", 1, 30.0, floor=floor), 20))
        assert claimed.applied
        release = Release(role, "a", claimed.lease.token, 2)
        released = answered(await store.release(release, 20))
        assert released.applied
    return released.lease.revision


async def retired(store: RethinkDBStore, role: str, revision: Revision) -> bool:
    (done,) = await store.retire([Retire(role, "", revision, math.inf)], 20)
    return done


def test_what_remains_of_a_row_is_its_token(rethinkdb_module_url: str) -> None:
    """With the write hook, which rejects deletes and falling tokens."""
    table = db(rethinkdb_module_url).table("coord_leases")

    async def body() -> None:
        await set_up(rethinkdb_module_url, guard=True)
        async with opened(rethinkdb_module_url) as store:
            revision = await led(store, "tenant-1", floor=900, terms=20)
            before = await store.pool.read(table.get("tenant-1"), 20)
            assert await retired(store, "tenant-1", revision)
            row = await store.pool.read(table.get("tenant-1"), 20)
            assert row == {"id": "tenant-1", "token": 920, "retired": True}
            assert len(json.dumps(row)) * 20 < len(json.dumps(before, default=str))
            for roles in (None, ["tenant-1"]):
                assert await store.read(roles, 20) == []
                assert await store.past(roles, 20) == []
            assert (await led(store, "tenant-1")).token == 921
            assert [lease.role for lease in await store.read(None, 20)] == ["tenant-1"]

    run(body)


def test_a_feed_shows_a_retired_role_as_one_without_a_row(rethinkdb_module_url: str) -> None:
    async def body() -> None:
        async with opened(rethinkdb_module_url) as store, opened(rethinkdb_module_url) as other:
            assert await retired(other, "watched-x", await led(other, "watched-x"))
            revision = await led(other, "watched-y")
            feed = store.watch(["watched-x", "watched-y"])
            assert (await feed.__anext__()).revision == revision
            assert await retired(other, "watched-y", revision)
            assert await feed.__anext__() == Lease("watched-y")
            claim = Claim("watched-x", "b", 1, 30.0)
            assert answered(await other.claim(claim, 20)).applied
            assert (await feed.__anext__()).token == 2

    run(body)


def test_a_raised_floor_raises_the_tokens_of_retired_roles(rethinkdb_module_url: str) -> None:
    async def body() -> None:
        async with opened(rethinkdb_module_url) as store:
            for role, floor in (("high", 900), ("low", 0)):
                assert await retired(store, role, await led(store, role, floor=floor))
            await raise_token_floor(rethinkdb_module_url, 50, ["high", "low", "new"])
            tokens = {role: (await led(store, role)).token for role in ("high", "low", "new")}
            assert tokens == {"high": 902, "low": 51, "new": 51}

    run(body)


def test_a_batch_claims_and_pauses_retired_roles(rethinkdb_module_url: str) -> None:
    async def body() -> None:
        async with opened(rethinkdb_module_url) as store:
            roles = [f"r{number}" for number in range(5)]
            for role in roles:
                assert await retired(store, role, await led(store, role, floor=40))
            absent = Revision(None, 0, 0)
            claims = [Claim(role, "b", 1, 30.0, expected=absent) for role in roles[:2]]
            claims += [Claim(role, "b", 1, 30.0) for role in roles[2:4]]
            results = [answered(result) for result in await store.swap_all(claims, 20)]
            assert [(each.applied, each.lease.token) for each in results] == [(True, 42)] * 4
            late = Claim(roles[4], "b", 1, 30.0, expected=Revision(None, 41, 2))
            assert answered(await store.claim(late, 20)) == Answer(False, Lease(roles[4]))
            override = Override(roles[4], absent, PAUSED, 5)
            paused = answered(await store.override(override, 20))
            assert (paused.applied, paused.lease.token) == (True, 41)

    run(body)


def test_a_mark_that_a_person_set_on_a_held_row_means_nothing(rethinkdb_module_url: str) -> None:
    table = db(rethinkdb_module_url).table("coord_leases")

    async def body() -> None:
        async with opened(rethinkdb_module_url) as store:
            claim = Claim("marked", "a", 1, 30.0)
            assert answered(await store.claim(claim, 20)).applied
            await store.pool.run(table.get("marked").update({"retired": True}), 20)
            assert "a" in {lease.holder for lease in await store.read(None, 20)}
            other = answered(await store.claim(Claim("marked", "b", 1, 30.0), 20))
            assert (other.applied, other.lease.holder) == (False, "a")
            expecting = Claim("marked", "b", 1, 30.0, expected=Revision(None, 0, 0))
            assert not answered(await store.claim(expecting, 20)).applied

    run(body)


def test_a_row_that_a_person_wrote_is_retired_too(rethinkdb_module_url: str) -> None:
    table = db(rethinkdb_module_url).table("coord_leases")
    ask(
        rethinkdb_module_url,
        table.insert([{"id": "written-x", "token": 7}, {"id": "written-y", "at": r.now()}]),
    )

    async def body() -> None:
        async with opened(rethinkdb_module_url) as store:
            for role, token in (("written-x", 7), ("written-y", 0)):
                (row,) = await store.read([role], 20)
                assert await retired(store, role, row.revision)
                assert await store.read([role], 20) == []
                assert (await led(store, role)).token == token + 1

    run(body)
