"""What a check of a store found: the same fields as the RethinkDB store's own findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Level = Literal["ok", "warn", "error"]


class Found(Protocol):
    """One thing that was looked at. `advice` is "" where nothing is to be done."""

    @property
    def level(self) -> Level: ...
    @property
    def what(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def advice(self) -> str: ...


@dataclass(frozen=True)
class Finding:
    """A `Found` of the command line's own."""

    level: Level
    what: str
    detail: str
    advice: str = ""
