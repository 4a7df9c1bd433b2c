"""What `coord run` was asked to do, and how it speaks to people."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coord.cli import foreign


@dataclass(frozen=True)
class Job:
    """Durations in seconds."""

    role: str
    ttl: float
    margin: float
    grace: float
    wait: bool
    timeout: float | None
    info: Mapping[str, Any]
    priority: int
    min_tenure: float
    full_url: str
    """Secrets included: for COMMAND's environment, and nowhere else."""


def say(text: str) -> None:
    """One line on stderr."""
    print(f"coord run: {foreign.sentence(text)}", file=sys.stderr, flush=True)
