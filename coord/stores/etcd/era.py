"""The era of a namespace: a random text that changes when its tokens are raised after a restore.

A restored backup sets the revisions of etcd back, so other writes get revisions that a process has
seen before. Each transaction compares the era, and a process that knows another one reads again
what it needs.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from coord.stores.etcd.gateway import Answer, encode


def same(key: str, era: str | None) -> dict[str, Any]:
    """Return the comparison that fails in another era.

    Args:
        key: The key of the era.
        era: The era as `read` returned it; None if the key did not exist.
    """
    if era is None:
        return {"target": "VERSION", "key": encode(key), "version": "0"}
    return {"target": "VALUE", "key": encode(key), "value": era}


def look(key: str) -> dict[str, Any]:
    """Return the part of a transaction that reads the era."""
    return {"request_range": {"key": encode(key)}}


def read(response: Mapping[str, Any]) -> str | None:
    """Return the era in the answer to `look`, as the gateway encodes it; None if there is no key.

    A key without a value is an era, too: a comparison that it does not exist would always fail.
    """
    answer: Answer = response["response_range"]
    pairs = answer.get("kvs", [])
    return str(pairs[0].get("value", "")) if pairs else None


def new(key: str) -> dict[str, Any]:
    """Return the request that begins an era."""
    return {"key": encode(key), "value": encode(secrets.token_hex(8))}
