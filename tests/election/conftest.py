"""Stores for the shells' tests: each test that takes `url` runs on all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from coord import Coordinator


@pytest.fixture
def two(url: str) -> Iterator[tuple[Coordinator, Coordinator]]:
    """Two coordinators on one store, as two processes would have."""
    first, second = Coordinator(url), Coordinator(url)
    yield first, second
    first.close()
    second.close()


@pytest.fixture
def coordinator(two: tuple[Coordinator, Coordinator]) -> Coordinator:
    return two[0]
