"""One PostgreSQL server for all tests of a process; tests that stop a server have their own."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator

import pytest

from coord.stores.postgresql import admin
from tests.support import postgresql_server as servers
from tests.support import requirements


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[servers.Server]:
    requirements.need("postgresql")
    with servers.Server() as server:
        yield server


@pytest.fixture
def own_postgresql_server() -> Iterator[servers.Server]:
    """A running server of this test's own, to be killed, frozen and restarted at will."""
    requirements.need("postgresql")
    with servers.Server() as server:
        yield server


def new_schema(server: servers.Server) -> str:
    """Create a schema, and return its URL."""
    url = server.url(options=f"?schema=test_{secrets.token_hex(6)}")
    asyncio.run(admin(url).setup({}, 30))
    return url


@pytest.fixture(scope="module")
def module_url(postgresql_server: servers.Server) -> str:
    """A schema that the tests of a module share."""
    return new_schema(postgresql_server)


@pytest.fixture
def url(postgresql_server: servers.Server) -> str:
    """An empty schema of this test's own."""
    return new_schema(postgresql_server)
