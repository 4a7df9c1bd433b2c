"""Stores for the shells' tests: each test that takes `url` runs on all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from coord import Coordinator
from tests.support.store_time import RealTime, store_time

__all__ = ["store_time"]


@pytest.fixture
def two(url: str, request: pytest.FixtureRequest) -> Iterator[tuple[Coordinator, Coordinator]]:
    """Two coordinators on one store, as two processes would have.

    They live on the time of the test, if it takes `store_time`.
    """
    virtual = "store_time" in request.fixturenames
    passing: RealTime = request.getfixturevalue("store_time") if virtual else RealTime()
    first, second = passing.coordinator(url), passing.coordinator(url)
    yield first, second
    first.close()
    second.close()


@pytest.fixture
def coordinator(two: tuple[Coordinator, Coordinator]) -> Coordinator:
    return two[0]
