"""Leases in a SQLite file: for any number of processes on one machine, with nothing to install or to run."""

from coord.stores.sqlite.machine import StoreClock
from coord.stores.sqlite.place import default_path
from coord.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore", "StoreClock", "default_path"]
