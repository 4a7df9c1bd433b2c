"""Registries on every store; and the ancestor, on the same table."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from coord import Coordinator, ServiceRegistry
from tests.support import raw_records, requirements


@pytest.fixture
def database(rethinkdb_module_url: str) -> str:
    """The module's database, with nothing in its tables."""
    coordinator = Coordinator(rethinkdb_module_url)
    registry = coordinator.services
    raw_records.run(registry, registry.inner.records._table.delete())  # type: ignore[attr-defined]
    coordinator.close()
    return rethinkdb_module_url


@pytest.fixture
def two(url: str) -> Iterator[tuple[ServiceRegistry, ServiceRegistry]]:
    """Two registries on one store, as two processes would have."""
    with ServiceRegistry(url) as first, ServiceRegistry(url) as second:
        yield first, second


@pytest.fixture
def registry(two: tuple[ServiceRegistry, ServiceRegistry]) -> ServiceRegistry:
    return two[0]


def doublethink() -> Any:
    """The ancestor itself."""
    return requirements.doublethink()


def ancestor(url: str, table: str = "services") -> Any:
    """The ancestor's registry on the same database."""
    module = doublethink()
    address, _, database = url.removeprefix("rethinkdb://").partition("/")
    return module.ServiceRegistry(module.Rethinker([address], db=database), table)


def set_up(url: str) -> None:
    """What `coord init` does."""
    from coord.stores.rethinkdb.setup import set_up as go

    asyncio.run(go(url))
