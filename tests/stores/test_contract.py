"""The stores that need nothing else to run, held to the contract."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coord.stores.memory.store import MemoryStore
from coord.stores.protocol import Store
from coord.stores.sqlite import SQLiteStore
from coord.testing import StoreContract
from tests.stores.in_bulk import in_bulk, take_turns
from tests.support.databases import new_sqlite_url


class TestMemory(StoreContract):
    @pytest.fixture(autouse=True)
    def _store(self) -> None:
        self.store = MemoryStore()

    def make_store(self) -> Store:
        return self.store


class TestSQLite(StoreContract):
    @pytest.fixture(autouse=True)
    def _path(self, memory_path: Path) -> None:
        self.path = str(memory_path / "new" / "coord.db")
        new_sqlite_url(memory_path / "new" / "coord.db")

    def make_store(self) -> Store:
        return SQLiteStore(self.path)

    @contextlib.asynccontextmanager
    async def hold_row(self, role: str) -> AsyncIterator[None]:
        conn = sqlite3.connect(self.path, isolation_level=None)
        conn.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            conn.close()


class TestSQLiteInBulk(TestSQLite):
    def make_store(self) -> Store:
        return in_bulk(SQLiteStore)(self.path)  # type: ignore[no-any-return] # of a class that is made there


take_turns(TestSQLite, TestSQLiteInBulk)
