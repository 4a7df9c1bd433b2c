"""The boards' tests share a database: a board has no memory of what was taken off it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scratch import small_directory_in_memory


@pytest.fixture
def database(rethinkdb_module_url: str) -> str:
    return rethinkdb_module_url


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A directory in memory, where there is one: for tests that compare thousands of answers of a
    SQLite file and would otherwise wait for the disk most of the time."""
    with small_directory_in_memory() as directory:
        yield directory
