"""The values of a history: events, and the operations that they make up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["invoke", "ok", "fail", "unknown"]
KINDS = ("invoke", "ok", "fail", "unknown")


class MalformedHistory(ValueError):
    """A history that no run can have produced, or a line of a file that is not an event."""


@dataclass(frozen=True, slots=True)
class Event:
    """An invoke or an outcome.

    Attributes:
        kind: "invoke", or the outcome: "ok", "fail" or "unknown".
        at: The time in seconds, on the clock of the history.
        process: Who performs the operation.
        op: The number of the operation, which pairs an invoke with its outcome. `process` uses it
            for no other operation.
        action: What the operation is, such as "claim".
        role: The role, or the name of the fenced resource.
        value: The fields of the action; see `coord.testing.history`.
    """

    kind: Kind
    at: float
    process: str
    op: int
    action: str
    role: str
    value: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """An invoke with its outcome.

    Attributes:
        args: The fields of the invoke.
        result: The fields of the outcome.
        called: The index of the invoke in the history. Checkers compare these indexes, not times.
        returned: The index of the outcome; None if the outcome is unknown, because the operation
            may take effect at any later time.
        began: The time of the invoke, in seconds.
        ended: The time of the outcome, in seconds; None if there is none.
    """

    process: str
    op: int
    action: str
    role: str
    args: Mapping[str, Any]
    outcome: Literal["ok", "fail", "unknown"]
    result: Mapping[str, Any]
    called: int
    returned: int | None
    began: float
    ended: float | None

    def __str__(self) -> str:
        args = ", ".join(f"{name}={value!r}" for name, value in self.args.items())
        shown = {"ok": dict(self.result), "fail": "not done", "unknown": "unknown"}[self.outcome]
        span = f"{self.began:.6g}..{'' if self.ended is None else format(self.ended, '.6g')}"
        return f"[{span}] {self.process} #{self.op} {self.action}({self.role}: {args}) -> {shown}"
