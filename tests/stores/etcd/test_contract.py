"""The etcd store, held to the contract and in lockstep with the memory store, on a real server."""

from __future__ import annotations

from typing import Any

import pytest

from coord.stores.etcd import EtcdStore
from coord.stores.protocol import Store
from coord.testing import StoreContract
from tests.stores.in_bulk import in_bulk, take_turns
from tests.stores.lockstep import run_on_server
from tests.support.levels import by_level, deeper


class TestEtcd(StoreContract):
    @pytest.fixture(autouse=True)
    def _url(self, url: str) -> None:
        self.url = url

    def make_store(self) -> Store:
        return EtcdStore(self.url)


class TestEtcdInBulk(TestEtcd):
    def make_store(self) -> Store:
        return in_bulk(EtcdStore)(self.url)  # type: ignore[no-any-return] # of a class that is made there


take_turns(TestEtcd, TestEtcdInBulk)


@deeper
@pytest.mark.parametrize(
    ("kind", "examples"),
    [(EtcdStore, by_level(6, 50, 300)), (in_bulk(EtcdStore), by_level(4, 25, 150))],
    ids=["alone", "in bulk"],
)
def test_etcd_answers_as_memory_does(url: str, kind: Any, examples: int) -> None:
    run_on_server(kind, url, examples=examples)
