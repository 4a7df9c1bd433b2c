"""RethinkDB held to the contract of all stores, and in lockstep with the memory store."""

from __future__ import annotations

from typing import Any

import pytest

from coord.stores.protocol import Store
from coord.stores.rethinkdb import RethinkDBStore, parse_url
from coord.testing import StoreContract
from tests.stores.in_bulk import in_bulk, take_turns
from tests.stores.lockstep import run_on_server
from tests.support.levels import by_level, deeper


class TestRethinkDBContract(StoreContract):
    @pytest.fixture(autouse=True)
    def _url(self, rethinkdb_module_url: str) -> None:
        self.store_url = rethinkdb_module_url

    def make_store(self) -> Store:
        return RethinkDBStore(parse_url(self.store_url))


class TestRethinkDBContractInBulk(TestRethinkDBContract):
    def make_store(self) -> Store:
        return in_bulk(RethinkDBStore)(parse_url(self.store_url))  # type: ignore[no-any-return] # it is made there


take_turns(TestRethinkDBContract, TestRethinkDBContractInBulk)


@deeper
@pytest.mark.parametrize(
    ("kind", "examples"),
    [
        (RethinkDBStore, by_level(6, 50, 300)),
        (in_bulk(RethinkDBStore), by_level(4, 25, 150)),
    ],  # in bulk each step is several requests
    ids=["alone", "in bulk"],
)
def test_rethinkdb_answers_as_memory_does(rethinkdb_url: str, kind: Any, examples: int) -> None:
    run_on_server(kind, rethinkdb_url, examples=examples)
