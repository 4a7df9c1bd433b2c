"""The boards' tests share a database: a board has no memory of what was taken off it."""

from __future__ import annotations

import pytest


@pytest.fixture
def database(rethinkdb_module_url: str) -> str:
    return rethinkdb_module_url
