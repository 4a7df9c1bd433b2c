"""Leases in etcd, for candidates on more than one machine.

Importing this package does not import the HTTP library. The first request does.
"""

from __future__ import annotations

from coord.stores.etcd.admin import admin
from coord.stores.etcd.store import EtcdStore, open_url
from coord.stores.etcd.url import EtcdURL, absolute_url, parse_url, with_password_file

__all__ = [
    "EtcdStore",
    "EtcdURL",
    "absolute_url",
    "admin",
    "open_url",
    "parse_url",
    "with_password_file",
]
