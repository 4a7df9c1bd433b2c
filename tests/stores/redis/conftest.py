"""One Redis server for all tests of a process; tests that stop a server have their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import redis_server as servers
from tests.support import requirements
from tests.support.store_urls import new_redis_namespace


@pytest.fixture
def own_redis_server() -> Iterator[servers.Server]:
    """A running server of this test's own, to be killed, frozen and restarted at will."""
    requirements.need("redis")
    with servers.Server() as server:
        yield server


@pytest.fixture
def url(redis_server: servers.Server) -> str:
    """An empty namespace: tests that are imported from elsewhere run on it."""
    return new_redis_namespace(redis_server)
