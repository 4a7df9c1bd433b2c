"""The store that docs/writing-a-store.md builds passes the contract."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from coord.stores.protocol import Store
from coord.testing import StoreContract
from tests.docs.blocks import blocks


def tinystore() -> types.ModuleType:
    """The module that the page shows in full."""
    (block,) = [
        block
        for block in blocks({"python"})
        if "writing-a-store" in block.where and "class TinyStore" in block.code
    ]
    module = types.ModuleType("tinystore")
    sys.modules["tinystore"] = module
    exec(compile(block.code, block.where, "exec"), module.__dict__)
    return module


class TestTinyStore(StoreContract):
    kind: Any = None

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        TestTinyStore.kind = TestTinyStore.kind or tinystore().TinyStore
        self.path = str(tmp_path / "leases.db")

    def make_store(self) -> Store:
        store: Store = self.kind(self.path)
        return store
