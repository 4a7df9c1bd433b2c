"""Text from the store for people, and values of a store for programs.

Anybody who can write to the store can put any text into roles, ids, infos, service records and
errors. What people read therefore has control characters escaped, and long texts cut. JSON holds
everything, because it escapes what a terminal would interpret.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coord.core.announcements import Candidate
    from coord.core.history import PastTerm
    from coord.core.lease import Lease

MAX_LENGTH = 200
"""Characters that are shown of one value, unless the caller wants another limit."""
MAX_MESSAGE_LENGTH = 2_000
"""Characters that are shown of a message."""
ELLIPSIS = "…"
_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


def sanitize(value: object, most: int = MAX_LENGTH) -> str:
    """Return `value` as one line of at most `most` characters that is safe to print.

    Characters that Python does not count as printable are escaped: control characters, line ends,
    lone surrogates, and characters that reorder or hide text (bidirectional overrides, zero-width
    characters).
    """
    text = "" if value is None else value if isinstance(value, str) else str(value)
    shown = "".join(char if char.isprintable() else _escaped(char) for char in text[: most + 1])
    return shown if len(shown) <= most else shown[: most - len(ELLIPSIS)] + ELLIPSIS


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def quote(value: object, most: int = MAX_LENGTH) -> str:
    """Return `sanitize(value)` in single quotes, for use in a sentence."""
    return f"'{sanitize(value, most)}'"


def one_line(text: str) -> str:
    """Return a message, which may contain untrusted text, as one line that is safe to print."""
    return sanitize(" ".join(text.split()), MAX_MESSAGE_LENGTH)


def format_info(info: object, most: int = MAX_LENGTH, *, but: tuple[str, ...] = ()) -> str:
    """Return what a candidate says about itself as `key=value` pairs.

    Args:
        info: The info. A value that is not a mapping is shown as it is.
        most: Characters to show.
        but: Keys to leave out.
    """
    if not isinstance(info, Mapping):
        return sanitize(info, most)
    shown, length = [], 0
    for key, value in info.items():
        if key in but:
            continue
        shown.append(f"{sanitize(key, most)}={_value(value, most)}")
        length += len(shown[-1]) + 1
        if length > most:
            break
    return sanitize(" ".join(shown), most)


IDENTITY = ("name", "host", "pid")
"""Keys of an info that `candidate_name` and `candidate_place` show."""


def candidate_name(candidate: str | None, info: object) -> str:
    """Return the name or the id in a candidate's info, by which `coord transfer --to` finds it too,
    or otherwise its own id."""
    about = info if isinstance(info, Mapping) else {}
    names = (about.get(key) for key in ("name", "id"))
    return sanitize(next((name for name in names if isinstance(name, str) and name), candidate), 80)


def candidate_place(info: object) -> str:
    """Return where a candidate says that it runs, such as `pid 7 on vm`; empty if unknown."""
    about = info if isinstance(info, Mapping) else {}
    host, pid = sanitize(about.get("host"), 80), sanitize(about.get("pid"), 20)
    return f"pid {pid} on {host}" if host and pid else host


def describe_candidate(candidate: str | None, info: object) -> str:
    """Return the name of a candidate and where it runs, or otherwise its id."""
    name, place = candidate_name(candidate, info), candidate_place(info)
    if name == sanitize(candidate, 80):
        return place or f"candidate {name}"
    return f"{name} ({place})" if place else name


def describe_vacancy(lease: Lease) -> str:
    """Return what to show in the place of the leader of a role that nobody leads."""
    if not lease.withheld:
        return "nobody"
    by = lease.withheld_by
    what = "paused" if lease.paused else "lease revoked"
    return f"nobody ({what} by {sanitize(by, 80)})" if by else f"nobody ({what})"


def _value(value: object, most: int) -> str:
    if isinstance(value, str):
        return (
            sanitize(value, most) if value and not set(value) & set(" ='\"") else quote(value, most)
        )
    return sanitize(to_json(value), most)


def to_json(value: Any) -> str:
    """Return `value` as JSON in ASCII. What JSON cannot hold (datetimes, bytes) becomes text."""
    # DEL is the only control character that JSON does not escape.
    return json.dumps(value, default=str).replace("\x7f", "\\u007f")


def format_time(at: float | None) -> str:
    """Return a time in seconds since 1970 as local time, with the date unless it is today.

    None, 0 and times that Python cannot represent give "".
    """
    if not at:
        return ""
    try:
        local = time.localtime(at)
    except (OverflowError, ValueError, OSError):  # The store may contain any number.
        return ""
    today = time.strftime("%Y-%m-%d", local) == time.strftime("%Y-%m-%d")
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", local)


def format_duration(seconds: float) -> str:
    """Return a duration in seconds in the largest unit of which there are at least two."""
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{max(seconds, 0.0):.0f} s"


def term_as_dict(term: PastTerm) -> dict[str, Any]:
    """Return a term as values that JSON can hold. Times are in seconds since 1970."""
    return {
        "role": term.role,
        "token": term.token,
        "holder": term.holder,
        "since": term.since,
        "until": term.until,
        "reason": term.reason,
        "by": term.by,
        "info": term.info,
    }


def lease_as_dict(lease: Lease) -> dict[str, Any]:
    """Return a lease as values that JSON can hold.

    Durations are in seconds; `renewed_at` and `since` are in seconds since 1970, 0 if unknown. If
    an operator has paused the role or revoked the lease, nobody is the holder, and `info` says who
    did that.
    """
    return {
        "role": lease.role,
        "holder": None if lease.withheld else lease.holder,
        "token": lease.token,
        "ttl": lease.ttl,
        "remaining": round(max(0.0, lease.remaining), 3),
        "renewed_at": lease.renewed_at,
        "since": lease.since,
        "info": lease.info,
    }


def candidate_as_dict(candidate: Candidate) -> dict[str, Any]:
    """Return a candidate that waits as values that JSON can hold.

    `since` is in seconds since 1970.
    """
    return {
        "role": candidate.role,
        "id": candidate.id,
        "priority": candidate.priority,
        "since": candidate.since,
        "info": candidate.info,
    }
