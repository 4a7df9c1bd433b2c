"""Leases in etcd, for candidates on more than one machine.

Importing this package does not import the HTTP library. The first request does.
"""

from __future__ import annotations

from coord.stores.etcd.admin import admin
from coord.stores.etcd.store import EtcdStore, open_url
from coord.stores.etcd.url import EtcdURL, parse_url

__all__ = ["EtcdStore", "EtcdURL", "admin", "open_url", "parse_url"]
