"""PostgreSQL behind PgBouncer in transaction mode, where each transaction may run on another
connection to the server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from coord.core.operations import Claim, Release, Renew
from coord.stores.postgresql import PostgreSQLStore, admin
from coord.stores.protocol import Store
from coord.testing import StoreContract
from tests.stores.postgresql.kit import answered, opened, run
from tests.support import requirements
from tests.support.pgbouncer import PgBouncer
from tests.support.postgresql_server import Server
from tests.support.store_urls import new_schema

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def pooler(postgresql_server: Server) -> Iterator[PgBouncer]:
    requirements.need("pgbouncer")
    with PgBouncer(postgresql_server, "default_pool_size = 3") as started:
        yield started


@pytest.fixture(scope="module")
def pooled_url(pooler: PgBouncer, postgresql_server: Server) -> str:
    return pooler.through(new_schema(postgresql_server))


class TestPostgreSQLBehindPgBouncer(StoreContract):
    @pytest.fixture(autouse=True)
    def _url(self, pooled_url: str) -> None:
        self.store_url = pooled_url

    def make_store(self) -> Store:
        return PostgreSQLStore(self.store_url)


@pytest.mark.parametrize(
    "settings", ["", "ignore_startup_parameters = default_transaction_isolation,statement_timeout"]
)
def test_statements_of_several_stores_do_not_get_mixed_up(
    postgresql_server: Server, settings: str
) -> None:
    """They share two connections to the server, and each has no statement of the other."""
    requirements.need("pgbouncer")
    with PgBouncer(postgresql_server, "default_pool_size = 2", settings) as pooler:
        url = pooler.through(new_schema(postgresql_server))

        async def lead(store: PostgreSQLStore, role: str) -> None:
            for turn in range(1, 11):
                claim = Claim(role, "a", 3 * turn, 30.0, info={"role": role})
                token = answered(await store.claim(claim, 20)).lease.token
                assert token == turn
                renewal = Renew(role, "a", token, 3 * turn + 1, 30.0, keep=f"{role} {turn}")
                assert answered((await store.renew([renewal], 20))[0]).applied
                (lease,) = await store.read([role], 20)
                assert (lease.token, dict(lease.info)) == (turn, {"role": role})
                assert (await store.kept(role, 20)).text == f"{role} {turn}"
                release = Release(role, "a", token, 3 * turn + 2)
                assert answered(await store.release(release, 20)).applied

        async def body() -> None:
            async with opened(url) as first, opened(url) as second, opened(url) as third:
                stores = (first, second, third)
                await asyncio.gather(
                    *(lead(stores[number % 3], f"role {number}") for number in range(6))
                )
                assert first.pool.pooled

        run(body)


def test_the_doctor_names_the_pooler(pooled_url: str, postgresql_server: Server) -> None:
    findings = asyncio.run(admin(pooled_url).check(20))
    assert [finding.detail for finding in findings if "pooler" in finding.detail]
    assert not [finding for finding in findings if finding.level == "error"]
    direct = asyncio.run(admin(new_schema(postgresql_server)).check(20))
    assert not [finding for finding in direct if "pooler" in finding.detail]
