"""Text that others wrote, made fit for a terminal: nothing in it is obeyed, and none of it floods the screen.

Roles, ids, what candidates say of themselves, service records, error texts: anybody who may write to the store may
put anything there. `--json` shows it whole; JSON escapes what a terminal would obey.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MOST = 200
"""Characters of one thing that are shown, unless told otherwise."""
LONGEST = 2_000
"""Characters of a whole message."""
CUT = "…"


def plain(value: object, most: int = MOST) -> str:
    """`value` as at most `most` characters on one line. What is not printable is escaped as Python would.

    That holds control characters, line ends, lone surrogates, and what reorders or hides the text around it
    (bidirectional overrides, zero-width characters): Python counts none of them as printable.
    """
    text = "" if value is None else value if isinstance(value, str) else str(value)
    shown = "".join(char if char.isprintable() else _escaped(char) for char in text[: most + 1])
    return shown if len(shown) <= most else shown[: most - len(CUT)] + CUT


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def quoted(value: object, most: int = MOST) -> str:
    """The same in quotes, for a sentence."""
    return f"'{plain(value, most)}'"


def sentence(text: str) -> str:
    """A message that may hold foreign text, on one line."""
    return plain(" ".join(text.split()), LONGEST)


def pairs(info: object, most: int = MOST, *, but: tuple[str, ...] = ()) -> str:
    """What a candidate says about itself, as `key=value` pairs; what is not such a thing, as it is."""
    if not isinstance(info, Mapping):
        return plain(info, most)
    shown, length = [], 0
    for key, value in info.items():
        if key in but:
            continue
        shown.append(f"{plain(key, most)}={_value(value, most)}")
        length += len(shown[-1]) + 1
        if length > most:
            break
    return plain(" ".join(shown), most)


def who(candidate: str | None, info: object) -> str:
    """A candidate for people: where it says that it runs, or else its id."""
    about = info if isinstance(info, Mapping) else {}
    host, pid = plain(about.get("host"), 80), plain(about.get("pid"), 20)
    if not host:
        return f"candidate {plain(candidate, 80)}"
    return f"pid {pid} on {host}" if pid else host


def _value(value: object, most: int) -> str:
    if isinstance(value, str):
        return plain(value, most) if value and not set(value) & set(" ='\"") else quoted(value, most)
    return plain(dump(value), most)


def dump(value: Any) -> str:
    """All of it, as JSON in ASCII: what JSON cannot hold (a time, bytes) as text."""
    return json.dumps(value, default=str).replace("\x7f", "\\u007f")  # the one control character that JSON lets through
