"""Leases in a SQLite file: for any number of processes on one machine, with nothing to install or
to run."""

from __future__ import annotations

from coord.runtime.clock import StoreClock
from coord.stores.sqlite.connection import default_path
from coord.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore", "StoreClock", "default_path"]
