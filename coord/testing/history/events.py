from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["invoke", "ok", "fail", "unknown"]


KINDS = ("invoke", "ok", "fail", "unknown")


class MalformedHistory(ValueError):
    """A history that no run can have produced, or a line of a file that is none of its events."""


@dataclass(frozen=True, slots=True)
class Event:
    """`op` pairs an invoke with its outcome: a number that `process` uses for no other
    operation."""

    kind: Kind
    at: float
    process: str
    op: int
    action: str
    role: str
    value: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """An invoke with its outcome. `called` and `returned` are places in the history: the order
    decides, times tell.

    `returned` is None where the outcome is unknown: nothing limits when it takes effect.
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
        given = ", ".join(f"{name}={value!r}" for name, value in self.args.items())
        shown = {"ok": dict(self.result), "fail": "not done", "unknown": "unknown"}[self.outcome]
        span = f"{self.began:.6g}..{'' if self.ended is None else format(self.ended, '.6g')}"
        return f"[{span}] {self.process} #{self.op} {self.action}({self.role}: {given}) -> {shown}"
