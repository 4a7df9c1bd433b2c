"""What a check of a store found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `advice` is "" where nothing is to be done."""

    level: Level
    what: str
    detail: str
    advice: str = ""
