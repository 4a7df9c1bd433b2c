"""PostgreSQL held to the contract of all stores, and in lockstep with the memory store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from coord.core.operations import Claim, Result
from coord.stores.postgresql import PostgreSQLStore, parse_url
from coord.stores.postgresql.connection import Pool
from coord.stores.protocol import Store
from coord.testing import StoreContract
from tests.stores.in_bulk import in_bulk
from tests.stores.lockstep import Lockstep


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


@pytest.mark.parametrize(
    "kind", [PostgreSQLStore, in_bulk(PostgreSQLStore)], ids=["alone", "in bulk"]
)
def test_postgresql_answers_as_memory_does(url: str, kind: Any) -> None:
    """Its clock cannot be set: what `remaining` decides is left out here, and tested by itself."""

    class Patient(kind):  # type: ignore[misc] # a class that is given
        async def claim(self, claim: Claim, timeout: float) -> Result:
            skew = None if claim.skew is None else claim.skew + 3600
            return await super().claim(replace(claim, skew=skew), timeout)

    class PostgreSQL(Lockstep):
        loop = asyncio.new_event_loop()
        tested = Patient(url)

    try:
        run_state_machine_as_test(
            PostgreSQL,
            settings=settings(
                max_examples=25 if kind is PostgreSQLStore else 12,
                stateful_step_count=20,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        PostgreSQL.loop.run_until_complete(PostgreSQL.tested.close())
        PostgreSQL.loop.close()
