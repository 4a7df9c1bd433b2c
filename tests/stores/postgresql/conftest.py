"""One PostgreSQL server for all tests of a process; tests that stop a server have their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import postgresql_server as servers
from tests.support import requirements
from tests.support.store_urls import new_schema


@pytest.fixture
def own_postgresql_server() -> Iterator[servers.Server]:
    """A running server of this test's own, to be killed, frozen and restarted at will."""
    requirements.need("postgresql")
    with servers.Server() as server:
        yield server


@pytest.fixture(scope="module")
def module_url(postgresql_server: servers.Server) -> str:
    """A schema that the tests of a module share."""
    return new_schema(postgresql_server)


@pytest.fixture
def url(postgresql_server: servers.Server) -> str:
    """An empty schema of this test's own."""
    return new_schema(postgresql_server)
