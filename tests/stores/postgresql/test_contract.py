"""PostgreSQL held to the contract of all stores, and in lockstep with the memory store."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from coord.stores.postgresql import PostgreSQLStore, parse_url
from coord.stores.postgresql.connection import Pool
from coord.stores.protocol import Store
from coord.testing import StoreContract
from tests.stores.in_bulk import in_bulk, take_turns
from tests.stores.lockstep import run_on_server
from tests.support.levels import by_level, deeper


class TestPostgreSQLContract(StoreContract):
    @pytest.fixture(autouse=True)
    def _url(self, module_url: str) -> None:
        self.store_url = module_url

    def make_store(self) -> Store:
        return PostgreSQLStore(self.store_url)

    @contextlib.asynccontextmanager
    async def hold_row(self, role: str) -> AsyncIterator[None]:
        pool = Pool(parse_url(self.store_url))
        lock = await pool.open(10)
        table = f"{parse_url(self.store_url).schema}.leases"
        await lock.raw.execute("BEGIN")
        await lock.raw.execute(f"SELECT 1 FROM {table} WHERE role = $1 FOR UPDATE", role)
        try:
            yield
        finally:
            await lock.raw.execute("ROLLBACK")
            await pool.close()


class TestPostgreSQLContractInBulk(TestPostgreSQLContract):
    def make_store(self) -> Store:
        return in_bulk(PostgreSQLStore)(self.store_url)  # type: ignore[no-any-return] # it is made there


take_turns(TestPostgreSQLContract, TestPostgreSQLContractInBulk)


@deeper
@pytest.mark.parametrize(
    ("kind", "examples"),
    [
        (PostgreSQLStore, by_level(6, 50, 300)),
        (in_bulk(PostgreSQLStore), by_level(4, 25, 150)),
    ],  # in bulk each step is several requests
    ids=["alone", "in bulk"],
)
def test_postgresql_answers_as_memory_does(url: str, kind: Any, examples: int) -> None:
    run_on_server(kind, url, examples=examples)
