"""Checks of what callers pass in. Each raises `BadArgument` with the argument and its value."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeGuard, TypeVar

from coord.core.lease import MAX_TOKEN, MIN_TTL
from coord.errors import BadArgument

P = ParamSpec("P")
T = TypeVar("T")

MAX_SLOTS = 64
"""Slots of one role. Each is a row that every candidate follows."""
MAX_ROLE_BYTES = 120
"""RethinkDB refuses primary keys above 127 bytes; coord reserves the others for itself."""
SHARDS_ROW, SLOTS_ROW = "/", "#"
"""What follows the name of a group, or of a role with several slots, in the name of the row in
which its users agree on the number of shards or slots. Nobody leads that row."""
AGREEMENT_SUFFIXES = (SHARDS_ROW, SLOTS_ROW)
_ROLE_ALLOWED = f"must be a string of 1 to {MAX_ROLE_BYTES} bytes in UTF-8, without NUL"
MAX_INFO_BYTES = 16_384
"""Bytes of JSON that the info of a candidate may have; it is in every row that a store returns."""
MAX_TTL = 31 * 86_400.0
"""Seconds that a lease may last at most."""
MAX_SECONDS = 1e9
"""The largest duration in seconds, 31 years. A thread cannot wait for much longer."""


def shared(check: Callable[P, T]) -> Callable[P, T]:
    """Decorate a check of settings so that calls with equal arguments share one result.

    Ten thousand roles with the same settings are checked once, and keep one object.
    """
    cached = lru_cache(maxsize=64, typed=True)(check)

    @wraps(check)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return cached(*args, **kwargs)  # type: ignore[arg-type] # the `except` is for them
        except TypeError:  # an argument that cannot be a key of the cache
            return check(*args, **kwargs)

    return call


def name(value: object, argument: str, most: int, allowed: str) -> str:
    """Return `value` if it is a non-empty string without NUL and lone surrogates.

    Args:
        value: What the caller passed.
        argument: The name of the argument, for the message.
        most: The largest allowed size in bytes of UTF-8.
        allowed: What the message says is allowed.

    Raises:
        BadArgument: It is not such a string.
    """
    if not isinstance(value, str) or not value or "\0" in value:
        raise BadArgument(argument, value, allowed)
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise BadArgument(argument, value, allowed) from None
    if size > most:
        raise BadArgument(argument, value, f"{allowed}; it has {size:,} bytes")
    return value


def role(value: object, argument: str = "role") -> str:
    """Return `value` if it is a role: a string of 1 to 120 bytes in UTF-8, without NUL.

    Raises:
        BadArgument: It is not a role.
    """
    return name(value, argument, MAX_ROLE_BYTES, _ROLE_ALLOWED)


def elected_role(value: object, argument: str = "role") -> str:
    """Return `value` if it is a role that candidates can be elected for.

    A name that ends with `/` or `#` is the row in which a group agrees on its shards or slots. A
    candidate would overwrite what the group has agreed on.

    Raises:
        BadArgument: It is not a role, or the row of such an agreement.
    """
    if role(value, argument).endswith(AGREEMENT_SUFFIXES):
        allowed = "must not end with '/' or '#', as the rows of groups do"
        raise BadArgument(argument, value, allowed)
    return str(value)


def table(value: object, argument: str = "table") -> str:
    """Return `value` if it is the name of a table of service records.

    RethinkDB allows no other names. The rule is the same for all stores, so that an application can
    move from one to another.

    Raises:
        BadArgument: It is not.
    """
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", value):
        allowed = "must be 1 to 100 of the characters A-Z, a-z, 0-9, _ and -"
        raise BadArgument(argument, value, allowed)
    return value


def candidate_name(value: object, argument: str = "to") -> str:
    """Return `value` if it may be what names a candidate: its id or a part of it, or its name.

    Raises:
        BadArgument: It is not a string of 1 to 200 bytes.
    """
    return name(value, argument, 200, "must be the id or name of a candidate, of at most 200 bytes")


def requester(value: object, argument: str = "by") -> str:
    """Return who requests something, for the history of a role; "" if that is not known.

    Raises:
        BadArgument: It is not a string of at most 200 bytes.
    """
    return (
        "" if value == "" else name(value, argument, 200, "must be a string of at most 200 bytes")
    )


def number(
    value: object,
    argument: str,
    *,
    low: float,
    high: float = MAX_SECONDS,
    above: bool = False,
    unit: str = "seconds",
) -> float:
    """Return `value` as a float if it is a finite int or float in a range. A bool is not a number.

    Args:
        value: What the caller passed.
        argument: The name of the argument, for the message.
        low: The smallest allowed value.
        high: The largest allowed value.
        above: Whether the value must be greater than `low`.
        unit: The unit, for the message.

    Raises:
        BadArgument: It is not such a number.
    """
    if above:
        allowed = f"must be greater than {low:g} and at most {high:,.10g} {unit}"
    else:
        allowed = f"must be between {low:g} and {high:,.10g} {unit}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadArgument(argument, value, allowed)
    try:
        as_float = float(value)
    except OverflowError:
        raise BadArgument(argument, value, allowed) from None
    # NaN is not in any range.
    if not low <= as_float <= high or (above and as_float == low):
        raise BadArgument(argument, value, allowed)
    return as_float


def is_number(value: object, most: float = sys.float_info.max) -> TypeGuard[float]:
    """Return whether a value from the store is an int or a float from `-most` to `most`.

    A bool is not a number here, and neither are NaN and an int that no float can hold, which JSON
    allows.
    """
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and -most <= value <= most
    )


def ttl(value: object, argument: str = "ttl") -> float:
    """Return the duration of a lease in seconds, from 0.1 seconds to 31 days, as a float.

    Raises:
        BadArgument: It is not such a number.
    """
    return number(value, argument, low=MIN_TTL, high=MAX_TTL)


def linger(value: object) -> float:
    """Return for how many seconds nobody gets a role after its leader has stopped, up to 31 days.

    Raises:
        BadArgument: It is not such a number.
    """
    return number(value, "linger", low=0, high=MAX_TTL)


def hold(value: object) -> float | None:
    """Return for how many seconds a role is reserved for its next leader; None means the default.

    Raises:
        BadArgument: It is neither None nor a number of seconds that a lease may last.
    """
    return None if value is None else ttl(value, "hold")


def timeout(value: object) -> float | None:
    """Return the maximum time to wait in seconds, at least 0; None means no limit.

    Raises:
        BadArgument: It is not such a number.
    """
    return None if value is None else number(value, "timeout", low=0)


def at_most(value: object) -> float | None:
    """Return the maximum time in seconds that a job may run without progress; None means no limit.

    Raises:
        BadArgument: It is neither None nor a number greater than 0.
    """
    return None if value is None else number(value, "at_most", low=0, above=True)


def priority(value: object) -> int:
    """Return the priority of a candidate, an int from -1000 to 1000.

    Raises:
        BadArgument: It is not such an int.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not -1000 <= value <= 1000:
        raise BadArgument("priority", value, "must be an int from -1000 to 1000")
    return value


def slots(value: object, argument: str = "slots") -> int:
    """Return `value` if it is a number of slots: 1 to 64.

    Raises:
        BadArgument: It is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_SLOTS:
        raise BadArgument(argument, value, f"must be a number from 1 to {MAX_SLOTS}")
    return value


def token_floor(value: object) -> int:
    """Return the token that all later tokens must exceed, an int from 0 to 2**53 - 1.

    Raises:
        BadArgument: It is not such an int.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MAX_TOKEN:
        raise BadArgument("token_floor", value, f"must be an int from 0 to {MAX_TOKEN - 1}")
    return value


def drain_timeout(value: object, ttl: float) -> float:
    """Return how long the end of a term waits for its work, in seconds; None means `ttl`.

    Raises:
        BadArgument: It is neither None nor a number of at least 0.
    """
    return ttl if value is None else number(value, "drain_timeout", low=0)


def min_tenure(value: object, ttl: float) -> float:
    """Return how long a term lasts at least before a higher priority may end it, in seconds.

    Args:
        value: What the caller passed; None means three times `ttl`.
        ttl: The duration of the lease, in seconds.

    Raises:
        BadArgument: It is neither None nor a number of at least 0.
    """
    return 3 * ttl if value is None else number(value, "min_tenure", low=0)


def info(value: object, argument: str = "info") -> dict[str, Any]:
    """Return a copy of what a candidate says about itself; None means nothing.

    Args:
        value: A mapping with string keys that JSON can hold, of at most 16 KiB.
        argument: The name of the argument, for the message.

    Raises:
        BadArgument: It is not such a mapping.
    """
    if value is None:
        return {}
    allowed = (
        f"must be a dict with string keys that JSON can hold, of at most {MAX_INFO_BYTES:,} bytes"
    )
    if not isinstance(value, Mapping):
        raise BadArgument(argument, value, allowed)
    try:
        text = json.dumps(dict(value), allow_nan=False)
        copied: dict[str, Any] = json.loads(text, object_hook=_storable, parse_int=_float_size)
        # A string with a lone surrogate cannot be encoded, and stores refuse it.
        json.dumps(copied, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as err:
        raise BadArgument(argument, value, f"{allowed} ({err})") from None
    if len(text) > MAX_INFO_BYTES:
        raise BadArgument(argument, value, f"{allowed}; it has {len(text):,}")
    if not all(isinstance(key, str) for key in value):
        raise BadArgument(argument, value, allowed)
    return copied


def _storable(part: dict[str, Any]) -> dict[str, Any]:
    if "$reql_type$" in part:
        raise ValueError("RethinkDB reserves the key $reql_type$")
    return part


def _float_size(digits: str) -> int:
    value = int(digits)
    if abs(value) > sys.float_info.max:
        raise ValueError("a number is too large for a float")
    return value


def callback(value: object, argument: str) -> Any:
    """Return `value` if it can be called.

    Raises:
        BadArgument: It cannot be called.
    """
    if not callable(value):
        raise BadArgument(argument, value, "must be a function, sync or async")
    return value
