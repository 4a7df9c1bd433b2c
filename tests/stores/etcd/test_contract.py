"""The etcd store, held to the contract on a real server."""

from __future__ import annotations

import pytest

from coord.stores.etcd import EtcdStore
from coord.stores.protocol import Store
from coord.testing import StoreContract


class TestEtcd(StoreContract):
    @pytest.fixture(autouse=True)
    def _url(self, url: str) -> None:
        self.url = url

    def make_store(self) -> Store:
        return EtcdStore(self.url)
