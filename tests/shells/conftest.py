"""Stores for the shells' tests: each test that takes `url` runs on all of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from coord import Coordinator

_names = itertools.count()


@pytest.fixture(params=["memory", "sqlite", pytest.param("rethinkdb", marks=pytest.mark.rethinkdb)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return f"memory://shells-{next(_names)}"
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/coord.db"
    found: str = request.getfixturevalue("rethinkdb_url")
    return found


@pytest.fixture
def two(url: str) -> Iterator[tuple[Coordinator, Coordinator]]:
    """Two coordinators on one store, as two processes would have."""
    first, second = Coordinator(url), Coordinator(url)
    yield first, second
    first.close()
    second.close()


@pytest.fixture
def one(two: tuple[Coordinator, Coordinator]) -> Coordinator:
    return two[0]
