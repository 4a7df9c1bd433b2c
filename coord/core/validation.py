"""Checks of what callers give: each names the argument, the value and what is allowed."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any, TypeGuard

from coord.core.lease import MAX_TOKEN
from coord.errors import BadArgument

MAX_ROLE_BYTES = 120
"""RethinkDB refuses primary keys above 127 bytes; a few are kept for ourselves."""
MAX_INFO_BYTES = 16_384
MIN_TTL, MAX_TTL = 0.1, 31 * 86_400.0


def name(value: object, argument: str, most: int, allowed: str) -> str:
    """A string of 1 to `most` bytes in UTF-8, any characters but NUL and lone surrogates."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise BadArgument(argument, value, allowed)
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise BadArgument(argument, value, allowed) from None
    if size > most:
        raise BadArgument(argument, value, f"{allowed} (this one has {size:,})")
    return value


def role(value: object, argument: str = "role") -> str:
    """A role: a string of 1 to 120 bytes in UTF-8, any characters but NUL and lone surrogates."""
    allowed = f"a role is a string of 1 to {MAX_ROLE_BYTES} bytes in UTF-8, without NUL"
    return name(value, argument, MAX_ROLE_BYTES, allowed)


def number(
    value: object, argument: str, *, low: float, high: float = math.inf, above: bool = False
) -> float:
    """A finite int or float from `low` to `high`; `above` leaves out `low` itself. A bool is not a
    number here."""
    span = f"{'above' if above else 'from'} {low:g}" + (
        f" to {high:,.10g}" if math.isfinite(high) else ""
    )
    allowed = f"a finite number of seconds {span}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadArgument(argument, value, allowed)
    try:
        given = float(value)
    except OverflowError:
        raise BadArgument(argument, value, allowed) from None
    if not math.isfinite(given) or given < low or given > high or (above and given == low):
        raise BadArgument(argument, value, allowed)
    return given


def is_number(value: object, most: float = sys.float_info.max) -> TypeGuard[float]:
    """Whether something that others wrote is an int or a float of at most `most` either way. A bool
    is not; nor is NaN, nor an int that no float can hold (JSON knows such)."""
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and -most <= value <= most
    )


def ttl(value: object, argument: str = "ttl") -> float:
    """A lease's length in seconds: 0.1 to 31 days."""
    return number(value, argument, low=MIN_TTL, high=MAX_TTL)


def timeout(value: object) -> float | None:
    """How long to wait, in seconds; None: without end."""
    return None if value is None else number(value, "timeout", low=0)


def at_most(value: object) -> float | None:
    """How long a job may stand still, in seconds; None: for ever."""
    return None if value is None else number(value, "at_most", low=0, above=True)


def priority(value: object) -> int:
    """How much a candidate is wanted: an int from -1000 to 1000."""
    if isinstance(value, bool) or not isinstance(value, int) or not -1000 <= value <= 1000:
        raise BadArgument("priority", value, "an int from -1000 to 1000")
    return value


def token_floor(value: object) -> int:
    """A token that the next ones are to be above: an int from 0 to 2**53 - 1."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MAX_TOKEN:
        raise BadArgument("token_floor", value, f"an int from 0 to {MAX_TOKEN - 1}")
    return value


def drain_timeout(value: object, ttl: float) -> float:
    """How long the end of a term waits for its work, in seconds; None: a ttl."""
    return ttl if value is None else number(value, "drain_timeout", low=0)


def min_tenure(value: object, ttl: float) -> float:
    """How long a term lasts at least before a preferred candidate gets it, in seconds; None: three
    ttls."""
    return 3 * ttl if value is None else number(value, "min_tenure", low=0)


def info(value: object, argument: str = "info") -> dict[str, Any]:
    """What a candidate tells about itself: a mapping that JSON can hold, at most 16 KiB. A copy is
    returned."""
    if value is None:
        return {}
    allowed = f"a dict with string keys that JSON can hold, at most {MAX_INFO_BYTES:,} bytes"
    if not isinstance(value, Mapping):
        raise BadArgument(argument, value, allowed)
    try:
        text = json.dumps(dict(value), allow_nan=False)
        copied: dict[str, Any] = json.loads(text, object_hook=_storable)
        json.dumps(
            copied, ensure_ascii=False
        ).encode()  # a lone surrogate is no text that a store would take
    except (TypeError, ValueError, RecursionError) as err:
        raise BadArgument(argument, value, f"{allowed} ({err})") from None
    if len(text) > MAX_INFO_BYTES:
        raise BadArgument(argument, value, f"{allowed} (this one has {len(text):,})")
    if not all(isinstance(key, str) for key in value):
        raise BadArgument(argument, value, allowed)
    return copied


def _storable(part: dict[str, Any]) -> dict[str, Any]:
    if "$reql_type$" in part:
        raise ValueError("$reql_type$ is a key of RethinkDB's own")
    return part


def callback(value: object, argument: str) -> Any:
    """Something that can be called."""
    if not callable(value):
        raise BadArgument(argument, value, "a function, plain or async")
    return value
