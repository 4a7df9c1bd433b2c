"""Leases in Redis or Valkey, for candidates on more than one machine.

Importing this package does not import the driver. The first request does.
"""

from __future__ import annotations

from coord.stores.redis.admin import admin
from coord.stores.redis.store import RedisStore, open_url
from coord.stores.redis.url import RedisURL, parse_url

__all__ = ["RedisStore", "RedisURL", "admin", "open_url", "parse_url"]
