"""Leases in a SQLite file, for any number of processes on one machine. No server is needed."""

from __future__ import annotations

from coord.runtime.clock import StoreClock

# `admin` must be imported here: this binds the name to the function instead of the module.
from coord.stores.sqlite.admin import admin
from coord.stores.sqlite.files import default_path
from coord.stores.sqlite.store import SQLiteStore, open_url
from coord.stores.sqlite.url import absolute_url, default_url

__all__ = [
    "SQLiteStore",
    "StoreClock",
    "absolute_url",
    "admin",
    "default_path",
    "default_url",
    "open_url",
]
