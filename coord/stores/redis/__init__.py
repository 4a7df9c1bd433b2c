"""Leases in Redis or Valkey, for candidates on more than one machine.

Importing this package does not import the driver. The first request does.
"""

from __future__ import annotations

from coord.stores.redis.admin import admin
from coord.stores.redis.store import RedisStore, open_url
from coord.stores.redis.url import RedisURL, absolute_url, parse_url, with_password_file

__all__ = [
    "RedisStore",
    "RedisURL",
    "absolute_url",
    "admin",
    "open_url",
    "parse_url",
    "with_password_file",
]
