"""Leases in PostgreSQL, for candidates on more than one machine.

Importing this package does not import the driver. The first request does.
"""

from __future__ import annotations

from coord.stores.postgresql.admin import admin
from coord.stores.postgresql.store import PostgreSQLStore, open_url
from coord.stores.postgresql.url import PostgreSQLURL, absolute_url, parse_url, with_password_file

__all__ = [
    "PostgreSQLStore",
    "PostgreSQLURL",
    "absolute_url",
    "admin",
    "open_url",
    "parse_url",
    "with_password_file",
]
