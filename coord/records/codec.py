"""Records as JSON text, for stores that hold no datetimes: those and bytes become objects with one marked key."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any

TIME, BYTES = "$coord_time", "$coord_bytes"


def dump(value: object) -> str:
    """Raises `TypeError` or `ValueError` for what `values.plain` would not let through."""
    return json.dumps(value, default=_special, allow_nan=False, separators=(",", ":"), ensure_ascii=False)


def load(text: str) -> Any:
    """Raises `ValueError` or `TypeError` for what `dump` did not write."""
    return json.loads(text, object_hook=_back)


def _special(value: object) -> dict[str, str]:
    if isinstance(value, datetime):
        return {TIME: value.isoformat()}
    if isinstance(value, bytes):
        return {BYTES: base64.b64encode(value).decode("ascii")}
    raise TypeError(type(value).__name__)


def _back(found: dict[str, Any]) -> Any:
    if len(found) == 1:
        if TIME in found:
            return datetime.fromisoformat(found[TIME])
        if BYTES in found:
            return base64.b64decode(found[BYTES])
    return found
