"""What `coord run` was asked to do, and how it speaks to people."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
    full_url: str
    """Secrets included: for COMMAND's environment, and nowhere else."""


def say(text: str) -> None:
    """One line on stderr."""
    print(f"coord run: {' '.join(text.split())}", file=sys.stderr, flush=True)
