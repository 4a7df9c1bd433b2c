"""The Redis store, held to the contract and in lockstep with the memory store, on a real server."""

from __future__ import annotations

from typing import Any

import pytest

from coord.stores.protocol import Store
from coord.stores.redis import RedisStore
from coord.testing import StoreContract
from tests.stores.in_bulk import in_bulk, take_turns
from tests.stores.lockstep import run_on_server
from tests.support.levels import by_level, deeper


class TestRedis(StoreContract):
    @pytest.fixture(autouse=True)
    def _url(self, url: str) -> None:
        self.url = url

    def make_store(self) -> Store:
        return RedisStore(self.url)


class TestRedisInBulk(TestRedis):
    def make_store(self) -> Store:
        return in_bulk(RedisStore)(self.url)  # type: ignore[no-any-return] # of a class that is made there


take_turns(TestRedis, TestRedisInBulk)


@deeper
@pytest.mark.parametrize(
    ("kind", "examples"),
    [(RedisStore, by_level(6, 50, 300)), (in_bulk(RedisStore), by_level(4, 25, 150))],
    ids=["alone", "in bulk"],
)
def test_redis_answers_as_memory_does(url: str, kind: Any, examples: int) -> None:
    run_on_server(kind, url, examples=examples)
