"""RethinkDB held to the contract of all stores, and in lockstep with the memory store."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from coord.core.lease import Lease
from coord.core.operations import Claim, Result
from coord.stores.protocol import Store
from coord.stores.rethinkdb import RethinkDBStore, parse_url
from coord.testing import StoreContract
from tests.stores.in_bulk import in_bulk
from tests.stores.lockstep import Lockstep


class TestRethinkDBContract(StoreContract):
    @pytest.fixture(autouse=True)
    def _url(self, rethinkdb_module_url: str) -> None:
        self.store_url = rethinkdb_module_url

    def make_store(self) -> Store:
        return RethinkDBStore(parse_url(self.store_url))


class TestRethinkDBContractInBulk(TestRethinkDBContract):
    def make_store(self) -> Store:
        return in_bulk(RethinkDBStore)(parse_url(self.store_url))  # type: ignore[no-any-return] # it is made there


@pytest.mark.parametrize(
    "kind", [RethinkDBStore, in_bulk(RethinkDBStore)], ids=["alone", "in bulk"]
)
def test_rethinkdb_answers_as_memory_does(rethinkdb_url: str, kind: Any) -> None:
    """Its clock cannot be set: what `remaining` decides is left out here, and tested by itself."""

    class Patient(kind):  # type: ignore[misc] # a class that is given
        async def claim(self, claim: Claim, timeout: float) -> Result:
            skew = None if claim.skew is None else claim.skew + 3600
            return await super().claim(replace(claim, skew=skew), timeout)

    class RethinkDB(Lockstep):
        loop = asyncio.new_event_loop()
        tested = Patient(parse_url(rethinkdb_url))

        def view(self, lease: Lease) -> tuple[object, ...]:
            *rest, info = super().view(lease)
            return *rest, json.dumps(info, sort_keys=True)  # RethinkDB sorts the keys

    try:
        run_state_machine_as_test(
            RethinkDB,
            settings=settings(
                max_examples=25
                if kind is RethinkDBStore
                else 12,  # in bulk each step is several queries
                stateful_step_count=20,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        RethinkDB.loop.run_until_complete(RethinkDB.tested.close())
        RethinkDB.loop.close()
