"""The Redis store, held to the contract on a real server."""

from __future__ import annotations

import pytest

from coord.stores.protocol import Store
from coord.stores.redis import RedisStore
from coord.testing import StoreContract


class TestRedis(StoreContract):
    @pytest.fixture(autouse=True)
    def _url(self, url: str) -> None:
        self.url = url

    def make_store(self) -> Store:
        return RedisStore(self.url)
