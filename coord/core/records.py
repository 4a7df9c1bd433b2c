"""Service records: their JSON text, and checks of records.

Every store writes datetimes and bytes in the way of RethinkDB's wire protocol.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from coord.core import validation
from coord.core.validation import is_number
from coord.errors import BadArgument

KIND = "$reql_type$"


def encode_record(value: object) -> str:
    """Return a record as JSON text.

    Raises:
        TypeError: It contains a value that `storable` refuses.
        ValueError: It contains NaN or infinity.
    """
    return json.dumps(
        value, default=_special, allow_nan=False, separators=(",", ":"), ensure_ascii=False
    )


def decode_record(text: str) -> Any:
    """Return the record that `encode_record` wrote.

    Raises:
        ValueError: The text is not such a record.
        TypeError: The text is not such a record.
    """
    return json.loads(text, object_hook=_plain)


def decode(value: Any) -> Any:
    """Return a record from JSON that is already parsed."""
    if isinstance(value, dict):
        return _plain({name: decode(item) for name, item in value.items()})
    return [decode(item) for item in value] if isinstance(value, list) else value


def _special(value: object) -> dict[str, Any]:
    if isinstance(value, datetime):
        offset = value.strftime("%z")
        return {
            KIND: "TIME",
            "epoch_time": value.timestamp(),
            "timezone": f"{offset[:3]}:{offset[3:5]}",
        }
    if isinstance(value, bytes):
        return {KIND: "BINARY", "data": base64.b64encode(value).decode("ascii")}
    raise TypeError(type(value).__name__)


def _plain(value: dict[str, Any]) -> Any:
    kind = value.get(KIND)
    if kind == "TIME":
        offset = str(value["timezone"])
        minutes = int(offset[1:3]) * 60 + int(offset[4:6]) if len(offset) == 6 else 0
        zone = (
            timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))
            if minutes
            else timezone.utc
        )
        try:
            return datetime.fromtimestamp(value["epoch_time"], zone)
        except (ValueError, OverflowError, OSError):
            return value  # Python does not support this year.
    if kind == "BINARY":
        return base64.b64decode(value["data"])
    return value


MAX_DEPTH = 16
"""RethinkDB's driver takes 20 levels of nesting in a whole query."""
MAX_ID_BYTES = 127
"""RethinkDB's limit for a primary key."""
TOMBSTONE = "unregistered"
"""The field of the mark that `remove` leaves in place of a record (see `Records.remove`)."""


def validate_status(status: object) -> Record:
    """Return a copy of `status_info` that every store can hold.

    Raises:
        BadArgument: A field is missing or invalid.
    """
    allowed = "must be a dict with string keys and at least role, ttl and load"
    if not isinstance(status, Mapping):
        raise BadArgument("status_info", type(status).__name__, allowed)
    # Messages name the fields and do not show their values: a value may contain a password.
    if not all(isinstance(name, str) for name in status):
        raise BadArgument(
            "status_info", [name for name in status if not isinstance(name, str)], allowed
        )
    for field in ("role", "ttl", "load"):
        if field not in status:
            raise BadArgument("status_info", list(status), f"{allowed}; {field} is missing")
    record = {name: storable(value, f"status_info[{name!r}]") for name, value in status.items()}
    validation.role(record["role"], "status_info['role']")
    validation.number(record["ttl"], "status_info['ttl']", low=0, above=True)
    if not is_number(record["load"]):
        raise BadArgument("status_info['load']", status["load"], "must be a finite number")
    if record.get("id") is None:
        record.pop("id", None)
    else:
        validate_id(record["id"], "status_info['id']")
    if record.get("first_heartbeat") is None:
        record.pop("first_heartbeat", None)
    elif not isinstance(record["first_heartbeat"], datetime):
        raise BadArgument(
            "status_info['first_heartbeat']",
            status["first_heartbeat"],
            "must be a datetime with a time zone, or None",
        )
    record.pop("last_heartbeat", None)
    return record


def silence_by_wall_clock(ttl: float, last_heartbeat: object, wall: float) -> float:
    """Return how many seconds a service from before the last boot has sent no heartbeat.

    The wall clock decides, and the result is at least two ttls, because that service is down.
    """
    return max(2 * ttl, wall - last_heartbeat) if is_number(last_heartbeat) else 2 * ttl


def validate_id(value: object, argument: str = "id") -> str | int:
    """Return the id of a record: a string of 1 to 127 bytes in UTF-8 without NUL, or an int.

    Raises:
        BadArgument: It is neither.
    """
    allowed = (
        f"must be a string of 1 to {MAX_ID_BYTES} bytes in UTF-8, without NUL, or an int below 2^53"
    )
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return value
    return validation.name(value, argument, MAX_ID_BYTES, allowed)


def storable(value: object, argument: str, depth: int = 0) -> Any:
    """Return a deep copy of a value that every store can hold.

    That is JSON, bytes, and datetimes with a time zone, which are cut to milliseconds.

    Raises:
        BadArgument: It contains another value.
    """
    if value is None or isinstance(value, (bool, str, bytes)):
        return value
    if isinstance(value, (int, float)):
        if is_number(value):
            return value
        raise BadArgument(argument, value, "must be a finite number")
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise BadArgument(argument, value, "must be a datetime with a time zone")
        return value.replace(microsecond=value.microsecond // 1000 * 1000)
    if isinstance(value, (list, tuple, Mapping)) and depth >= MAX_DEPTH:
        raise BadArgument(
            argument, type(value).__name__, f"must have at most {MAX_DEPTH} levels of nesting"
        )
    if isinstance(value, (list, tuple)):
        return [storable(item, argument, depth + 1) for item in value]
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) and not name.startswith("$reql_") for name in value):
            raise BadArgument(
                argument,
                list(value),
                "must be a dict with string keys that do not begin with $reql_",
            )
        return {name: storable(item, argument, depth + 1) for name, item in value.items()}
    raise BadArgument(
        argument,
        value,
        "must be None, a bool, number, string, bytes, datetime with a time zone, list or dict",
    )


def problems(record: Mapping[str, Any], now: datetime) -> list[str]:
    """Return what is wrong with a stored record, for people; an empty list if it is well-formed.

    Lookups and purges ignore a record without a valid ttl and last_heartbeat. The other problems
    make a service look better or worse than it is.
    """
    if TOMBSTONE in record:
        return []
    messages = []
    ttl, beat = record.get("ttl"), record.get("last_heartbeat")
    if "ttl" not in record:
        messages.append("no ttl")
    elif not is_number(ttl) or ttl <= 0:
        messages.append(f"ttl is not a number above 0: {abbreviate(ttl)}")
    if "last_heartbeat" not in record:
        messages.append("no last_heartbeat")
    elif not isinstance(beat, datetime) or beat.tzinfo is None:
        messages.append(f"last_heartbeat is not a time: {abbreviate(beat)}")
    elif is_number(ttl) and (ahead := (beat - now).total_seconds()) > ttl:
        messages.append(
            f"last_heartbeat lies {ahead:.0f} s in the future: written by a client's clock?"
        )
    if "load" in record and not is_number(record["load"]):
        messages.append(f"load is not a number, and sorts last: {abbreviate(record['load'])}")
    if "role" in record and not isinstance(record["role"], str):
        messages.append(f"role is not a string: {abbreviate(record['role'])}")
    return messages


def is_published(record: Mapping[str, Any]) -> bool:
    """Return whether `Records.publish` wrote this record, which has the holder and the token."""
    return isinstance(record.get("holder"), str) and is_number(record.get("token"))


def abbreviate(value: object) -> str:
    """Return a value for a message, in at most 31 characters if it is long."""
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:30]}…"


def has_valid_times(record: Mapping[str, Any]) -> bool:
    """Return whether the times of a record are valid, so that its health can be computed."""
    ttl, beat = record.get("ttl"), record.get("last_heartbeat")
    return is_number(ttl) and ttl > 0 and isinstance(beat, datetime) and beat.tzinfo is not None


def by_load(record: Mapping[str, Any]) -> tuple[int, float]:
    """Return a sort key: the lowest load first, and records without a valid load last."""
    load = record.get("load")
    return (0, load) if is_number(load) else (1, 0)


Record = dict[str, Any]


class RecordWithRemaining(NamedTuple):
    """A record, and the seconds until it is down by the store's clock (0 or less: it is down)."""

    record: Record
    remaining: float
