"""Many claims and releases in few queries."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from coord.core.lease import MAX_TOKEN
from coord.core.operations import Answer, Claim, Release
from coord.stores.postgresql import store as store_module
from coord.stores.protocol import Bulk
from tests.stores.postgresql.kit import answered, execute, failed, opened, run, schema_of


def test_many_swaps_are_a_few_queries(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_SWAPS", 50)

    async def body() -> None:
        async with opened(url) as store:
            assert isinstance(store, Bulk)
            count, really = 0, store.pool.run

            async def counted(*arguments: Any) -> Any:
                nonlocal count
                count += "pg_notify" not in arguments[0]
                return await really(*arguments)

            monkeypatch.setattr(store.pool, "run", counted)
            roles = [f"role {n}" for n in range(100)]
            random.shuffle(roles)
            claims = [Claim(role, "a", 1, 30.0, info={"of": role}) for role in roles]
            for role, result in zip(roles, await store.swap_all(claims, 20), strict=True):
                lease = answered(result).lease
                assert (lease.role, lease.token, lease.info) == (role, 1, {"of": role})
            assert count == 2
            mixed: list[Claim | Release] = [
                Release(role, "a", 1, 2) if n % 2 else Claim(role, "b", 1, 30.0)
                for n, role in enumerate(roles)
            ]
            results = [answered(item) for item in await store.swap_all(mixed, 20)]
            assert [result.applied for result in results] == [bool(n % 2) for n in range(100)]
            assert [result.lease.role for result in results] == roles
            assert count == 4
            (absent,) = await store.swap_all([Release("absent", "a", 1, 2)], 5)
            assert answered(absent).lease.revision == (None, 0, 0)
            assert await store.swap_all([], 5) == []

    run(body)


def test_one_role_without_tokens_stops_no_other(url: str) -> None:
    columns = "(role, token, beat, ttl, expires_at, renewed_at)"
    execute(
        url,
        f"INSERT INTO {schema_of(url)}.leases {columns} "
        f"VALUES ('last', {MAX_TOKEN}, 0, 0, now(), now())",
    )

    async def body() -> None:
        async with opened(url) as store:
            claims = [Claim(role, "a", 1, 30.0) for role in ("first", "last", "other")]
            first, last, other = await store.swap_all(claims, 10)
            assert answered(first).applied
            assert answered(other).applied
            assert failed(last).permanent

    run(body)


def test_batches_of_two_processes_do_not_wait_for_each_other(url: str) -> None:
    roles = [f"role {n}" for n in range(200)]

    async def body() -> None:
        async with opened(url) as first, opened(url) as second:
            for beat in range(1, 8):
                batches = []
                for number, store in enumerate((first, second)):
                    batch = [
                        Claim(role, f"{number} {beat}", beat, 30.0, takeover=True) for role in roles
                    ]
                    random.shuffle(batch)
                    batches.append(store.swap_all(batch, 30))
                for results in await asyncio.gather(*batches):
                    assert all(isinstance(result, Answer) and result.applied for result in results)
            assert {lease.token for lease in await first.read(roles, 10)} == {14}

    run(body)


def test_claims_wait_for_the_disk_and_releases_do_not(url: str) -> None:
    """A transaction with a release commits asynchronously, so no claim is in one."""
    query = "SELECT current_setting('synchronous_commit') AS setting"

    async def body() -> None:
        async with opened(url) as store:
            connection = await store.pool.open(5)
            plain, keeping = Release("r", "a", 1, 2), Release("r", "a", 2, 3, keep="text")
            for release, setting in ((None, "on"), (plain, "off"), (keeping, "on")):
                async with connection.raw.transaction():
                    await connection.raw.fetch(
                        store._calls["claim"],
                        *store_module.rows.claim_parameters(Claim("r", "a", 1, 30.0)),
                    )
                    if release is not None:
                        parameters = store_module.rows.release_parameters(release)
                        await connection.raw.fetch(store._calls["release"], *parameters)
                    assert (await connection.raw.fetchval(query)) == setting
            assert (await connection.raw.fetchval(query)) == "on"

    run(body)


def test_a_release_that_keeps_a_text_is_in_no_transaction_with_others(url: str) -> None:
    """They would not wait for the disk, and neither would the text."""

    async def body() -> None:
        async with opened(url) as store:
            run_query, batches = store.pool.run, []

            async def recorded(sql: str, parameters: Any, timeout: float) -> Any:
                if sql == store._calls["release_all"]:
                    batches.append(parameters)
                return await run_query(sql, parameters, timeout)

            store.pool.run = recorded  # type: ignore[method-assign]
            roles = ["a", "b", "c", "d"]
            await store.swap_all([Claim(role, "h", 1, 30.0) for role in roles], 5)
            releases = [Release(role, "h", 1, 2) for role in roles[:2]]
            releases += [Release(role, "h", 1, 2, keep=role) for role in roles[2:]]
            for result in await store.swap_all(releases, 5):
                assert answered(result).applied
            assert [(batch[0], batch[-1]) for batch in batches] == [
                (["a", "b"], [None, None]),
                (["c", "d"], ["c", "d"]),
            ]

    run(body)
