"""What a stored notice means. Total: a row that somebody wrote by hand may hold anything, and is then left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from coord.checks import is_number
from coord.notice import Notice


def dump(body: Mapping[str, Any]) -> str:
    """A body as it is stored: a text, in ASCII, so that a store finds nothing in it that would mean something."""
    return json.dumps(dict(body), allow_nan=False, separators=(",", ":"))


def notice(
    key: object, role: object, kind: object, body: object, ttl: object, loud: object, posted_at: object, left: float
) -> Notice | None:
    """The notice that these columns hold, `left` seconds before it runs out; None where they hold none."""
    if not (isinstance(key, str) and isinstance(role, str) and isinstance(kind, str) and isinstance(body, str)):
        return None
    if not is_number(ttl) or ttl <= 0:
        return None
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    at = float(posted_at) if is_number(posted_at) else 0.0
    return Notice(key, role, kind, said, float(ttl), bool(loud), at, min(left, float(ttl)))
