"""One Redis server for all tests of a process; tests that stop a server have their own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.support import redis_server as servers
from tests.support import requirements


@pytest.fixture(scope="session")
def redis_server() -> Iterator[servers.Server]:
    requirements.need("redis")
    with servers.Server() as server:
        yield server


@pytest.fixture
def own_redis_server() -> Iterator[servers.Server]:
    """A running server of this test's own, to be killed, frozen and restarted at will."""
    requirements.need("redis")
    with servers.Server() as server:
        yield server


@pytest.fixture
def url(redis_server: servers.Server) -> str:
    """An empty namespace: tests that are imported from elsewhere run on it."""
    return servers.set_up(redis_server.url(f"test-{secrets.token_hex(6)}"), 1e6)
