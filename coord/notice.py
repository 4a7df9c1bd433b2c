"""What is written on the board beside the leases, where candidates and operators tell each other things."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CANDIDATE = "candidate"
"""The kind of a notice by which a candidate that waits says so (`coord/candidate.py`)."""
REQUEST = "request"
"""The kind of a notice by which somebody asks something of a role's leader."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice about `role`. Whoever posts another under the same `key` (1 to 127 bytes) replaces it.

    `body` is what JSON can hold. It stands for `ttl` seconds from when it was posted, by the store's clock. A `loud`
    one is told at once to all who watch the board. `posted_at` is wall time (seconds since 1970), for people;
    `remaining` is in seconds, by the store's clock when it was read. Both are the store's to fill in.
    """

    key: str
    role: str
    kind: str
    body: Mapping[str, Any] = field(hash=False)
    ttl: float
    loud: bool = False
    posted_at: float = 0.0
    remaining: float = 0.0
