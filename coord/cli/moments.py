"""Moments and durations for people."""

from __future__ import annotations

import time

_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


def moment(at: float | None) -> str:
    """A moment (seconds since 1970) in local time: with the date when it was not today. "" for none, and for 0."""
    if not at:
        return ""
    try:
        local = time.localtime(at)
    except (OverflowError, ValueError, OSError):  # somebody wrote it by hand
        return ""
    today = time.strftime("%Y-%m-%d", local) == time.strftime("%Y-%m-%d")
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", local)


def lasting(seconds: float) -> str:
    """A duration, in its largest unit; below two of it in the next smaller one."""
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{max(seconds, 0.0):.0f} s"
