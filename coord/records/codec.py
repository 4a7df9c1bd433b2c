"""Records as JSON text. Datetimes and bytes are written as RethinkDB's wire protocol writes them, for every store."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta, timezone
from typing import Any

KIND = "$reql_type$"


def dump(value: object) -> str:
    """Raises `TypeError` or `ValueError` for what `values.plain` would not let through."""
    return json.dumps(value, default=_special, allow_nan=False, separators=(",", ":"), ensure_ascii=False)


def load(text: str) -> Any:
    """Raises `ValueError` or `TypeError` for what `dump` did not write."""
    return json.loads(text, object_hook=_plain)


def decode(value: Any) -> Any:
    """The same for JSON that has been parsed already."""
    if isinstance(value, dict):
        return _plain({name: decode(item) for name, item in value.items()})
    return [decode(item) for item in value] if isinstance(value, list) else value


def _special(value: object) -> dict[str, Any]:
    if isinstance(value, datetime):
        offset = value.strftime("%z")
        return {KIND: "TIME", "epoch_time": value.timestamp(), "timezone": f"{offset[:3]}:{offset[3:5]}"}
    if isinstance(value, bytes):
        return {KIND: "BINARY", "data": base64.b64encode(value).decode("ascii")}
    raise TypeError(type(value).__name__)


def _plain(found: dict[str, Any]) -> Any:
    kind = found.get(KIND)
    if kind == "TIME":
        offset = str(found["timezone"])
        minutes = int(offset[1:3]) * 60 + int(offset[4:6]) if len(offset) == 6 else 0
        zone = timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes)) if minutes else timezone.utc
        try:
            return datetime.fromtimestamp(found["epoch_time"], zone)
        except (ValueError, OverflowError, OSError):
            return found  # a year that Python does not know
    if kind == "BINARY":
        return base64.b64decode(found["data"])
    return found
