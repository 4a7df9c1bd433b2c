"""Renewals in bulk: one light query where all is as it was left, and every row's own answer where
it is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from coord.core.operations import Answer, Claim, Failure, Release, Renew
from coord.errors import StoreRefused
from coord.stores.failures import RequestError
from coord.stores.rethinkdb import RethinkDBStore, errors
from coord.stores.rethinkdb.queries.rows import FIELDS
from tests.stores.rethinkdb.kit import answered, ask, db, opened, r, run

ROLES = [f"role {number}" for number in range(12)]


async def held(store: RethinkDBStore) -> list[Renew]:
    for role in ROLES:
        assert answered(
            await store.claim(Claim(role, f"holder of {role}", 1, 30.0, info={"of": role}), 5)
        ).applied
    return [Renew(role, f"holder of {role}", 1, 2, 30.0) for role in ROLES]


class Counted:
    """How many queries a store has put."""

    def __init__(self, store: RethinkDBStore) -> None:
        self.count = 0
        self._run = store.pool.query
        store.pool.query = self.run  # type: ignore[method-assign]

    async def run(self, *args: Any, **options: Any) -> Any:
        self.count += 1
        return await self._run(*args, **options)


@pytest.mark.parametrize("count", [1, len(ROLES)])
def test_renewals_report_the_clock_of_the_server(
    rethinkdb_url: str, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            renewals = (await held(store))[:count]
            with monkeypatch.context() as patch:
                patch.setattr("time.time", lambda: 0.0)
                results = await store.renew(renewals, 5)
            stored = {lease.role: lease for lease in await store.read(ROLES[:count], 5)}
            for result in results:
                lease = answered(result).lease
                assert lease.renewed_at == stored[lease.role].renewed_at

    run(body)


def test_all_as_left_is_one_query_and_renews_each(rethinkdb_url: str) -> None:
    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            renewals = await held(store)
            counted = Counted(store)
            results = [answered(item) for item in await store.renew(renewals, 5)]
            assert counted.count == 1
            assert all(result.applied for result in results)
            rows = {row.role: row for row in await store.read(ROLES, 5)}
            for request, result in zip(renewals, results, strict=True):
                row = rows[request.role]
                assert row.revision == result.lease.revision == (request.holder, 1, 2)
                assert row.info == {"of": request.role}
                assert 29 < row.remaining <= 30
                assert result.lease.remaining <= 30
            document = await store.pool.query(
                db(rethinkdb_url).table("coord_leases").get(ROLES[0]), 5
            )
            assert set(document) == {
                "id",
                *FIELDS[1:],
                "history",
                "kept",
            }  # nothing of the request is left in it
            assert len(document["history"]) == 1

    run(body)


def test_each_has_its_own_answer_where_some_are_not_as_left(rethinkdb_url: str) -> None:
    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            renewals = await held(store)
            taken, vacant, deleted, stepped, longer, reports, again = range(7)
            lease = (await store.read([ROLES[taken]], 5))[0]
            claim = Claim(ROLES[taken], "another", 1, 30.0, expected=lease.revision, takeover=True)
            assert answered(await store.claim(claim, 5)).applied
            release = Release(ROLES[vacant], f"holder of {ROLES[vacant]}", 1, 5)
            assert answered(await store.release(release, 5)).applied
            table = db(rethinkdb_url).table("coord_leases")
            future = r.now() + 100
            await store.pool.query(table.get(ROLES[deleted]).delete(), 5)
            await store.pool.query(table.get(ROLES[stepped]).update({"renewed_at": future}), 5)
            renewals[longer] = replace(renewals[longer], ttl=60.0)
            renewals[reports] = replace(renewals[reports], info={"new": True})
            renewals[again] = replace(renewals[again], beat=1)
            results = [answered(item) for item in await store.renew(renewals, 5)]
            refused = {taken, vacant, deleted, again}
            assert {number for number, first in enumerate(results) if not first.applied} == refused
            assert results[taken].lease.holder == "another"
            assert results[vacant].lease.vacant
            assert results[deleted].lease.token == 0
            rows = {row.role: row for row in await store.read(ROLES, 5)}
            assert ROLES[deleted] not in rows  # a renewal makes no row
            assert (
                rows[ROLES[stepped]].remaining > 100
            )  # the clock stepped back: nothing is shortened
            assert (rows[ROLES[longer]].ttl, rows[ROLES[reports]].info) == (60.0, {"new": True})
            assert all(
                rows[role].beat == 2 for number, role in enumerate(ROLES) if number not in refused
            )

    run(body)


def test_a_batch_and_its_second_look_together_tell_what_was_renewed(rethinkdb_url: str) -> None:
    """Without info in any, the light query comes first, and renews all but one; the second must not
    deny that."""

    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            renewals = await held(store)
            ask_for = replace(renewals[3], token=7)
            counted = Counted(store)
            results = [
                answered(item)
                for item in await store.renew([*renewals[:3], ask_for, *renewals[4:]], 5)
            ]
            assert counted.count == 2
            assert [result.applied for result in results] == [
                number != 3 for number in range(len(ROLES))
            ]
            assert results[3].lease.token == 1

    run(body)
    assert len(
        ask(rethinkdb_url, db(rethinkdb_url).table("coord_leases").coerce_to("array"))[0]
    ) == len(ROLES)


def test_a_batch_makes_no_row_where_there_is_none(rethinkdb_url: str) -> None:
    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            renewals = await held(store)
            await store.pool.query(
                db(rethinkdb_url).table("coord_leases").get(ROLES[5]).delete(), 5
            )
            results = [answered(item) for item in await store.renew(renewals, 5)]
            assert [result.applied for result in results] == [
                number != 5 for number in range(len(ROLES))
            ]
            assert sorted(row.role for row in await store.read(None, 5)) == sorted(
                set(ROLES) - {ROLES[5]}
            )

    run(body)


def test_a_role_that_is_called_like_a_type_marker(rethinkdb_url: str) -> None:
    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            renewals = await held(store)
            assert answered(await store.claim(Claim("$reql_type$", "me", 1, 30.0), 5)).applied
            results = await store.renew([*renewals, Renew("$reql_type$", "me", 1, 2, 30.0)], 5)
            assert all(answered(result).applied for result in results)

    run(body)


def test_many_swaps_are_a_few_queries(rethinkdb_url: str) -> None:
    """One where the rows are there; one more for those that are not."""

    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            await store.open(5)  # The settings of the table are known from then on.
            some, more = ROLES[:6], ROLES
            counted = Counted(store)

            async def swapped(swaps: list[Claim | Release], queries: int) -> list[Answer]:
                counted.count = 0
                results = [answered(item) for item in await store.swap_all(swaps, 5)]
                assert [result.lease.role for result in results] == [swap.role for swap in swaps]
                assert counted.count == queries
                return results

            first = await swapped([Claim(role, "a", 1, 30.0) for role in some], 2)
            assert all(item.applied for item in first)
            both = await swapped([Claim(role, "b", 1, 30.0) for role in more], 2)
            assert [item.applied for item in both] == [role not in some for role in more]
            refused = await swapped([Claim(role, "c", 1, 30.0) for role in more], 1)
            assert not any(item.applied for item in refused)
            back = await swapped(
                [Release(role, "a" if role in some else "b", 1, 2) for role in more], 1
            )
            assert all(item.applied for item in back)
            mixed: list[Claim | Release] = [
                *(
                    Claim(item.lease.role, "d", 1, 30.0, expected=item.lease.revision)
                    for item in back[:9]
                ),
                *(Release(item.lease.role, "d", 1, 2) for item in back[9:]),
            ]
            assert [item.applied for item in await swapped(mixed, 2)] == [True] * 9 + [False] * 3
            assert {row.token for row in await store.read(ROLES[:9], 5)} == {2}
            document = await store.pool.query(
                db(rethinkdb_url).table("coord_leases").get(ROLES[0]), 5
            )
            assert set(document) == {
                "id",
                *FIELDS[1:],
                "history",
                "kept",
            }  # nothing of the request is left in it

    run(body)


@pytest.mark.parametrize(
    "damage",
    [
        {"token": "many"},
        {"holder": 7},
        {"ttl": None},
        {"beat": [1]},
        {"renewed_at": 0},
        {"token": 2**53},
    ],
)
def test_a_row_that_was_written_by_hand_stops_no_other(
    rethinkdb_url: str, damage: dict[str, Any]
) -> None:
    """It has the same result as when it is sent alone."""

    async def body() -> None:
        table = db(rethinkdb_url).table("coord_leases")
        async with opened(rethinkdb_url) as store:
            renewals = await held(store)
            for takes in ("claims", "releases"):
                for role in ROLES[:2]:
                    await store.pool.query(
                        table.get(role).update({"holder": "x", "token": 1, "beat": 1, "ttl": 30}), 5
                    )
                    await store.pool.query(table.get(role).update(damage), 5)
                swaps: list[Claim | Release]
                if takes == "claims":
                    swaps = [Claim(renewal.role, "new", 1, 30.0, floor=1) for renewal in renewals]
                else:
                    swaps = [
                        Release(renewal.role, renewal.holder, renewal.token, 5)
                        for renewal in renewals
                    ]
                alone = await (
                    store.claim(replace(swaps[0], role=ROLES[0]), 5)
                    if isinstance(swaps[0], Claim)
                    else store.release(swaps[0], 5)
                )
                results = await store.swap_all(swaps[1:], 5)
                if isinstance(alone, Answer):
                    together = answered(results[0])
                    assert (together.applied, together.lease.revision) == (
                        alone.applied,
                        alone.lease.revision,
                    )
                else:
                    assert results[0] == alone
                applied = [answered(result).applied for result in results[1:]]
                assert applied == [takes == "releases"] * len(applied)

    run(body)


def test_a_row_that_the_server_refuses_stops_no_other(rethinkdb_url: str) -> None:
    """A write hook's error is one for the whole query: then each is asked by itself."""

    async def body() -> None:
        table = db(rethinkdb_url).table("coord_leases")
        async with opened(rethinkdb_url) as store:
            await held(store)
            hook = table.set_write_hook(
                lambda _, old, new: r.branch(new["id"].eq(ROLES[3]), r.error("not this one"), new)
            )
            await store.pool.query(hook, 5)
            results = await store.swap_all(
                [Claim(role, "b", 1, 30.0, skew=None, takeover=True) for role in ROLES], 5
            )
            refused = results.pop(3) if isinstance(results, list) else None
            assert isinstance(refused, Failure)
            assert refused.permanent
            assert all(answered(result).applied for result in results)
            assert {row.token for row in await store.read(None, 5) if row.role != ROLES[3]} == {2}

    run(body)


def test_what_a_batch_may_have_done_is_not_denied(rethinkdb_url: str) -> None:
    """It is refused without saying for which, and then the connection is gone: nobody knows (rule
    8)."""

    async def body() -> None:
        async with opened(rethinkdb_url) as store:
            claims = [Claim(role, "b", 1, 30.0) for role in ROLES]
            await held(store)
            real, requests = store.pool.query, list[object]()

            async def broken(*args: Any, **options: Any) -> Any:
                requests.append(args)
                if len(requests) == 1:
                    raise RequestError("refused", unknown=True, refusal=StoreRefused)
                if len(requests) % 2:
                    raise errors.unreachable("gone")
                return await real(*args, **options)

            store.pool.query = broken  # type: ignore[method-assign]
            results = await store.swap_all(claims, 5)
            assert len(requests) == 1 + len(ROLES)
            failures = [result for result in results if isinstance(result, Failure)]
            assert failures == [Failure(unknown=True, detail="gone")] * (len(ROLES) // 2)
            assert not any(result.applied for result in results if isinstance(result, Answer))

    run(body)
