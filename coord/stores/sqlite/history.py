"""A role's terms as its row keeps them: a JSON list, a term to each line, so that a swap touches but the last of them.

Even that one is not parsed where its end is as coord writes it while a term lasts: parsing it and writing it anew would
take as long as a claim's SQL.
"""

from __future__ import annotations

import json
from typing import Any

from coord.past import KEPT, Entry, close

_BETWEEN = ",\n"
_LASTS = '"until":null,"reason":"","by":""}'
"""How the line of a term ends that lasts (`past.begun`)."""
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class History:
    """What `said`, a row's `history`, says. It is for people: what somebody damaged there is nothing, and stops nobody.

    `last` are the terms on its last line: one, or all where it has but one line.
    """

    __slots__ = ("_before", "_last")

    def __init__(self, said: object = "[]") -> None:
        # A text within JSON has no plain line break in it, so this stands only between two terms.
        self._before, _, self._last = said[1:-1].rpartition(_BETWEEN) if isinstance(said, str) else ("", "", "")

    @property
    def last(self) -> list[Entry]:
        return _parsed(self._last)

    def close(self, until: float, reason: str, by: str) -> None:
        """The term that lasts, if there is one, has ended."""
        last = self._last
        if last.endswith(_LASTS) and "},{" not in last:  # one term, whatever is said in it
            end = f'"until":{until!r},"reason":{_encode(reason)},"by":{_encode(by)}}}'
            self._last = last[: -len(_LASTS)] + end
        else:
            self._last = _BETWEEN.join(map(_encode, close(_parsed(last), until, reason, by)))

    def begin(self, entry: Entry) -> None:
        """A new term (`past.begun`). Call `close` before."""
        info = _encode(entry["info"]) if entry["info"] else "{}"
        who = f'{{"token":{entry["token"]},"holder":{_encode(entry["holder"])},"info":{info}'
        self._before = self._lines()
        self._last = f'{who},"since":{entry["since"]!r},{_LASTS}'

    def _lines(self) -> str:
        return f"{self._before}{_BETWEEN}{self._last}" if self._before and self._last else self._before or self._last

    def text(self) -> str:
        lines = self._lines()
        for _ in range(lines.count(_BETWEEN) + 1 - KEPT):
            lines = lines.partition(_BETWEEN)[2]
        return f"[{lines}]"

    def all(self) -> list[Entry]:
        """All its terms, oldest first."""
        return [one for line in self._lines().split(_BETWEEN) for one in _parsed(line)]


def _parsed(line: str) -> list[Any]:
    try:
        found = json.loads(f"[{line}]")
    except (ValueError, RecursionError):
        return []
    return [one for one in found if isinstance(one, dict) and "until" in one]
