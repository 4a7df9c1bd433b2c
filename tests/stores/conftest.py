"""The boards' tests share a database: a board has no memory of what was taken off it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

IN_MEMORY = Path("/dev/shm")


@pytest.fixture
def database(rethinkdb_module_url: str) -> str:
    return rethinkdb_module_url


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, where there is one: for tests that compare thousands of answers of a
    SQLite file and would otherwise wait for the disk most of the time."""
    if not os.access(IN_MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="coord-tests-", dir=IN_MEMORY) as directory:
        yield Path(directory)
