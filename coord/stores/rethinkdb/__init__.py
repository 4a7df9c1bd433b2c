"""Leases in RethinkDB: for candidates on more than one machine. The driver is imported when a query
is first made."""

from __future__ import annotations

from coord.stores.rethinkdb.store import RethinkDBStore
from coord.stores.rethinkdb.url import RethinkURL, parse_url

__all__ = ["RethinkDBStore", "RethinkURL", "parse_url"]
