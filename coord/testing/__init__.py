"""The public test kit. Nothing of it is imported before it is asked for: coord itself needs no pytest or hypothesis."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coord.testing.contract import StoreContract
    from coord.testing.election_kit import ElectionKit
    from coord.testing.faulty_store import Fault, FaultyStore
    from coord.testing.history import Event, History, MalformedHistory, Operation
    from coord.testing.judges import BadHistory, Violation, judge
    from coord.testing.linearizability import Undecided
    from coord.testing.manual_clock import ManualClock
    from coord.testing.recording import RecordingStore, look

_WHERE = {
    "BadHistory": "coord.testing.judges",
    "ElectionKit": "coord.testing.election_kit",
    "Event": "coord.testing.history",
    "Fault": "coord.testing.faulty_store",
    "FaultyStore": "coord.testing.faulty_store",
    "History": "coord.testing.history",
    "MalformedHistory": "coord.testing.history",
    "ManualClock": "coord.testing.manual_clock",
    "Operation": "coord.testing.history",
    "RecordingStore": "coord.testing.recording",
    "StoreContract": "coord.testing.contract",
    "Undecided": "coord.testing.linearizability",
    "Violation": "coord.testing.judges",
    "judge": "coord.testing.judges",
    "look": "coord.testing.recording",
}

__all__ = [
    "BadHistory",
    "ElectionKit",
    "Event",
    "Fault",
    "FaultyStore",
    "History",
    "MalformedHistory",
    "ManualClock",
    "Operation",
    "RecordingStore",
    "StoreContract",
    "Undecided",
    "Violation",
    "judge",
    "look",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
