"""PostgreSQL held to the contract of all stores, and in lockstep with the memory store."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from coord.core.operations import Claim, Result
from coord.stores.postgresql import PostgreSQLStore
from coord.stores.protocol import Store
from coord.testing import StoreContract
from tests.stores.lockstep import Lockstep


class TestPostgreSQLContract(StoreContract):
    @pytest.fixture(autouse=True)
    def _url(self, module_url: str) -> None:
        self.store_url = module_url

    def make_store(self) -> Store:
        return PostgreSQLStore(self.store_url)


def test_postgresql_answers_as_memory_does(url: str) -> None:
    """Its clock cannot be set: what `remaining` decides is left out here, and tested by itself."""

    class Patient(PostgreSQLStore):
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
                max_examples=40,
                stateful_step_count=20,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        PostgreSQL.loop.run_until_complete(PostgreSQL.tested.close())
        PostgreSQL.loop.close()
