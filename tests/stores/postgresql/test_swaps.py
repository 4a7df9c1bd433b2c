"""The functions in the database: races, clocks, batches."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from coord.core.lease import MAX_TOKEN
from coord.core.operations import Answer, Claim, Release, Renew
from coord.stores.postgresql import PostgreSQLStore
from coord.stores.postgresql import store as store_module
from tests.stores.postgresql.kit import answered, execute, failed, opened, run, schema_of
from tests.support.postgresql_server import Server
from tests.support.store_urls import new_schema


def test_losers_of_a_race_get_the_row_of_the_winner(url: str) -> None:
    """On rows that are absent, vacant and expired."""

    async def body() -> None:
        async with opened(url) as first, opened(url) as second:
            stores = (first, second)
            for number in range(40):
                role = f"role {number % 4}"
                rows = await first.read([role], 5)
                before = rows[0].token if rows else 0
                claims = [
                    stores[n % 2].claim(Claim(role, f"c{number}-{n}", 1, 30.0), 20)
                    for n in range(8)
                ]
                answers = [answered(result) for result in await asyncio.gather(*claims)]
                winners = [answer.lease for answer in answers if answer.applied]
                assert [lease.token for lease in winners] == [before + 1]
                assert {answer.lease.revision for answer in answers} == {winners[0].revision}
                holder = str(winners[0].holder)
                released = await first.release(Release(role, holder, before + 1, 2), 5)
                assert answered(released).applied

    run(body)


@pytest.mark.parametrize("by", ["takeover", "skew"])
def test_a_renewal_that_is_not_committed_yet_wins_against_a_takeover(url: str, by: str) -> None:
    """The claim judged the row before the renewal. It is told the row after the renewal."""

    async def body() -> None:
        async with opened(url) as store:
            first = answered(await store.claim(Claim("role", "a", 1, 0.2), 5)).lease
            await asyncio.sleep(0.4)
            renewing = await store.pool.open(5)
            transaction = renewing.raw.transaction()
            await transaction.start()
            renewal = Renew("role", "a", 1, 2, 30.0)
            parameters = store_module.rows.renew_parameters([renewal])
            await renewing.raw.fetch(store._calls["renew"], *parameters)
            rules: dict[str, Any] = {
                "takeover": {"takeover": True, "expected": first.revision},
                "skew": {"skew": 0.0},
            }
            claiming = asyncio.ensure_future(
                store.claim(Claim("role", "b", 1, 30.0, **rules[by]), 20)
            )
            await asyncio.sleep(0.4)
            assert not claiming.done()
            await transaction.commit()
            answer = answered(await claiming)
            assert (answer.applied, answer.lease.revision) == (False, ("a", 1, 2))

    run(body)


def test_a_lease_is_whole_although_the_claim_waited_for_a_lock(url: str) -> None:
    """And a lease that ran out meanwhile is taken."""

    async def body() -> None:
        async with opened(url) as store:
            await store.claim(Claim("role", "a", 1, 1.0), 5)
            lock = await store.pool.open(5)
            await lock.raw.execute(
                f"BEGIN; SELECT 1 FROM {schema_of(url)}.leases WHERE role = 'role' FOR UPDATE"
            )
            request = asyncio.ensure_future(
                store.claim(Claim("role", "b", 1, 2.0, takeover=True), 20)
            )
            await asyncio.sleep(2.5)
            await lock.raw.execute("COMMIT")
            answer = answered(await request)
            assert answer.applied
            (row,) = await store.read(["role"], 5)
            assert row.holder == "b"
            assert row.remaining > 1

    run(body)


def test_the_servers_clock_decides(url: str) -> None:
    leases = f"{schema_of(url)}.leases"

    async def claim_all() -> None:
        async with opened(url) as store:
            for age in (0, 5, 20):
                assert answered(await store.claim(Claim(f"{age}", "x", 1, 10.0), 5)).applied

    run(claim_all)
    execute(
        url,
        f"UPDATE {leases} SET expires_at = expires_at - role::int * interval '1 second' * 2,"
        " renewed_at = renewed_at - role::int * interval '1 second' * 2",
    )

    async def body() -> None:
        async with opened(url) as store:
            remaining = {lease.role: lease.remaining for lease in await store.read(None, 5)}
            assert [round(remaining[role] / 10) for role in ("0", "5", "20")] == [1, 0, -3]
            for skew, taken in ((40.0, set()), (20.0, {"20"})):
                for role in ("0", "5", "20"):
                    claim = Claim(role, "y", 1, 30.0, skew=skew)
                    assert answered(await store.claim(claim, 5)).applied == (role in taken)

    run(body)


def test_tokens_end_below_what_is_exact(url: str) -> None:
    leases = f"{schema_of(url)}.leases"
    columns = "(role, token, beat, ttl, expires_at, renewed_at)"
    execute(
        url,
        f"INSERT INTO {leases} {columns} VALUES ('last', {MAX_TOKEN - 1}, 0, 0, now(), now())",
    )

    async def body() -> None:
        async with opened(url) as store:
            last = answered(await store.claim(Claim("last", "a", 1, 5.0), 5))
            assert (last.applied, last.lease.token) == (True, MAX_TOKEN)
            result = failed(await store.claim(Claim("last", "a", 2, 5.0), 5))
            assert (result.unknown, result.permanent) == (False, True)
            assert result.detail == "the token is at its end"

    run(body)


@pytest.mark.parametrize("roles", [1, 3])
def test_renewals_say_when_they_were_applied_by_the_servers_clock(
    url: str, roles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        async with opened(url) as store:
            names = [f"r{n}" for n in range(roles)]
            claims = [answered(await store.claim(Claim(name, "a", 1, 30.0), 20)) for name in names]
            monkeypatch.setattr(time, "time", lambda: 1e9)  # the clock of this machine is wrong
            renewals = [Renew(name, "a", 1, 2, 30.0) for name in names]
            results = await store.renew(renewals, 20)
            for claimed, result in zip(claims, results, strict=True):
                assert answered(result).lease.renewed_at >= claimed.lease.renewed_at

    run(body)


def test_batches_of_renewals_in_any_order_do_not_wait_for_each_other(url: str) -> None:
    roles = [f"role {n}" for n in range(300)]

    async def body() -> None:
        async with opened(url) as first, opened(url) as second:
            claims = [first.claim(Claim(role, "a", 1, 30.0), 30) for role in roles]
            assert all(answered(result).applied for result in await asyncio.gather(*claims))
            beat = 1
            for _ in range(15):
                batches = []
                for store in (first, second):
                    beat += 1
                    batch = [Renew(role, "a", 1, beat, 30.0) for role in roles]
                    random.shuffle(batch)
                    batches.append(store.renew(batch, 20))
                for results in await asyncio.gather(*batches):
                    assert all(isinstance(result, Answer) for result in results)
            beats = {lease.beat for lease in await first.read(roles, 5)}
            assert beats <= {beat, beat - 1}

    run(body)


@pytest.mark.parametrize("count", [1, 3, 20])
def test_each_renewal_of_a_batch_has_its_own_result(
    url: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_RENEWALS", 12)

    async def body() -> None:
        async with opened(url) as store:
            roles = [f"role {n}" for n in range(count)]
            for n, role in enumerate(roles):
                claim = Claim(role, f"h{n % 3}", 1, 10.0, info={"n": n})
                assert answered(await store.claim(claim, 5)).applied
            renewals = [Renew(role, "h0", 1, 2, 5.0) for role in roles]
            renewals.append(Renew("absent", "h0", 1, 2, 5.0))
            *results, absent = [answered(item) for item in await store.renew(renewals, 5)]
            assert (absent.applied, absent.lease.role, absent.lease.token) == (False, "absent", 0)
            for n, result in enumerate(results):
                assert result.lease.role == roles[n]
                assert result.applied == (n % 3 == 0)
                assert result.lease.holder == f"h{n % 3}"
                assert result.lease.ttl == 10.0  # It never gets shorter within a term.
            changed = [
                Renew(role, f"h{n % 3}", 1, 3, 20.0, {"m": n}) for n, role in enumerate(roles)
            ]
            for result in await store.renew(changed, 5):
                assert answered(result).applied
            for lease in await store.read(roles, 5):
                n = roles.index(lease.role)
                assert (lease.beat, lease.ttl, lease.info) == (3, 20.0, {"m": n})

    run(body)


def test_rows_that_people_wrote(url: str) -> None:
    """The table rejects what is no lease. What else it takes stops nothing."""
    leases = f"{schema_of(url)}.leases"

    async def claim(role: str, beat: int) -> Any:
        async with opened(url) as store:
            return await store.claim(Claim(role, "a", beat, 30.0, info={"a": 1}), 5)

    assert answered(run(lambda: claim("role", 1))).applied
    from coord.stores.failures import RequestError

    for wrong in (
        "token = token - 1",
        "token = -1",
        "ttl = 'NaN'",
        "ttl = -1",
        "expires_at = 'infinity'",
        "renewed_at = '-infinity'",
        "since = 'infinity'",
    ):
        with pytest.raises(RequestError):
            execute(url, f"UPDATE {leases} SET {wrong}")
    with pytest.raises(RequestError):
        execute(url, f"DELETE FROM {leases}")
    for odd in ("info = '{'", "info = '[]'", "history = '{x,NULL}'", "holder = ''"):
        execute(url, f"UPDATE {leases} SET {odd}")

        async def look() -> None:
            async with opened(url) as store:
                (row,) = await store.read(None, 5)
                assert row.token >= 1
                await store.past(None, 5)
                feed: Any = store.watch(None)
                assert (await anext(feed)).role == "role"
                await feed.aclose()

        run(look)

    async def release_and_claim() -> None:
        async with opened(url) as store:
            again = Claim("role", "b", 9, 30.0, takeover=True)
            assert answered(await store.claim(again, 5)).applied

    run(release_and_claim)


def test_a_feed_hears_of_claims_releases_and_infos_at_once(url: str, monkeypatch: Any) -> None:
    """Without a look at all rows, which would come a minute later."""
    from coord.stores.postgresql import feed as feed_module

    monkeypatch.setattr(feed_module, "MIN_INTERVAL", 60.0)
    monkeypatch.setattr(feed_module, "MAX_INTERVAL", 60.0)

    async def body() -> None:
        async with opened(url) as watching, opened(url) as other:
            feed: Any = watching.watch(None)
            pending = asyncio.ensure_future(anext(feed))
            await asyncio.sleep(0.5)
            assert answered(await other.claim(Claim("role", "a", 1, 30.0), 5)).applied
            assert (await asyncio.wait_for(pending, 20)).holder == "a"
            pending = asyncio.ensure_future(anext(feed))
            (renewed,) = await other.renew([Renew("role", "a", 1, 2, 30.0, {"n": 1})], 5)
            assert answered(renewed).applied
            assert dict((await asyncio.wait_for(pending, 20)).info) == {"n": 1}
            pending = asyncio.ensure_future(anext(feed))
            assert answered(await other.release(Release("role", "a", 1, 3), 5)).applied
            assert (await asyncio.wait_for(pending, 20)).vacant
            # Anybody may send it, so it is only a hint to read.
            pending = asyncio.ensure_future(anext(feed))
            channel = f"coord_leases_{schema_of(url)}"
            for payload in ("", "{", "null", "[1]", '["role"]', '["other"]', "x" * 7000):
                await other.pool.run("SELECT pg_notify($1, $2)", (channel, payload), 5)
            await asyncio.sleep(0.3)
            assert not pending.done()
            assert answered(await other.claim(Claim("role", "b", 1, 30.0), 5)).applied
            assert (await asyncio.wait_for(pending, 20)).holder == "b"
            await feed.aclose()

    run(body)


def test_a_feed_works_without_notifications(url: str, monkeypatch: Any) -> None:
    """As behind a pooler in transaction mode."""
    from coord.stores.postgresql.connection import Connection
    from coord.stores.postgresql.feed import LeaseFeed

    async def deaf(self: LeaseFeed, connection: Connection) -> None:
        return None

    monkeypatch.setattr(LeaseFeed, "_listen", deaf)

    async def body() -> None:
        async with opened(url) as watching, opened(url) as other:
            feed: Any = watching.watch(["role"])
            pending = asyncio.ensure_future(anext(feed))
            await asyncio.sleep(0.2)
            for beat, holder in enumerate(("a", "a", "b"), 1):
                claim = Claim("role", holder, beat, 30.0, takeover=True)
                assert answered(await other.claim(claim, 5)).applied
                assert (await asyncio.wait_for(pending, 20)).revision == (holder, beat, beat)
                pending = asyncio.ensure_future(anext(feed))
            pending.cancel()

    run(body)


def test_a_duplicate_of_a_claim_is_not_applied_twice(url: str) -> None:
    async def body() -> None:
        async with opened(url) as store:
            claim = Claim("role", "a", 3, 30.0)
            assert answered(await store.claim(claim, 5)).applied
            assert not answered(await store.claim(claim, 5)).applied
            older = Claim("role", "a", 2, 30.0)
            assert not answered(await store.claim(older, 5)).applied

    run(body)


def test_isolation_of_the_database_does_not_matter(own_postgresql_server: Server) -> None:
    url = new_schema(own_postgresql_server)
    execute(url, "ALTER DATABASE postgres SET default_transaction_isolation = 'serializable'")

    async def body() -> None:
        async with opened(url) as first, opened(url) as second:
            claims = [
                store.claim(Claim("role", f"{n} {id(store)}", 1, 30.0), 20)
                for n in range(10)
                for store in (first, second)
            ]
            answers = [answered(result) for result in await asyncio.gather(*claims)]
            assert sum(answer.applied for answer in answers) == 1

    run(body)


def test_the_class_of_the_store_is_named() -> None:
    store = PostgreSQLStore("postgresql://u:geheim@db/app?schema=s&max_clock_skew=off")
    assert repr(store) == (
        "<PostgreSQLStore postgresql://u:***@db:5432/app?schema=s&max_clock_skew=off>"
    )
    assert store.max_clock_skew is None
