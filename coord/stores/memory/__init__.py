"""A store in the memory of one process, for tests and for trying things out."""

from __future__ import annotations

# `admin` must be imported here: this binds the name to the function instead of the module.
from coord.stores.memory.admin import admin
from coord.stores.memory.store import MemoryStore, open_url

__all__ = ["MemoryStore", "admin", "open_url"]
