"""A role's terms as its row keeps them: a JSON list, a term to each line, so that a swap reads but the last of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from coord.past import KEPT, Entry

_BETWEEN = ",\n"
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class History:
    """What `said`, a row's `history`, says: `last` is its last term, as a list; or all, where it has but one line.

    It is for people: what somebody damaged there is nothing, and stops nobody.
    """

    __slots__ = ("_before", "last")

    def __init__(self, said: object = "[]") -> None:
        # A text within JSON has no plain line break in it, so this stands only between two terms.
        *self._before, last = said[1:-1].split(_BETWEEN) if isinstance(said, str) else [""]
        self.last: list[Entry] = _parsed(last)

    def then(self, entries: Sequence[Entry]) -> str:
        """The text once `entries` stand where `last` stood."""
        return f"[{_BETWEEN.join([*self._before, *map(_encode, entries)][-KEPT:])}]"

    def all(self) -> list[Entry]:
        """All its terms, oldest first."""
        return [*(one for line in self._before for one in _parsed(line)), *self.last]


def _parsed(line: str) -> list[Any]:
    try:
        found = json.loads(f"[{line}]")
    except ValueError:
        return []
    return [one for one in found if isinstance(one, dict) and "until" in one]
